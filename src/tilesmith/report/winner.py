"""The winner as one self-contained Python file: a header that states the evidence, then the source as it was judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilesmith.core.problem import Problem
from tilesmith.core.reply import Reply
from tilesmith.core.search import lineage
from tilesmith.core.trial import Correct, Timing, Trial
from tilesmith.report.spending import line_replies, money, spending, spending_words, told_calls, usd_of
from tilesmith.report.words import baseline, figure, gain, micros, one_line, time_of

MARK = "# Found by Tilesmith. What is known about this kernel:"
# The first two lines are fixed, so that nothing in the others can be read as a declaration of the file's encoding.
RULE = "# " + "-" * 76


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a winner comes from, besides its trial."""

    run: str
    version: str
    reproduce: str
    """The command that judges the written file again."""


def winner_file(
    problem: Problem,
    trial: Trial,
    trials: Sequence[Trial],
    provenance: Provenance,
    replies: Sequence[Reply] = (),
) -> str:
    """The text of the file. `trial` must be correct; the file is a candidate that is judged as its source was.

    `replies`: every model's of the run, for what it cost.
    """
    stated = _rows(problem, trial, trials, provenance, replies)
    rows = "\n".join(f"# {name:<10} {one_line(words)}".rstrip() for name, words in stated)
    return f"{MARK}\n{RULE}\n{rows}\n{RULE}\n\n{without_header(trial.candidate.source)}"


def without_header(source: str) -> str:
    """The source under a header that `winner_file` wrote; any other source as it is."""
    if not source.startswith(f"{MARK}\n{RULE}\n"):
        return source
    _, end, rest = source[len(MARK) + len(RULE) + 2 :].partition(f"{RULE}\n\n")
    return rest if end else source


def _rows(
    problem: Problem, trial: Trial, trials: Sequence[Trial], provenance: Provenance, replies: Sequence[Reply]
) -> list[tuple[str, str]]:
    verdict, where, first = trial.verdict, trial.environment, baseline(trials)
    if not isinstance(verdict, Correct):
        raise ValueError(f"candidate {trial.candidate.id} is not correct, so it has no evidence to state")
    rows = [
        ("problem", f"{problem.name} ({problem.id})"),
        (
            "verdict",
            f"correct: error {verdict.error:.3g} where 1 is the limit, largest of {verdict.checks} comparisons",
        ),
        ("time", _time(verdict)),
    ]
    if first is not None and isinstance(first.verdict, Correct):
        ratio = gain(trials)
        times = f"; this one is {ratio:.2f} times as fast{_between(verdict)}" if ratio is not None else ""
        rows.append(("baseline", f"start kernel, {figure(first.verdict.time)}{times}"))
    if where is not None:
        device = where.gpu or f"no GPU; compiled for {where.target}"
        driver = f", driver {where.driver}" if where.driver else ""
        rows += [
            ("machine", f"{device}{driver}"),
            ("software", f"torch {where.torch}, triton {where.triton}, python {where.python}"),
            ("bench", f"{where.bench}; walls around the candidate: {trial.protection}"),
        ]
    return [
        *rows,
        *_author(trial),
        *_parent(trial, trials),
        ("lineage", " > ".join(ancestor.candidate.origin for ancestor in lineage(trial, trials))),
        *_bill(trial, trials, replies),
        ("run", f"{provenance.run}, candidate {trial.candidate.id}, Tilesmith {provenance.version}"),
        ("again", provenance.reproduce),
    ]


def _author(trial: Trial) -> list[tuple[str, str]]:
    """The model that wrote it, and on which of its ways."""
    way = trial.candidate.direction
    if way is None:
        return []
    mended = f", repair {trial.candidate.attempt}" if trial.candidate.attempt else ""
    told = f"round {way.round}, parent {way.place}, bottleneck {way.rank}, sample {way.sample}{mended}"
    return [("model", f"{way.model} ({told})")]


def _parent(trial: Trial, trials: Sequence[Trial]) -> list[tuple[str, str]]:
    """What it was made from."""
    line = lineage(trial, trials)
    if len(line) < 2:
        return []
    parent, time = line[-2].candidate, time_of(line[-2].verdict)
    told = f", {figure(time)}" if time else ""
    return [("parent", f"candidate {parent.id} by {parent.origin}{told}")]


def _bill(trial: Trial, trials: Sequence[Trial], replies: Sequence[Reply]) -> list[tuple[str, str]]:
    """What models cost: those that wrote it and its ancestors, and all of the run."""
    if not replies:
        return []
    own = line_replies(trial, trials, replies)
    whole = spending_words(spending((), replies, ()))
    line = f"its own line {money(usd_of(own))} in {told_calls(sum(reply.attempts > 0 for reply in own), 0)}; "
    return [("cost", f"{line if own else ''}the whole run {whole}")]


def _between(verdict: Correct) -> str:
    """The least and most that the intervals of both times allow, where both were timed in turns."""
    gain = verdict.time.gain if isinstance(verdict.time, Timing) else None
    return f" ({gain[1]:.2f} to {gain[2]:.2f}, timed in turns)" if gain else ""


def _time(verdict: Correct) -> str:
    time = verdict.time
    if not isinstance(time, Timing):
        return f"{micros(time.estimate_us)} estimated by a roofline model; not measured"
    interval = f"95 % interval {micros(time.low_us)} to {micros(time.high_us)}, {time.samples} samples"
    rival = f"; in turn with candidate {time.rival}, {micros(time.rival_us)}" if time.rival and time.rival_us else ""
    return f"{micros(time.time_us)} measured, {interval}{rival}"
