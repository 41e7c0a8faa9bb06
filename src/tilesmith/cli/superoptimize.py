"""`tilesmith superoptimize`: search a tensor program's µGraphs exhaustively, and show what was found."""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tilesmith import config
from tilesmith.cli.screen import answer, say
from tilesmith.core.errors import MachineError, OptionError, TilesmithError
from tilesmith.core.graph import Graph, Limits, Op
from tilesmith.core.graph_check import kernel_ops
from tilesmith.superopt import concrete
from tilesmith.superopt.draw import dot, svg
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.partition import partition
from tilesmith.superopt.programs import PROGRAMS
from tilesmith.superopt.schema import from_json, to_json
from tilesmith.superopt.search import Found, Results, Worker, search
from tilesmith.superopt.table import TooLarge
from tilesmith.superopt.threads import fused
from tilesmith.superopt.timeline import trace_json
from tilesmith.superopt.trace import trace
from tilesmith.superopt.traced import Traced

SHOWN = 10
"""Graphs that the text answer lists."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is searched: the LAX parts of a program, equal ones once."""

    name: str
    parts: tuple[tuple[Graph, int], ...]
    """Each with how often it stands in the program."""
    rest: tuple[str, ...] = ()
    """What stays PyTorch's, with its place."""


def plan_of(**given: Any) -> Plan:
    """The plan of these values. Raises `OptionError` for a word that is none of a flag's."""
    for name, annotation in get_type_hints(Plan).items():
        words = get_args(annotation)
        if get_origin(annotation) is Literal and name in given and given[name] not in words:
            raise OptionError(f"--{name.replace('_', '-')} is {given[name]!r}; it must be {' or '.join(words)}")
    return Plan(**given)


SPACES: dict[str, Callable[[Graph, Limits, Plan], Results]] = {"symbolic": search, "concrete": concrete.search}


def limits_of(program: Graph, plan: Plan, given: Mapping[str, int | None]) -> Limits:
    """Those of the space, the published ones in the concrete space, with what is given in their place."""
    usual = concrete.published(program) if plan.space == "concrete" else Limits()
    return replace(usual, **{name: value for name, value in given.items() if value is not None})


def superoptimize(
    path: Path,
    given: Mapping[str, int | None],
    plan: Plan,
    draw: Path | None,
    as_json: bool,
    timeline: Path | None = None,
) -> int:
    """0 where a µGraph was found for every part, 1 where not. `given`: limits in place of the usual, by their names."""
    if draw is not None:
        _folder(draw)
    program = read(path)

    def tell(searched: Program, results: list[Results]) -> int:
        return _answer(searched, results, draw, as_json, timeline)

    if plan.schedule == "mpi":
        return _on_ranks(program, given, plan, lambda results: tell(program, results))
    for line in program.rest:
        say(f"stays PyTorch's: {line}")
    searched: list[tuple[Graph, int]] = []
    results: list[Results] = []
    for number, (graph, count) in enumerate(program.parts, start=1):
        _count(program, number)
        for piece, result in _searched(graph, given, plan):
            searched.append((piece, count))
            results.append(result)
        if results[-1].stop == "interrupted":
            break
    else:
        program = replace(program, parts=tuple(searched))
    return tell(program, results)


def _count(program: Program, number: int) -> None:
    if len(program.parts) > 1:
        count = program.parts[number - 1][1]
        say(f"part {number} of {len(program.parts)}{f', {count} times in the program' if count > 1 else ''}")


def _on_ranks(
    program: Program, given: Mapping[str, int | None], plan: Plan, tell: Callable[[list[Results]], int]
) -> int:
    """Only the first rank says anything."""
    from tilesmith.superopt import ranks

    def rescue(blobs: ranks.Blobs) -> None:
        say(f"{ranks.DIED[0].upper()}{ranks.DIED[1:]}.")
        parts = [
            ranks.rescued(graph, limits_of(graph, plan, given), plan, heard)
            for (graph, _), heard in zip(program.parts, blobs, strict=False)
        ]
        tell([part for part in parts if part is not None])

    job = ranks.join(rescue)
    errors = os.dup(2)
    if job.rank:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
    for line in program.rest:
        say(f"stays PyTorch's: {line}")
    try:
        results: list[Results] = []
        for number, (graph, _) in enumerate(program.parts, start=1):
            _count(program, number)
            result = ranks.search(job, graph, limits_of(graph, plan, given), plan)
            if result is not None:
                results.append(result)
        status = 0 if job.rank else tell(results)
    except TooLarge as large:
        job.end()
        raise OptionError(f"{str(large).removesuffix('.')}; only a search of one process cuts it.") from None
    except TilesmithError:
        job.end()
        raise
    except BaseException:  # a rank that is gone would be waited for
        os.dup2(errors, 2)
        traceback.print_exc()
        sys.stderr.flush()
        job.comm.Abort(2)
        raise
    job.end()
    if job.lost:
        # The library would wait for them at its end.
        sys.stdout.flush()
        os._exit(1)
    return status


def _answer(program: Program, results: list[Results], draw: Path | None, as_json: bool, timeline: Path | None) -> int:
    drawn = _drawn(program, results, draw)
    if timeline is not None:
        _write(timeline, trace_json([result.workers for result in results]))
    if as_json:
        answer(json.dumps(_document(program, results, drawn), allow_nan=False))
    else:
        for (graph, _), result in zip(program.parts, results, strict=False):
            _tell(graph, result)
        for name in drawn.values():
            answer(f"drawn: {name}")
    return 0 if len(results) == len(program.parts) and all(result.graphs for result in results) else 1


def _searched(graph: Graph, given: Mapping[str, int | None], plan: Plan) -> list[tuple[Graph, Results]]:
    """What was found for a graph; where it is too large to be searched at once, for the parts that it is cut into."""
    result: Results | None
    try:
        result = SPACES[plan.space](graph, limits_of(graph, plan, given), plan)
        if result.stop != "incomplete" or result.graphs:
            return [(graph, result)]
        why = f"the search was incomplete: {result.reason}"
    except TooLarge as large:
        result, why = None, str(large).removesuffix(".")
    most = -(-kernel_ops(graph) // 2)
    parts = partition(Traced.of(graph), most).parts
    if len(parts) < 2:
        if result is None:
            raise OptionError(f"{why}, and it cannot be cut further.")
        return [(graph, result)]
    say(f"cut into {len(parts)} parts of {most} operators at most, since it is too large at once ({why})")
    made: list[tuple[Graph, Results]] = []
    for part in parts:
        made += _searched(part.graph, given, plan)
        if made[-1][1].stop == "interrupted":
            break
    return made


def read(path: Path) -> Program:
    """A µGraph's JSON file, or a published program by name, as one part; a problem traced and cut into its parts."""
    if str(path) in PROGRAMS and not path.exists():
        return Program(str(path), ((PROGRAMS[str(path)](), 1),))
    if path.suffix == ".json":
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"{path} cannot be read ({error}); check the path") from None
        return Program(path.stem, ((from_json(text, str(path)), 1),))
    problem = config.load_problem(path)
    traced = trace(problem)
    cut = partition(traced)
    alone = [(place, traced.nodes[place]) for part in cut.parts if part.lone for place in part.nodes]
    rest = (*traced.opaque, *(f"{op.operator} ({traced.places[place]})" for place, op in alone if isinstance(op, Op)))
    parts = tuple((same[0].graph, len(same)) for same in cut.distinct.values() if not same[0].lone)
    if not parts:
        raise OptionError(
            f"{path} holds nothing to superoptimize: {'; '.join(rest[:3]) or 'no operator'} stays PyTorch's"
        )
    return Program(problem.name, parts, rest)


def _document(program: Program, results: list[Results], drawn: dict[str, str]) -> dict[str, object]:
    """The first part's answer stands for a program that is one part; all stand under `parts`."""
    parts = [_part(graph, count, result, drawn) for (graph, count), result in zip(program.parts, results, strict=False)]
    whole: dict[str, object] = {"program": program.name, "verdict": None, "message": None, "peak_bytes": _peak_bytes()}
    if len(parts) == 1:
        return {**whole, **parts[0], "pytorch": list(program.rest)}
    stops = [result.stop for result in results]
    return {
        **whole,
        "stop": next((stop for stop in stops if stop != "exhausted"), "exhausted" if stops else "interrupted"),
        "seconds": sum(result.seconds for result in results),
        "table_seconds": sum(result.table_seconds for result in results),
        "states": sum(result.states for result in results),
        "candidates": sum(result.candidates for result in results),
        "verified": sum(result.verified for result in results),
        "error_bound": max((result.error_bound for result in results), default=1.0),
        "graphs": [graph for part in parts for graph in part["graphs"]],  # type: ignore[attr-defined]
        "parts": parts,
        "pytorch": list(program.rest),
    }


def _peak_bytes() -> int:
    """Of this process. `getrusage` may count what its parent had when it started it."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _part(graph: Graph, count: int, result: Results, drawn: dict[str, str]) -> dict[str, object]:
    pruned, oracle = result.pruned, result.oracle
    return {
        "inputs": [[tensor.name, list(tensor.dims), tensor.dtype] for tensor in graph.inputs],
        "count": count,
        "stop": result.stop,
        "reason": result.reason or None,
        "seconds": result.seconds,
        "table_seconds": result.table_seconds,
        "first_seconds": result.first_seconds,
        "rank_seconds": result.rank_seconds,
        "states": result.states,
        "candidates": result.candidates,
        "pruned": {name: getattr(pruned, name) for name in pruned.__dataclass_fields__},
        "oracle": {name: getattr(oracle, name) for name in oracle.__dataclass_fields__},
        "verified": result.verified,
        "closest": result.closest or None,
        "error_bound": result.error_bound,
        "graphs": [_graph(found, drawn) for found in result.graphs],
        "workers": [_worker(worker) for worker in result.workers],
    }


def _worker(worker: Worker) -> dict[str, object]:
    """Its sums; when it did what is the timeline's."""
    return {name: getattr(worker, name) for name in worker.__dataclass_fields__ if name != "spans"}


def _graph(found: Found, drawn: dict[str, str]) -> dict[str, object]:
    return {
        "hash": found.hash,
        "kernels": [
            {
                "grid": list(kernel.grid),
                "loop": kernel.loop,
                "estimate_us": kernel.estimate_us,
                "bytes": kernel.bytes,
                "traffic_bytes": kernel.traffic_bytes,
                "flops": kernel.flops,
                "shared_bytes": kernel.shared_bytes,
            }
            for kernel in found.kernels
        ],
        "block_ops": found.block_ops,
        "estimate_us": found.estimate_us,
        "schedule": [{"grid": list(kernel.grid), "loop": kernel.loop} for kernel in found.kernels],
        "graph": json.loads(to_json(found.graph)),
        "drawing": drawn.get(found.hash),
    }


def _tell(graph: Graph, result: Results) -> None:
    inputs = ", ".join(f"{tensor.name} {'x'.join(map(str, tensor.dims)) or 'scalar'}" for tensor in graph.inputs)
    answer(f"program of {inputs}")
    answer(
        f"  {result.stop}{f' ({result.reason})' if result.reason else ''} after {1000 * result.seconds:.2f} ms "
        f"(table {1000 * result.table_seconds:.2f} ms): {result.states:,} states, {result.candidates:,} graphs, "
        f"{result.verified} scheduled and verified"
        + (f" (a wrong one passes with probability {result.error_bound:.1e} at most)" if result.verified else "")
    )
    if not result.graphs:
        answer(f"  nothing was found within these limits. {result.closest or _mostly(result)}")
    for found in result.graphs[:SHOWN]:
        kernels = "; ".join(
            f"grid {'x'.join(map(str, kernel.grid)) or '1'}, loop {kernel.loop}" for kernel in found.kernels
        )
        count = f"{len(found.kernels)} kernel{'s' * (len(found.kernels) > 1)}"
        answer(f"  {found.hash}  {found.estimate_us:9.2f} us estimated  {count}: {kernels}")
    if len(result.graphs) > SHOWN:
        answer(f"  and {len(result.graphs) - SHOWN} more")


def _mostly(result: Results) -> str:
    pruned = {name: getattr(result.pruned, name) for name in result.pruned.__dataclass_fields__}
    cause = max(pruned, key=lambda name: pruned[name])
    return f"Most was pruned by: {cause} ({pruned[cause]:,}); try more --graph-defined-kernels or --block-ops."


def _drawn(program: Program, results: list[Results], folder: Path | None) -> dict[str, str]:
    """A drawing a graph, as SVG and as text for Graphviz; the SVG's path by the graph's hash."""
    if folder is None:
        return {}
    paths: dict[str, str] = {}
    try:
        for result in results:
            for found in result.graphs:
                path = folder / f"{program.name}-{found.hash}.svg"
                graph = fused(found.graph)
                path.write_text(svg(graph), "utf-8")
                path.with_suffix(".dot").write_text(dot(graph), "utf-8")
                paths[found.hash] = str(path)
    except OSError as error:
        raise MachineError(f"the drawings cannot be written to {folder}: {error.strerror}") from error
    return paths


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--draw: the folder {path} cannot be made: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise MachineError(f"--timeline: {path} cannot be written: {error.strerror}") from error
