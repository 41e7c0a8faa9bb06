"""The JSON documents: one strict object each, as text. Every one has `verdict` and `message`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from tilesmith.core.budget import Stop
from tilesmith.core.profile import Launch
from tilesmith.core.search import best, lineage
from tilesmith.core.trial import Cost, Estimate, Failed, Timing, Trial, Wrong
from tilesmith.report.audit import Audit, Finding
from tilesmith.report.record import Agreed, RunLine, RunRecord
from tilesmith.report.spending import ModelSpending, RoundSpending, Spending
from tilesmith.report.words import baseline, error_of, gain, time_of, verdict_message, verdict_name


def text(document: Mapping[str, object]) -> str:
    """One line of strict JSON: no NaN, no infinity, no half of a surrogate pair; what is not finite becomes null."""
    return json.dumps(_strict(document), allow_nan=False)


def fault(message: str) -> str:
    """What stands on stdout when a command ends with exit status 2."""
    return text({"verdict": None, "message": message})


def evaluation(trial: Trial) -> str:
    """`tilesmith evaluate`: one candidate, judged."""
    return text(_evaluation(trial))


def _evaluation(trial: Trial) -> dict[str, object]:
    return {
        "verdict": verdict_name(trial.verdict),
        "stage": _stage(trial),
        "message": verdict_message(trial.verdict),
        "error": error_of(trial.verdict),
        "fingerprint": trial.fingerprint,
        "launches": [_launch(launch) for launch in trial.launches],
        **_time(trial),
        "evidence": list(trial.evidence),
        "protection": trial.protection,
    }


def optimization(record: RunRecord, path: str | None, agreed: Sequence[Agreed] | None = None) -> str:
    """`tilesmith optimize` and `resume`: the winner, what it is compared with, and what it took.

    `agreed`: the two classifiers compared, where both were asked.
    """
    rows = None if agreed is None else [_agreed(each) for each in agreed]
    return text({**_summary(record, path), "agreement": rows})


def run(record: RunRecord) -> str:
    """`tilesmith show`: what `optimize` would say of the run, and every trial in the order of recording."""
    rows = [_trial(number, trial) for number, trial in enumerate(record.trials, start=1)]
    return done({**_record(record), "stops": [stop.name.lower() for stop in record.stops], "rows": rows})


def runs(lines: Iterable[RunLine]) -> str:
    """`tilesmith runs`: every run of a journal, the latest last."""
    return done({"runs": [_line(line) for line in lines]})


def trial(number: int, judged: Trial, source: str | None) -> str:
    """`tilesmith show --trial`: one trial, with its source where that was asked for."""
    return done({"trial": {**_trial(number, judged), "source": source}})


def audit(found: Audit) -> str:
    """`tilesmith audit`: what was stopped and by what, what was not, and what this machine cannot tell."""
    right = not found.accepted and not found.refused
    return text(
        {
            "verdict": "done" if right else "failed",
            "message": None if right else f"{len(found.accepted)} accepted, {len(found.refused)} honest refused",
            "cheats": len(found.cheats),
            "classes": found.classes,
            "stopped": len(found.cheats) - len(found.accepted),
            "accepted": [_found(finding) for finding in found.accepted],
            "honest": len(found.honest),
            "refused": [_found(finding) for finding in found.refused],
            "untold": [finding.file for finding in found.untold],
            "defences": dict(found.defences),
            "walls": list(found.walls),
        }
    )


def _found(finding: Finding) -> dict[str, object]:
    return {name: getattr(finding, name) for name in ("file", "kind", "defence", "message")}


def done(document: Mapping[str, object]) -> str:
    """What a command says that judges nothing; the verdict of a run or trial that it tells of stands further in."""
    return text({**document, "verdict": "done", "message": None})


def written(run: str, path: str, size_bytes: int, trials: int) -> str:
    """`tilesmith report` and `export`: what was written, where."""
    return done({"run": run, "path": path, "bytes": size_bytes, "trials": trials})


def _line(line: RunLine) -> dict[str, object]:
    return {
        "run": line.run,
        "problem": line.problem,
        "trials": line.trials,
        "best": line.best and {"origin": line.best.candidate.origin, **_time(line.best)},
        "stop": line.stop and line.stop.name.lower(),
        "usd": line.usd,
        "tokens": line.tokens,
        "live": line.live,
    }


def _record(record: RunRecord) -> dict[str, object]:
    summary = _summary(record, None)
    return {**summary, "problem": record.problem, "outcome": summary["verdict"]}


def _summary(record: RunRecord, path: str | None) -> dict[str, object]:
    trials, stop = record.trials, record.stop
    fastest, first = best(trials), baseline(trials)
    verdict, message = _outcome(trials, stop)
    winner = fastest and {
        "origin": fastest.candidate.origin,
        "lineage": [trial.candidate.origin for trial in lineage(fastest, trials)],
        **_time(fastest),
        "baseline": "start kernel",
        "baseline_us": first and first.time_us,
        "speedup": gain(trials),
        "path": path,
    }
    return {
        "verdict": verdict,
        "message": message,
        "run": record.run,
        "stop": stop and stop.name.lower(),
        "trials": len(trials),
        "best": winner,
        "costs": {**_costs(trials), **_spending(record.spending)},
    }


def _trial(number: int, trial: Trial) -> dict[str, object]:
    return {
        "trial": number,
        "round": trial.round,
        "candidate": trial.candidate.id,
        "origin": trial.candidate.origin,
        "parent": trial.candidate.parent,
        **_evaluation(trial),
        "costs": asdict(trial.cost),
        "environment": trial.environment and asdict(trial.environment),
    }


def _launch(launch: Launch) -> dict[str, object]:
    return {
        "kernel": launch.kernel,
        "grid": list(launch.grid),
        "warps": launch.warps,
        "stages": launch.stages,
        "shared_bytes": launch.shared_bytes,
        "registers": launch.registers,
        "spills": launch.spills,
    }


def _costs(trials: Sequence[Trial]) -> dict[str, float]:
    return {name: sum(getattr(trial.cost, name) for trial in trials) for name in asdict(Cost())}


def _spending(spent: Spending) -> dict[str, object]:
    return {
        "usd": spent.usd,
        "tokens": spent.tokens,
        "models": [_model(each) for each in spent.models],
        "rounds": [_round(each) for each in spent.rounds],
    }


def _model(spent: ModelSpending) -> dict[str, object]:
    return {
        "model": spent.model,
        "calls": spent.calls,
        "faults": spent.faults,
        "tokens": {
            "input": spent.usage.input_tokens,
            "output": spent.usage.output_tokens,
            "cache_read": spent.usage.cache_read_tokens,
            "cache_write": spent.usage.cache_write_tokens,
        },
        "usd": spent.usd,
        "seconds": spent.seconds,
        "proposals": spent.proposals,
        "correct": spent.correct,
        "improved": spent.improved,
        "best_us": spent.best and spent.best.time_us,
    }


def _round(spent: RoundSpending) -> dict[str, object]:
    return {
        "round": spent.number,
        "trials": spent.trials,
        "usd": spent.usd,
        "tokens": spent.tokens,
        "directions": dict(spent.outcomes),
    }


def _agreed(found: Agreed) -> dict[str, object]:
    return {**asdict(found), "share": found.share}


def _outcome(trials: Sequence[Trial], stop: Stop | None) -> tuple[str, str | None]:
    if best(trials) is not None:
        return "correct", None
    reason = stop.value if stop else "the run has not ended"
    if not trials:
        return "unchecked", f"nothing was judged: {reason}"
    first = trials[0].verdict
    return verdict_name(first), f"{reason}: {verdict_message(first)}"


def _stage(trial: Trial) -> str | None:
    if isinstance(trial.verdict, Failed):
        return trial.verdict.stage
    return "check" if isinstance(trial.verdict, Wrong) else None


def _time(trial: Trial) -> dict[str, object]:
    """Exactly one of the two is a number, or none."""
    time = time_of(trial.verdict)
    return {
        "time_us": time.time_us if isinstance(time, Timing) else None,
        "estimate_us": time.estimate_us if isinstance(time, Estimate) else None,
    }


def _strict(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value.encode("utf-8", "replace").decode()
        case Mapping():
            return {str(key): _strict(item) for key, item in value.items()}
        case list() | tuple():
            return [_strict(item) for item in value]
        case _:
            return value
