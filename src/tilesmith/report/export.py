"""The trials of a run as flat rows, for other programs: JSON lines, CSV, Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tilesmith.core.errors import MachineError
from tilesmith.core.trial import Estimate, Failed, Timing, Trial
from tilesmith.report.chronicle import Chronicle
from tilesmith.report.words import error_of, time_of, verdict_message, verdict_name

FORMATS = ("jsonl", "csv", "parquet")


@dataclass(frozen=True, slots=True)
class Line:
    """One trial. Times in microseconds where the name says so; None where there is no value."""

    run: str
    problem: str
    trial: int
    round: int
    recorded_s: float | None
    """Seconds since 1970, UTC."""
    candidate: str
    parent: str | None
    origin: str
    model: str | None
    bottleneck: int | None
    sample: int | None
    attempt: int
    verdict: str
    stage: str | None
    message: str | None
    error: float | None
    checks: int | None
    time_us: float | None
    low_us: float | None
    high_us: float | None
    samples: int | None
    rival: str | None
    rival_us: float | None
    estimate_us: float | None
    confirmed: bool
    fingerprint: str | None
    launches: int
    registers: int | None
    """The most of any launch."""
    spills: int | None
    shared_bytes: int | None
    wall_s: float
    gpu_s: float
    measured_s: float
    bench: str | None
    target: str | None
    gpu: str | None
    driver: str | None
    torch: str | None
    triton: str | None
    python: str | None
    protection: str
    evidence: str
    techniques: str | None
    source: str


def lines(chronicle: Chronicle) -> Iterator[Line]:
    """One for each trial, in the order of recording."""
    times = chronicle.trial_times_s
    for place, (number, trial) in enumerate(chronicle.numbered()):
        yield _line(chronicle, number, trial, times[place] if place < len(times) else None)


def jsonl(chronicle: Chronicle) -> str:
    """One strict JSON object a line."""
    return "".join(f"{json.dumps(_strict(line), allow_nan=False)}\n" for line in lines(chronicle))


def comma(chronicle: Chronicle) -> str:
    """CSV with a header, as RFC 4180 has it."""
    told = io.StringIO(newline="")
    writer = csv.DictWriter(told, [field.name for field in fields(Line)], lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(_strict(line) for line in lines(chronicle))
    return told.getvalue()


def parquet(chronicle: Chronicle, path: Path) -> None:
    """Write the file. Raises `MachineError` where pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet as file
    except ModuleNotFoundError:
        raise MachineError(
            "--format parquet needs pyarrow, which is not installed; pip install 'tilesmith[parquet]', or choose jsonl"
        ) from None
    kinds = {"str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_()}
    schema = pyarrow.schema([(field.name, kinds[str(field.type).partition(" ")[0]]) for field in fields(Line)])
    table = pyarrow.Table.from_pylist([_strict(line) for line in lines(chronicle)], schema=schema)
    file.write_table(table, path, compression="zstd")


def _strict(line: Line) -> dict[str, object]:
    """What is not finite becomes null, half of a surrogate pair a question mark."""
    row: dict[str, object] = asdict(line)
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            row[name] = None
        elif isinstance(value, str):
            row[name] = value.encode("utf-8", "replace").decode()
    return row


def _line(chronicle: Chronicle, number: int, trial: Trial, at_s: float | None) -> Line:
    time, way, where, verdict = time_of(trial.verdict), trial.candidate.direction, trial.environment, trial.verdict
    timing = time if isinstance(time, Timing) else None
    techniques = chronicle.techniques.get(trial.candidate.id)
    return Line(
        run=chronicle.record.run,
        problem=chronicle.problem.name,
        trial=number,
        round=trial.round,
        recorded_s=at_s,
        candidate=trial.candidate.id,
        parent=trial.candidate.parent,
        origin=trial.candidate.origin,
        model=way.model if way else None,
        bottleneck=way.rank if way else None,
        sample=way.sample if way else None,
        attempt=trial.candidate.attempt,
        verdict=verdict_name(verdict),
        stage=verdict.stage if isinstance(verdict, Failed) else None,
        message=verdict_message(verdict),
        error=error_of(verdict),
        checks=getattr(verdict, "checks", None),
        time_us=timing.time_us if timing else None,
        low_us=timing.low_us if timing else None,
        high_us=timing.high_us if timing else None,
        samples=timing.samples if timing else None,
        rival=timing.rival if timing else None,
        rival_us=timing.rival_us if timing else None,
        estimate_us=time.estimate_us if isinstance(time, Estimate) else None,
        confirmed=trial.confirmed,
        fingerprint=trial.fingerprint,
        launches=len(trial.launches),
        registers=max((launch.registers for launch in trial.launches), default=None),
        spills=max((launch.spills for launch in trial.launches), default=None),
        shared_bytes=max((launch.shared_bytes for launch in trial.launches), default=None),
        wall_s=trial.cost.wall_s,
        gpu_s=trial.cost.gpu_s,
        measured_s=trial.cost.measured_s,
        bench=where.bench if where else None,
        target=where.target if where else None,
        gpu=where.gpu if where else None,
        driver=where.driver if where else None,
        torch=where.torch if where else None,
        triton=where.triton if where else None,
        python=where.python if where else None,
        protection=trial.protection,
        evidence="; ".join(trial.evidence),
        techniques=None if techniques is None else ", ".join(sorted(techniques)),
        source=trial.candidate.source,
    )
