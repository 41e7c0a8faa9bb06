"""The order of judging that both benches share: admission ahead, duplicates settled in order, checks behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tilesmith.bench.admission import Admitted
from tilesmith.core.trial import Candidate, Duplicate, Trial, Verdict


def judge_in_order(
    candidates: Sequence[Candidate],
    trials: Sequence[Trial],
    admit: Callable[[Candidate], Admitted],
    check: Callable[[Admitted], Trial],
    settle: Callable[[Admitted, Verdict], Trial],
    width: int,
) -> Iterator[Trial]:
    """One trial a candidate, in order. At most `width` admissions run or wait ahead of the first that is unsettled.

    Which of two equal candidates counts as the duplicate depends on their order alone, not on which was faster to
    compile: a resumed run must answer as one that was never cut.
    """
    judged = {trial.fingerprint: trial.candidate.id for trial in reversed(trials) if trial.fingerprint}
    waiting = iter(candidates)
    admissions: deque[Future[Admitted]] = deque()
    checks: deque[Future[Trial]] = deque()
    with ThreadPoolExecutor(width) as cores, ThreadPoolExecutor(width) as judges:
        try:
            while True:
                while len(admissions) + len(checks) < 2 * width and (candidate := next(waiting, None)):
                    admissions.append(cores.submit(admit, candidate))
                if not admissions and not checks:
                    return
                if checks and (checks[0].done() or not admissions):
                    yield checks.popleft().result()
                else:
                    admitted = admissions.popleft().result()
                    verdict = admitted.verdict or _duplicate(admitted, judged)
                    if verdict is None:
                        checks.append(judges.submit(check, admitted))
                    else:
                        checks.append(judges.submit(settle, admitted, verdict))
        finally:
            for future in admissions:
                future.cancel()
            for judging in checks:
                judging.cancel()


def _duplicate(admitted: Admitted, judged: dict[str, str]) -> Duplicate | None:
    """The verdict on a candidate whose fingerprint is known; the first of a fingerprint makes it known."""
    of = judged.setdefault(admitted.fingerprint or admitted.candidate.id, admitted.candidate.id)
    return None if of == admitted.candidate.id else Duplicate(of)
