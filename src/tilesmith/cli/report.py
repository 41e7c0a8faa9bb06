"""`tilesmith report`: a run as one page, from the journal alone."""

from __future__ import annotations

import os
import shlex
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import tilesmith
from tilesmith import config
from tilesmith.cli import rooms, winner
from tilesmith.cli.history import record_of
from tilesmith.cli.options import DEFAULT_PRESET, BenchOptions, Options
from tilesmith.cli.screen import answer
from tilesmith.config import Preset
from tilesmith.core.errors import MachineError, OptionError, TilesmithError
from tilesmith.core.facts import Analysis, Derivation, Ending, Profiled, TechniqueVector
from tilesmith.core.reply import Reply
from tilesmith.core.search import best, lineage, standing
from tilesmith.core.trial import Trial
from tilesmith.journal import Run, open_store
from tilesmith.report import document
from tilesmith.report.chronicle import Chronicle, Drawing
from tilesmith.report.page import page
from tilesmith.report.record import RunRecord

READ = 60
"""Kernels at most whose techniques are read for a report where the run did not; each takes hundredths of a second."""

LATEST = 2000
"""Trials at most that one page tells of."""
DRAWN = 4
"""µGraphs at most that are drawn."""


def report(prefix: str, out: Path, look: bool, journal: Path, as_json: bool) -> int:
    """Write the page, and with `look` open it. Raises `OptionError` and `MachineError` before anything is written."""
    path = html_file(out)
    if look:
        browser()
    with open_store(journal, must_exist=True) as store:
        told = chronicle(store.run(prefix))
    winner.write(path, page(told))
    if as_json:
        answer(document.written(told.record.run, str(path), path.stat().st_size, len(told.trials)))
    else:
        answer(f"run {told.record.run}, {len(told.trials)} trials: written to {path}")
    if look:
        browser().open(path.as_uri())
    return 0


def html_file(out: Path) -> Path:
    """The file to write. Raises `OptionError` where it cannot be written."""
    path = out.resolve()
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise OptionError(f"--out is {str(path)!r}, which is no file; name a file")
    if not path.parent.is_dir():
        raise OptionError(f"--out is {str(path)!r}, and its folder does not exist; make it, or name another file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OptionError(f"--out is {str(path)!r}, and its folder cannot be written; name another file")
    return path


def browser() -> webbrowser.BaseBrowser:
    """The user's. Raises `MachineError` where there is none."""
    try:
        return webbrowser.get()
    except webbrowser.Error:
        raise MachineError(
            "no browser was found to open the page with; leave --open out and open the file yourself, or name one in "
            "the environment variable BROWSER"
        ) from None


def chronicle(run: Run, most: int | None = LATEST) -> Chronicle:
    """All that the journal holds of a run, as its report needs it: of very many trials the latest `most`.

    The start kernel and the best are always among them. Calls of models are those since the first of the latest.
    """
    # In this order: what is recorded meanwhile is then at most told of too late, never twice.
    revision, whole = run.revision, run.count(Trial)
    cut = most is not None and whole > most
    record, times_s, reply_times_s, numbers = _latest(run, most) if cut and most else _all(run)
    options = _options(run)
    told = Chronicle(
        record=record,
        problem=run.problem,
        began_s=run.began_s,
        live=run.live,
        revision=revision,
        version=tilesmith.__version__,
        journal=run.path.name,
        trial_times_s=times_s,
        reply_times_s=reply_times_s,
        numbers=numbers,
        whole=whole if cut else 0,
        settings=tuple((name, words) for name, words in _flat("", asdict(options)).items()) if options else (),
        again=_again(run, options, best(record.trials) is not None),
        confirmations=run.confirmations(),
        analyses=run.facts(Analysis),
        profiled=run.facts(Profiled),
        techniques=_techniques(run, options, record.trials),
    )
    return replace(told, drawings=_drawings(run, told.numbered()))


Read = tuple[RunRecord, Sequence[float], Sequence[float], Sequence[int]]


def _all(run: Run) -> Read:
    record = record_of(run)
    return record, run.times_s(Trial)[: len(record.trials)], run.times_s(Reply)[: len(record.replies)], ()


def _latest(run: Run, most: int) -> Read:
    """The latest trials with what was recorded since the first of them, and the start kernel and the best."""
    rows = run.latest_trials(most)
    since = rows[0].event
    known = {row.number for row in rows}
    rows = tuple(sorted((*(row for row in run.ends() if row.number not in known), *rows), key=lambda row: row.number))
    trials = standing([row.trial for row in rows], run.confirmations())
    replies = run.facts_since(Reply, since)
    endings = tuple(fact for fact, _ in run.facts_since(Ending, since))
    record = RunRecord(run.id, run.problem.name, trials, run.stops, tuple(fact for fact, _ in replies), endings)
    return record, [row.at_s for row in rows], [at_s for _, at_s in replies], [row.number for row in rows]


def _options(run: Run) -> Options | None:
    """None where a run was begun by something else than the command line."""
    try:
        return Options.from_json(run.options.text)
    except TilesmithError:
        return None


def _techniques(run: Run, options: Options | None, trials: Sequence[Trial]) -> Mapping[str, frozenset[str]]:
    """By candidate, of correct trials: as the run's classifier saw them; of the fastest of the others as code shows."""
    from tilesmith.propose.beam import kernel_id
    from tilesmith.propose.techniques import COMPILED, vector, vector_key

    asked = options.preset.technique_clustering if options and options.preset else None
    taxonomy = rooms.taxonomy(options.preset if options else None)
    readers = [asked.classifier_model] if asked and asked.classifier == "llm" and asked.classifier_model else []
    known = {fact.key: fact.names for fact in run.facts(TechniqueVector)}
    found, read = {}, 0
    for trial in sorted((t for t in trials if t.time_us is not None), key=lambda trial: trial.time_us or 0.0):
        keys = [vector_key(kernel_id(trial), taxonomy.id, reader) for reader in (*readers, COMPILED)]
        names = next((known[key] for key in keys if key in known), None)
        if names is None and read < READ:
            names, read = vector(trial, taxonomy), read + 1
        if names is not None:
            found[trial.candidate.id] = names
    return found


def _drawings(run: Run, numbered: Sequence[tuple[int, Trial]]) -> tuple[Drawing, ...]:
    """The µGraphs that correct kernels were written from, each once, that of the fastest first."""
    numbers = {trial.candidate.id: number for number, trial in numbered}
    trials = [trial for _, trial in numbered]
    derivations = {fact.key: fact for fact in run.facts(Derivation)}
    if not derivations:
        return ()
    from tilesmith.superopt.draw import svg
    from tilesmith.superopt.schema import from_json, to_json
    from tilesmith.superopt.threads import fused

    fastest = best(trials)
    found: dict[str, Drawing] = {}
    ranked = sorted((t for t in trials if t.time_us is not None), key=lambda trial: trial.time_us or 0.0)
    # What the best descends from goes first, even where its own kernel is faster than all that were lowered.
    for trial in (*(reversed(lineage(fastest, trials)) if fastest else ()), *ranked):
        made = derivations.get(trial.candidate.id)
        if made is None or made.graph_hash in found or len(found) == DRAWN:
            continue
        graph = fused(from_json(made.graph, "a µGraph in the journal"))
        name = f"µGraph {made.graph_hash[:12]}: {made.note}"
        words = to_json(graph)
        found[made.graph_hash] = Drawing(name, svg(graph), words, numbers[trial.candidate.id])
    return tuple(found.values())


def _again(run: Run, options: Options | None, found: bool) -> tuple[tuple[str, str], ...]:
    """Commands, with what each does."""
    rows = []
    if found:
        rows.append(("The source of the best", shlex.join(["tilesmith", "show", run.id, "--source"])))
    if options is not None:
        if found:
            rows.append(("Judge the best again", _judge(options)))
        start = [] if run.problem.start else ["--no-start-kernel"]
        rows.append(("Begin the same search anew", shlex.join(["tilesmith", "optimize", *_words(options), *start])))
    rows.append(("Go on with this run", shlex.join(["tilesmith", "resume", run.id])))
    return tuple(rows)


def _judge(options: Options) -> str:
    bench = options.bench
    where = ["--bench", bench.bench] if bench.bench in {"local", "offline"} else []
    target = ["--target", bench.target] if bench.bench == "offline" and bench.target else []
    allow = ["--allow", ",".join(options.allow)] if options.allow else []
    return shlex.join(["tilesmith", "evaluate", options.problem_path, options.out, *where, *target, *allow])


def _words(options: Options) -> list[str]:
    """The command line that says the same."""
    plain = Options(options.problem_path, options.out)
    words = [options.problem_path, "--out", options.out]
    skipped = {"problem_path", "out", "bench", "preset"}
    if options.preset is not None:
        # A preset says these itself.
        skipped |= {"candidate_pool_size", "num_bottlenecks", "proposers"}
        words += _preset_words(options.preset)
    for name in (each.name for each in fields(Options)):
        if name not in skipped and (value := getattr(options, name)) != getattr(plain, name):
            words += _flag(name, value)
    for name in (each.name for each in fields(BenchOptions)):
        if (value := getattr(options.bench, name)) != getattr(BenchOptions(), name):
            words += _flag(name, value)
    return words


def _preset_words(preset: Preset) -> list[str]:
    try:
        packaged, words = config.load_preset(preset.name), ["--preset", preset.name]
    except OptionError:
        packaged, words = config.load_preset(DEFAULT_PRESET), ["--preset", DEFAULT_PRESET]
    own, given = asdict(preset), asdict(packaged)
    own |= own.pop("technique_clustering")
    given |= given.pop("technique_clustering")
    for name, value in own.items():
        if name in {"name", "rounds", "patience", "workers_per_gpu", "proposers"} or value == given[name]:
            continue
        if name == "enabled":
            words.append("--technique-clustering" if value else "--no-technique-clustering")
        elif value is not None:
            words += _flag(name, value)
    return words


def _flag(name: str, value: object) -> list[str]:
    if value is None:
        return []
    told = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return [f"--{name.replace('_', '-')}", told]


def _flat(before: str, rows: Mapping[str, object]) -> dict[str, str]:
    """Nested options as lines: "bench.target"."""
    found: dict[str, str] = {}
    for name, value in rows.items():
        if isinstance(value, Mapping):
            found |= _flat(f"{before}{name}.", value)
        elif isinstance(value, tuple | list):
            found[before + name] = ", ".join(map(str, value)) or "none"
        else:
            found[before + name] = "none" if value is None else str(value)
    return found
