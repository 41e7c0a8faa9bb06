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
    cores: int,
    slots: int,
) -> Iterator[Trial]:
    """One trial a candidate, in order: `cores` admissions and `slots` checks at a time.

    Which of two equal candidates counts as the duplicate depends on their order alone, not on which was faster to
    compile: a resumed run must answer as one that was never cut.
    """
    judged = {trial.fingerprint: _original(trial) for trial in reversed(trials) if trial.fingerprint}
    waiting = iter(candidates)
    admissions: deque[Future[Admitted]] = deque()
    checks: deque[Future[Trial]] = deque()
    with ThreadPoolExecutor(cores) as admitters, ThreadPoolExecutor(slots) as judges:
        try:
            while True:
                while len(admissions) + len(checks) < cores + 2 * slots and (candidate := next(waiting, None)):
                    admissions.append(admitters.submit(admit, candidate))
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


def _original(trial: Trial) -> str:
    return trial.verdict.of if isinstance(trial.verdict, Duplicate) else trial.candidate.id
