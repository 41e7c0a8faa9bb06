"""What workers did when, as a trace that Perfetto and Chrome open: a process for each rank, a track for each worker."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tilesmith.superopt.search import Worker


def trace_json(searches: Sequence[Sequence[Worker]]) -> str:
    """The trace of searches that followed one another, in the Trace Event Format; times are in microseconds."""
    events: list[dict[str, object]] = []
    began_s = 0.0
    named: set[tuple[int, int]] = set()
    for workers in searches:
        places: dict[int, int] = {}
        for worker in workers:
            place = places[worker.rank] = places.get(worker.rank, -1) + 1
            if (worker.rank, place) not in named:
                named.add((worker.rank, place))
                events.append(_name("process_name", worker.rank, place, f"rank {worker.rank}"))
                events.append(_name("thread_name", worker.rank, place, f"worker {place}"))
            events.extend(
                {
                    "name": activity,
                    "cat": "search",
                    "ph": "X",
                    "ts": 1e6 * (began_s + start_s),
                    "dur": 1e6 * (end_s - start_s),
                    "pid": worker.rank,
                    "tid": place,
                }
                for activity, start_s, end_s in worker.spans
            )
        began_s += max((end_s for worker in workers for _, _, end_s in worker.spans), default=0.0)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})


def _name(kind: str, rank: int, place: int, name: str) -> dict[str, object]:
    return {"name": kind, "ph": "M", "pid": rank, "tid": place, "args": {"name": name}}
