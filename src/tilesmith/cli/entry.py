"""The command line: its words, and what every command does when something goes wrong.

Parsing only says what is to be done; `main` does it, so that every fault passes through one place. The commands
import their rooms when they run: `--help` must not wait for them.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from typer.exceptions import TyperException

import tilesmith
from tilesmith.core.errors import TilesmithError

T = TypeVar("T")
U = TypeVar("U")
Deed = Callable[[], int]
"""What a command line asks for; gives the exit status."""

app = typer.Typer(
    name="tilesmith",
    help="Finds the fastest GPU kernel for a tensor program that it can show to be correct.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

studies = typer.Typer(help="Compare ways of doing one thing, with plots.", rich_markup_mode=None)
app.add_typer(studies, name="study")

ProblemPath = Annotated[Path, typer.Argument(metavar="PROBLEM", help="A Python file, or a folder with problem.py.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or enough of its beginning.")]
Journal = Annotated[Path, typer.Option(envvar="TILESMITH_JOURNAL", metavar="FILE", help="Where runs are kept.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Bench = Annotated[str, typer.Option(help="auto, offline, local, ray, or replay:RUN. auto: local where there is a GPU.")]
Address = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Of a Ray cluster's head, or auto.  [$RAY_ADDRESS, else here]")
]
Target = Annotated[str | None, typer.Option(metavar="GPU", help="What the offline bench compiles for.  [h200]")]
Gpus = Annotated[str | None, typer.Option(metavar="LIST", help="The local bench's GPUs, such as 0,1.  [all]")]
Workers = Annotated[int, typer.Option(metavar="N", help="Candidates under way at once on one GPU.")]
Rounds = Annotated[int | None, typer.Option(metavar="N", help="Stop after this many rounds.")]
Trials = Annotated[int | None, typer.Option(metavar="N", help="Stop after this many trials.")]
Seconds = Annotated[float | None, typer.Option(metavar="S", help="Stop after this many seconds.")]
GpuSeconds = Annotated[float | None, typer.Option(metavar="S", help="Stop after this many seconds of GPU.")]
Allow = Annotated[str, typer.Option(metavar="LIST", help="library: the framework's kernels may do a part of the work.")]
Usd = Annotated[float | None, typer.Option(metavar="USD", help="Spend no more than this on models.")]
Tokens = Annotated[int | None, typer.Option(metavar="N", help="Use no more than so many tokens of models.")]
Patience = Annotated[int | None, typer.Option(metavar="N", help="Stop after this many rounds without gain.")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="The winner's file.  [NAME_tilesmith.py]")]

JOURNAL = Path("tilesmith.db")
REPORT = Path("report.html")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say the version and end.")] = False,
) -> Deed | None:
    if version:
        return partial(_say, f"tilesmith {tilesmith.__version__}")
    if context.invoked_subcommand is None:
        return partial(_say, context.get_help())
    return None


@app.command()
def optimize(
    problem: ProblemPath,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="The shape of a search with models, or a YAML file with one.")
    ] = None,
    models: Annotated[str, typer.Option(metavar="LIST", help="Models that propose: provider:name, ...")] = "",
    proposers: Annotated[
        str | None, typer.Option(metavar="LIST", help="superopt, rewrite, llm.  [as the problem needs]")
    ] = None,
    start_kernel: Annotated[
        bool, typer.Option("--start-kernel/--no-start-kernel", help="Begin with the problem's kernel.py, or without.")
    ] = True,
    candidate_pool_size: Annotated[int | None, typer.Option(metavar="N", help="Parents a round expands.  [4]")] = None,
    num_bottlenecks: Annotated[int | None, typer.Option(metavar="N", help="Bottlenecks of each parent.  [2]")] = None,
    samples_per_prompt: Annotated[int | None, typer.Option(metavar="N", help="Draws from the same prompt.")] = None,
    repairs: Annotated[int | None, typer.Option(metavar="N", help="Times a bad candidate goes back.")] = None,
    rounds: Rounds = None,
    patience: Patience = None,
    technique_clustering: Annotated[
        bool | None, typer.Option("--technique-clustering/--no-technique-clustering", help="Keep the pool diverse.")
    ] = None,
    classifier: Annotated[str | None, typer.Option(help="Of techniques: compiled, llm or both.")] = None,
    classifier_model: Annotated[str | None, typer.Option(metavar="MODEL")] = None,
    max_concurrency: Annotated[int | None, typer.Option(metavar="N", help="Classifications in flight.")] = None,
    techniques_yaml: Annotated[str | None, typer.Option(metavar="FILE", help="A taxonomy of your own.")] = None,
    analyst: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Who ranks bottlenecks: rules, or a model.")
    ] = None,
    call_seconds: Annotated[float | None, typer.Option(metavar="S", help="Deadline of one answer in all.")] = None,
    round_seconds: Annotated[float | None, typer.Option(metavar="S", help="Deadline of a round.")] = None,
    max_output_tokens: Annotated[int | None, typer.Option(metavar="N", help="Tokens of one answer at most.")] = None,
    models_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Providers, limits and prices of your own.")
    ] = None,
    bench: Bench = "auto",
    target: Target = None,
    gpus: Gpus = None,
    workers_per_gpu: Annotated[int | None, typer.Option(metavar="N", help="Candidates at once on a GPU.  [3]")] = None,
    address: Address = None,
    budget_trials: Trials = None,
    budget_seconds: Seconds = None,
    budget_gpu_seconds: GpuSeconds = None,
    budget_usd: Usd = None,
    budget_tokens: Tokens = None,
    allow: Allow = "",
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed proposes the same.")] = 0,
    journal: Journal = JOURNAL,
    out: Out = None,
    json: Json = False,
) -> Deed:
    """Search for a faster kernel: with models, or with none by µGraphs and rewrites."""

    def deed() -> int:
        from tilesmith.cli.optimize import start
        from tilesmith.cli.options import AUTO, BenchOptions, Options, Shape, gpu_list, name_list

        named = None if proposers is None else name_list(proposers)
        shape = Shape(
            preset=preset,
            models=name_list(models),
            candidate_pool_size=candidate_pool_size,
            num_bottlenecks=num_bottlenecks,
            samples_per_prompt=samples_per_prompt,
            repairs=repairs,
            analyst=analyst,
            call_seconds=call_seconds,
            round_seconds=round_seconds,
            max_output_tokens=max_output_tokens,
            technique_clustering=technique_clustering,
            techniques_yaml=techniques_yaml,
            classifier=classifier,
            classifier_model=classifier_model,
            max_concurrency=max_concurrency,
        ).chosen(named)
        options = Options(
            problem_path=str(problem),
            out="" if out is None else str(out),
            bench=BenchOptions(
                bench, target, gpu_list(gpus), _or(workers_per_gpu, shape.workers_per_gpu if shape else 3), address
            ),
            candidate_pool_size=shape.candidate_pool_size if shape else _or(candidate_pool_size, 4),
            num_bottlenecks=shape.num_bottlenecks if shape else _or(num_bottlenecks, 2),
            proposers=_or(named, (AUTO,)),
            seed=seed,
            rounds=_or(rounds, shape.rounds if shape else None),
            patience=_or(patience, shape.patience if shape else None),
            budget_trials=budget_trials,
            budget_seconds=budget_seconds,
            budget_gpu_seconds=budget_gpu_seconds,
            budget_usd=budget_usd,
            budget_tokens=budget_tokens,
            allow=name_list(allow),
            preset=shape,
            models_file=None if models_file is None else str(models_file),
        )
        return start(options, journal, json, start_kernel=start_kernel)

    return deed


@app.command()
def evaluate(
    problem: ProblemPath,
    kernel: Annotated[Path, typer.Argument(metavar="KERNEL", help="The candidate's Python file.")],
    bench: Bench = "auto",
    target: Target = None,
    gpus: Gpus = None,
    workers_per_gpu: Workers = 3,
    address: Address = None,
    allow: Allow = "",
    journal: Journal = JOURNAL,
    json: Json = False,
) -> Deed:
    """Judge one kernel: is it correct, and how fast is it?"""

    def deed() -> int:
        from tilesmith.cli.evaluate import evaluate as judge
        from tilesmith.cli.options import BenchOptions, gpu_list, name_list

        options = BenchOptions(bench, target, gpu_list(gpus), workers_per_gpu, address)
        return judge(problem, kernel, options, name_list(allow), journal, json)

    return deed


@app.command()
def resume(
    run: RunId,
    rounds: Rounds = None,
    patience: Patience = None,
    budget_trials: Trials = None,
    budget_seconds: Seconds = None,
    budget_gpu_seconds: GpuSeconds = None,
    budget_usd: Usd = None,
    budget_tokens: Tokens = None,
    address: Address = None,
    journal: Journal = JOURNAL,
    out: Out = None,
    json: Json = False,
) -> Deed:
    """Go on with a run that was stopped or killed.

    The options are those that it was started with; budgets given now replace the old ones.
    """

    def deed() -> int:
        from tilesmith.cli.optimize import resume as go_on
        from tilesmith.cli.options import Given

        given = Given(
            rounds,
            budget_trials,
            budget_seconds,
            budget_gpu_seconds,
            budget_usd,
            budget_tokens,
            patience,
            None if out is None else str(out),
            address,
        )
        return go_on(run, given, journal, json)

    return deed


@app.command()
def superoptimize(
    problem: Annotated[
        Path, typer.Argument(metavar="PROBLEM", help="As for optimize; a µGraph in a .json file; or lora and the like.")
    ],
    space: Annotated[str, typer.Option(help="symbolic, or concrete: the published search.")] = "symbolic",
    rules: Annotated[str, typer.Option(help="Of the concrete space: as in the published code, or paper.")] = "code",
    oracle: Annotated[str, typer.Option(help="table, or in the concrete space z3.")] = "table",
    oracle_cache: Annotated[str, typer.Option(help="Of z3's answers: none, thread or shared.")] = "thread",
    oracle_every: Annotated[int, typer.Option(metavar="N", help="Ask it at each Nth level only.")] = 1,
    graph_defined_kernels: Annotated[
        int | None, typer.Option(metavar="N", help="Graph-defined kernels at most.  [1]")
    ] = None,
    kernel_ops: Annotated[
        int | None, typer.Option(metavar="N", help="Kernels of any kind at most.  [5; concrete: less the inputs]")
    ] = None,
    block_ops: Annotated[
        int | None, typer.Option(metavar="N", help="Operators of one kernel, loads counted.  [11; concrete: 9]")
    ] = None,
    inputs: Annotated[int | None, typer.Option(metavar="N", help="Loads of one kernel.  [4; concrete: 3]")] = None,
    outputs: Annotated[int | None, typer.Option(metavar="N", help="Stores of one kernel.  [2]")] = None,
    kernels: Annotated[str, typer.Option(help="listing of all, or closure: any number, the cheapest.")] = "listing",
    schedule: Annotated[str, typer.Option(help="static, openmp, or mpi under mpiexec.")] = "openmp",
    order: Annotated[str, typer.Option(help="dfs or bfs.")] = "dfs",
    pull: Annotated[str, typer.Option(help="How ranks get work: tickets or requests.")] = "tickets",
    threads: Annotated[int, typer.Option(metavar="N", help="Of each rank.")] = 1,
    budget_seconds: Seconds = None,
    max_graphs: Annotated[int | None, typer.Option(metavar="N", help="Stop after so many µGraphs.")] = None,
    keep: Annotated[int, typer.Option(metavar="N", help="The best of them that are verified and shown.")] = 32,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the verification.")] = 0,
    target: Target = None,
    draw: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a drawing of each µGraph there.")] = None,
    timeline: Annotated[Path | None, typer.Option(metavar="FILE", help="What each worker did, for Perfetto.")] = None,
    json: Json = False,
) -> Deed:
    """Search the µGraphs of a tensor program exhaustively: verified, ranked by estimate."""

    def deed() -> int:
        from tilesmith.cli.superoptimize import plan_of
        from tilesmith.cli.superoptimize import superoptimize as search
        from tilesmith.core.gpu import target as gpu

        limits = {
            "kernel_ops": kernel_ops,
            "block_ops": block_ops,
            "graph_defined_kernels": graph_defined_kernels,
            "inputs": inputs,
            "outputs": outputs,
        }
        plan = plan_of(
            space=space,
            rules=rules,
            oracle=oracle,
            oracle_cache=oracle_cache,
            oracle_every=oracle_every,
            kernels=kernels,
            schedule=schedule,
            order=order,
            pull=pull,
            threads=threads,
            timeline=timeline is not None,
            seconds=budget_seconds,
            max_graphs=max_graphs,
            keep=keep,
            seed=seed,
            target=gpu(target).name,
        )
        return search(problem, limits, plan, draw, json, timeline)

    return deed


@studies.command("search")
def study_search(
    programs: Annotated[
        str, typer.Option(metavar="LIST", help="Workloads, such as concrete/lora or symbolic/norm_lora.")
    ] = "concrete/rmsnorm_linear,concrete/gated_mlp",
    schedules: Annotated[
        str, typer.Option(metavar="LIST", help="static, openmp, mpi; copies: serial searches at once.")
    ] = "static,openmp",
    orders: Annotated[str, typer.Option(metavar="LIST", help="dfs, bfs.")] = "dfs",
    oracles: Annotated[
        str, typer.Option(metavar="LIST", help="table, z3-none, z3-thread, z3-shared; each with /N, as in table/2.")
    ] = "table",
    threads: Annotated[str, typer.Option(metavar="LIST", help="Numbers of threads, of each rank.")] = "1,2",
    ranks: Annotated[str, typer.Option(metavar="LIST", help="Numbers of ranks, under mpi.")] = "1,2",
    repeats: Annotated[int, typer.Option(metavar="N", help="Of every search; medians are compared.")] = 1,
    budget_seconds: Annotated[float, typer.Option(metavar="S", help="The most that one search may take.")] = 60.0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="What was measured, and plots; taken up again.")] = Path(
        "study"
    ),
    json: Json = False,
) -> Deed:
    """Compare schedules, orders and oracles of the superoptimizer: JSON and plots. Takes up where it was stopped."""

    def deed() -> int:
        from tilesmith.cli.options import name_list
        from tilesmith.cli.study import Study, numbers
        from tilesmith.cli.study import study_search as compare

        study = Study(
            name_list(programs),
            name_list(schedules),
            name_list(orders),
            name_list(oracles),
            numbers("threads", threads),
            numbers("ranks", ranks),
            repeats,
            budget_seconds,
        )
        return compare(study, out, json)

    return deed


@app.command()
def runs(journal: Journal = JOURNAL, json: Json = False) -> Deed:
    """List the runs of a journal."""

    def deed() -> int:
        from tilesmith.cli.history import runs as list_runs

        return list_runs(journal, json)

    return deed


@app.command()
def show(
    run: RunId,
    trial: Annotated[int | None, typer.Option(metavar="N", help="One trial, by its number.  [the best]")] = None,
    source: Annotated[bool, typer.Option("--source", help="Print the source of that trial.")] = False,
    journal: Journal = JOURNAL,
    json: Json = False,
) -> Deed:
    """Show the trials of a run, its best, and why it stopped."""

    def deed() -> int:
        from tilesmith.cli.history import show_run, show_trial

        if trial is None and not source:
            return show_run(run, journal, json)
        return show_trial(run, trial, source, journal, json)

    return deed


@app.command()
def report(
    run: RunId,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = REPORT,
    look: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    journal: Journal = JOURNAL,
    json: Json = False,
) -> Deed:
    """Write a run as one HTML page that needs nothing else; also of a run that is not over."""

    def deed() -> int:
        from tilesmith.cli.report import report as write

        return write(run, out, look, journal, json)

    return deed


@app.command()
def serve(
    run: RunId,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="0 takes any that is free.")] = 8421,
    token: Annotated[
        str, typer.Option(help="What a reader must show; made where others than this machine can connect.")
    ] = "",
    look: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    journal: Journal = JOURNAL,
    json: Json = False,
) -> Deed:
    """Show the report of a run while it goes on, to this machine only unless --host says otherwise."""

    def deed() -> int:
        from tilesmith.cli.serve import serve as listen

        return listen(run, host, port, token, look, journal, json)

    return deed


@app.command()
def compare(
    run: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two runs or more.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also as an HTML page.")] = None,
    journal: Journal = JOURNAL,
    json: Json = False,
) -> Deed:
    """Put runs side by side, with intervals."""

    def deed() -> int:
        from tilesmith.cli.compare import compare as put

        return put(run, out, journal, json)

    return deed


@app.command()
def export(
    run: RunId,
    format: Annotated[str, typer.Option("--format", help="jsonl, csv or parquet.")] = "jsonl",  # noqa: A002 (a flag)
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="[standard output; RUN.parquet]")] = None,
    journal: Journal = JOURNAL,
    json: Json = False,
) -> Deed:
    """Write the trials of a run as rows: JSON lines, CSV or Parquet."""

    def deed() -> int:
        from tilesmith.cli.export import export as write

        return write(run, format, out, journal, json)

    return deed


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Do it; without this it is only said.")] = False,
    journal: Journal = JOURNAL,
    json: Json = False,
) -> Deed:
    """Delete what nothing refers to: sources in a journal, locks and folders that a killed process left."""

    def deed() -> int:
        from tilesmith.cli.gc import gc as collect

        return collect(journal, delete, json)

    return deed


@app.command()
def doctor(journal: Journal = JOURNAL, json: Json = False) -> Deed:
    """Say what works on this machine, and how to mend the rest."""

    def deed() -> int:
        from tilesmith.cli.doctor import doctor as examine

        return examine(journal, json)

    return deed


@app.command()
def audit(
    corpus: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With corpus.toml.  [tests/exploits of the sources]")
    ] = None,
    classes: Annotated[str, typer.Option("--classes", metavar="LIST", help="Only these classes of cases.")] = "",
    shard: Annotated[
        str, typer.Option(metavar="K/N", help="Only every Nth case, from the Kth on: N commands share the corpus.")
    ] = "1/1",
    bench: Bench = "auto",
    target: Target = None,
    gpus: Gpus = None,
    address: Address = None,
    journal: Journal = JOURNAL,
    json: Json = False,
) -> Deed:
    """Judge a corpus of cheats and honest kernels: say what this machine stops, and what it cannot."""

    def deed() -> int:
        from tilesmith.cli.audit import Cases
        from tilesmith.cli.audit import audit as judge_all
        from tilesmith.cli.audit import shard as parts
        from tilesmith.cli.options import BenchOptions, gpu_list, name_list

        wanted = Cases(name_list(classes), *parts(shard))
        options = BenchOptions(bench, target, gpu_list(gpus), address=address)
        return judge_all(corpus, options, wanted, journal, json)

    return deed


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status is 0, 1 or 2 as every command's page says."""
    words = list(sys.argv[1:] if words is None else words)
    _open_streams()
    as_json = "--json" in words
    try:
        parsed: Deed | int | None = app(words, prog_name="tilesmith", standalone_mode=False)
        status = parsed() if callable(parsed) else parsed or 0
        sys.stdout.flush()
        return status
    except TyperException as error:
        known = {info.callback.__name__ for info in app.registered_commands if info.callback}
        page = " ".join(["tilesmith", *(word for word in words[:1] if word in known), "--help"])
        return _fault(f"{error.format_message().strip().rstrip('.')} (see `{page}`)", as_json)
    except TilesmithError as error:
        return _fault(str(error), as_json)
    except BrokenPipeError:
        _silence()
        return 1
    except KeyboardInterrupt:
        return _fault("interrupted", as_json)
    except MemoryError:
        return _fault("out of memory: close other programs, or use a machine with more", as_json)
    except Exception as error:  # the process's border: nothing may end in a traceback on somebody's terminal
        if isinstance(error, OSError) and error.errno in MACHINE_FAULTS:
            where = f": {error.filename}" if error.filename else ""
            return _fault(f"{os.strerror(error.errno or 0)}{where}; {MACHINE_FAULTS[error.errno]}", as_json)
        return _fault(_internal(error), as_json)


MACHINE_FAULTS = {
    errno.ENOSPC: "free some space and go on with `tilesmith resume`",
    errno.EDQUOT: "free some space and go on with `tilesmith resume`",
    errno.EROFS: "name a file that can be written with --journal and --out",
    errno.EACCES: "name a file that this user may use",
    errno.EPERM: "name a file that this user may use",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "close other programs, or use a machine with more memory",
}


def _open_streams() -> None:
    """Make stdout and stderr such that any text can be written to them."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # Closed by whoever started this process.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 (open to the end)
        if reconfigure := getattr(getattr(sys, name), "reconfigure", None):
            # File names need not be text; a page with one must print all the same.
            reconfigure(errors="backslashreplace")


def _or(given: T | None, otherwise: U) -> T | U:
    """What was given, 0 too; else the other."""
    return otherwise if given is None else given


def _say(words: str) -> int:
    print(words)
    return 0


def _fault(message: str, as_json: bool) -> int:
    """Exit status 2: one sentence on stderr, and with --json the one object on stdout."""
    from tilesmith.report.words import one_line

    sentence = " ".join(one_line(message).split())
    with suppress(OSError):
        print(f"tilesmith: {sentence}", file=sys.stderr, flush=True)
    if as_json:
        from tilesmith.report import document

        with suppress(OSError):
            print(document.fault(sentence), flush=True)
    with suppress(OSError):
        sys.stdout.flush()
        return 2
    _silence()
    return 2


def _internal(error: Exception) -> str:
    """One sentence for a fault of Tilesmith itself; the traceback goes to a file."""
    import tempfile
    import traceback

    words = f"internal error: {type(error).__name__}: {error}"
    try:
        with tempfile.NamedTemporaryFile("w", prefix="tilesmith-", suffix=".log", delete=False) as log:
            log.write("".join(traceback.format_exception(error)))
    except OSError:
        return f"{words}; its traceback could not be written"
    return f"{words}; the traceback is in {log.name}, please report it"


def _silence() -> None:
    """Nobody reads stdout: what is still buffered must not fail again when the interpreter ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
