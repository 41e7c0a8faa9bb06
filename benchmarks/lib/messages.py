"""What messages between two ranks cost here. Run under `mpiexec -n 2`; rank 0 prints one JSON object."""

from __future__ import annotations

import json
import time

import numpy as np

TIMES = 2000


def main() -> None:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    me = world.Get_rank()
    state = np.zeros(2048, dtype=np.uint8)
    counter = MPI.Win.Allocate(8 if me == 0 else 0, 8, comm=world)
    one, answer = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    world.Barrier()
    trips: list[float] = []
    for _ in range(TIMES):
        began = time.perf_counter()
        if me == 0:
            world.Send(state, 1)
            world.Recv(state, 1)
        else:
            world.Recv(state, 0)
            world.Send(state, 0)
        trips.append(time.perf_counter() - began)
    world.Barrier()
    tickets: list[float] = []
    if me == 1:
        counter.Lock(0, MPI.LOCK_SHARED)
        for _ in range(TIMES):
            began = time.perf_counter()
            counter.Fetch_and_op(one, answer, 0)
            counter.Flush(0)
            tickets.append(time.perf_counter() - began)
        counter.Unlock(0)
    world.Barrier()
    tickets = world.bcast(tickets, 1)
    counter.Free()
    if me == 0:
        # The fastest tenth: ranks that wait share their cores with other programs.
        trip, ticket = (1e6 * float(np.quantile(times, 0.1)) for times in (trips, tickets))
        print(json.dumps({"state_us": trip / 2, "ticket_us": ticket}))


if __name__ == "__main__":
    main()
