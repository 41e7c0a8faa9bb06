"""Several proposers as one: their rounds run side by side."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

from tilesmith.core.budget import Stop
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Given, Proposals, Proposer
from tilesmith.core.trial import Candidate, Trial


class JoinedProposer:
    """A `Proposer` of what all of these propose: at once what is there at once, the rest as it comes."""

    def __init__(self, proposers: Sequence[Proposer]) -> None:
        self._proposers = tuple(proposers)

    def propose(self, problem: Problem, trials: Sequence[Trial], number: int) -> Together:
        """See `tilesmith.core.seams.Proposer`."""
        return Together([proposer.propose(problem, trials, number) for proposer in self._proposers])


class Together:
    """Implements `tilesmith.core.seams.Proposals`. Everyone hears every verdict."""

    def __init__(self, parts: Sequence[Proposals]) -> None:
        self._parts = tuple(parts)

    def __iter__(self) -> Iterator[Candidate]:
        coming: queue.SimpleQueue[Candidate | BaseException | None] = queue.SimpleQueue()

        def take(part: Proposals) -> None:
            try:
                for candidate in part:
                    coming.put(candidate)
                coming.put(None)
            except BaseException as error:  # it is raised again in who iterates
                coming.put(error)

        later = []
        for part in self._parts:
            if isinstance(part, Given):
                yield from part
            else:
                later.append(part)
        for part in later:
            threading.Thread(target=take, args=(part,), name="proposals", daemon=True).start()
        left = len(later)
        while left:
            match coming.get():
                case None:
                    left -= 1
                case BaseException() as error:
                    raise error
                case candidate:
                    yield candidate

    def tell(self, trial: Trial) -> None:
        for part in self._parts:
            part.tell(trial)

    def close(self) -> None:
        for part in self._parts:
            part.close()

    @property
    def end(self) -> Stop | None:
        ends = [part.end for part in self._parts]
        if None in ends:
            return None
        # What one has run out of is no reason to stop while another has candidates.
        reasons = [end for end in ends if end is not Stop.EXHAUSTED]
        going = any(isinstance(part, Given) and part for part in self._parts)
        return reasons[0] if reasons and not going else Stop.EXHAUSTED
