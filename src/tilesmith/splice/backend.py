"""A captured graph in, a callable out: what torch.compile asks of a backend.

    capture -> pieces -> for each distinct one: the cache, or a search and a contest -> assemble

Whatever stands in the way of a graph is a remark, and the graph stays as it is. Raised is only what the user has to
mend: training, an option, a cache folder that others can write to.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node

import tilesmith
from tilesmith.bench import gpus
from tilesmith.core.errors import JournalError, MachineError, OptionError, TilesmithError
from tilesmith.core.gpu import target
from tilesmith.core.problem import Problem
from tilesmith.core.seams import Bench
from tilesmith.splice.assemble import assemble
from tilesmith.splice.cache import Cache, Key, Stale, key
from tilesmith.splice.capture import Captured, Uncapturable, capture
from tilesmith.splice.contest import contest, faster, slower_words
from tilesmith.splice.explanation import Explanation, GraphReport, PartReport
from tilesmith.splice.found import Found
from tilesmith.splice.kernel import Guarded, disagreement, inputs, interpreted, load, original
from tilesmith.splice.operators import Opaque
from tilesmith.splice.optimize import Where, lazily, optimize
from tilesmith.splice.options import Options, options_of
from tilesmith.splice.pieces import Form, Piece, form_of, pieces
from tilesmith.splice.whole import clocked

LOG = logging.getLogger("tilesmith")
REMEMBERED = 64
"""Graphs that are explained, the latest; each shape of each function is one."""
PATIENCE_S = 300.0
"""How much longer than twice its budget another process may search for what this one needs: confirming and timing come
on top. Who dies is waited for no longer."""
TRAINING = (
    "tilesmith compiles for inference, and gradients would be recorded here: call the module under torch.no_grad() or "
    "torch.inference_mode(), after .eval(), or train the module itself"
)


class Backend:
    """A backend of torch.compile. One for all modules that are compiled with the same options by name."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._cache = Cache(options.folder)
        self._graphs: deque[GraphReport] = deque(maxlen=REMEMBERED)
        self._notes: dict[str, None] = {}
        self._known: set[tuple[object, ...]] = set()
        """Graphs that were searched, without their shapes."""

    def __call__(self, module: GraphModule, example: Sequence[Any], **_: Any) -> Callable[..., Any]:
        if torch.is_grad_enabled() and any(isinstance(each, torch.Tensor) and each.requires_grad for each in example):
            raise OptionError(TRAINING)
        shown = ", ".join(str(form_of(each)) for each in example if not isinstance(each, torch.nn.Parameter)
                          and isinstance(each, torch.Tensor))  # fmt: skip
        try:
            spliced, report = self._spliced(module, example, shown)
        except Uncapturable as error:
            spliced, report = module, GraphReport(shown, reason=str(error))
            self._note(f"a graph stays as it is: {error}")
        self._graphs.append(report)
        if self.options.rest == "eager":
            return spliced.forward  # type: ignore[no-any-return]
        from torch._dynamo.backends.registry import lookup_backend

        return lookup_backend(self.options.rest)(spliced, list(example))  # type: ignore[no-any-return]

    def explain(self) -> Explanation:
        return Explanation(tuple(self._graphs), tuple(self._notes))

    def _note(self, words: str) -> None:
        """Once for all times."""
        if words not in self._notes:
            self._notes[words] = None
            LOG.warning("tilesmith: %s", words)

    def _spliced(self, module: GraphModule, example: Sequence[Any], shown: str) -> tuple[GraphModule, GraphReport]:
        captured = capture(module, example)
        try:
            cut = pieces(captured, self.options.largest)
        except TilesmithError as error:
            raise Uncapturable(str(error).rstrip(".")) from None
        rest = _rest(captured, cut)
        where = self._where(example)
        if isinstance(where, str):
            parts = tuple(_report(same, Found(where)) for same in _alike(cut).values())
            return module, GraphReport(shown, parts, rest, reason=where)
        device = example[0].device
        shapeless = (captured.targets(), tuple(id(each) for each in example if isinstance(each, torch.nn.Parameter)))
        fresh = shapeless not in self._known
        self._known.add(shapeless)
        began = time.monotonic()
        try:
            found = self._found(captured, example, cut, where, fresh=fresh)
        except BaseException:
            # Ctrl-C, as a rule: called again it is searched again.
            self._known.discard(shapeless)
            raise
        searched_s = time.monotonic() - began if fresh and any(not each.cached for each, _ in found.values()) else 0.0
        replaced: list[tuple[Piece, torch.nn.Module]] = []
        parts_found = []
        for rows, same in _alike(cut).items():
            answer, problem = found[rows]
            kernels, answer = self._kernels(same, answer, problem, device)
            replaced += zip(same, kernels, strict=False)
            parts_found.append(_report(same, answer))
        reason = "" if fresh else "these are other shapes than it was first called with: nothing was searched for them"
        if not replaced:
            return module, GraphReport(shown, tuple(parts_found), rest, reason, searched_s)
        spliced = assemble(captured, replaced)
        timed = where.device is not None and self.options.rest == "eager"
        whole = clocked(spliced, module, example) if timed else None
        if whole is not None and whole.slower:
            self._note(f"with its kernels a graph takes {whole}")
        return spliced, GraphReport(shown, tuple(parts_found), rest, "", searched_s, whole)

    def _where(self, example: Sequence[Any]) -> Where | str:
        """Where parts are judged; or why nothing can be judged here."""
        if not example:
            return "it has no inputs"
        kinds = {str(each.device) for each in example}
        if len(kinds) != 1:
            return f"its tensors are on several devices ({', '.join(sorted(kinds))})"
        device = example[0].device
        if device.type == "cuda":
            uuid = str(torch.cuda.get_device_properties(device).uuid)
            here = [each for each in gpus.find() if each.uuid.removeprefix("GPU-") == uuid.removeprefix("GPU-")]
            return Where(here[0].gpu, here[0]) if here else "nvidia-smi does not show the GPU of its tensors"
        if not self.options.estimates:
            return (
                f"its tensors are on {device.type}, where nothing can be timed against PyTorch, so no kernel is known "
                "to be faster; on an NVIDIA GPU parts are searched (estimates=True accepts estimates, for tests)"
            )
        if not interpreted():
            raise OptionError(
                "estimates=True runs kernels in Triton's interpreter, which Triton decides when it is imported: start "
                "Python with TRITON_INTERPRET=1"
            )
        return Where(target(self.options.target), None)

    def _found(
        self, captured: Captured, example: Sequence[Any], cut: Sequence[Piece], where: Where, *, fresh: bool
    ) -> dict[tuple[str, ...], tuple[Found, Problem]]:
        """An answer and a problem for each distinct part: the cache's, or a new one."""
        alike = _alike(cut)
        tf32 = bool(torch.backends.cuda.matmul.allow_tf32)
        spreads = _spreads(captured, example, [same[0] for same in alike.values()])
        made: dict[tuple[str, ...], tuple[Found, Problem]] = {}
        missing: list[tuple[tuple[str, ...], Problem, Key]] = []
        for rows, same in alike.items():
            wanted = _key(same[0], where, tf32=tf32)
            problem = same[0].problem(
                f"part-{wanted.digest[:8]}",
                [spreads[node] for node in same[0].sources],
                tf32=tf32,
                target=None if where.device else where.gpu.name,
            )
            if same[0].fault:
                made[rows] = Found(same[0].fault), problem
            elif (known := self._kept(wanted)) is not None:
                made[rows] = known, problem
            elif fresh:
                missing.append((rows, problem, wanted))
            else:
                made[rows] = (
                    Found("it has other shapes than the module was first called with, and none is kept"),
                    problem,
                )
        left_s = self.options.budget_seconds
        missing.sort(key=lambda each: -len(alike[each[0]]) * alike[each[0]][0].bytes)
        with lazily(where) as bench:
            for place, (rows, problem, wanted) in enumerate(missing):
                began = time.monotonic()
                share = left_s / (len(missing) - place)
                made[rows] = self._searched(problem, alike[rows][0], wanted, where, bench, share), problem
                # What confirming and timing take beyond its share is not taken from the others'.
                left_s -= min(share, time.monotonic() - began)
        return made

    def _kept(self, wanted: Key) -> Found | None:
        """What the cache holds and can be believed; what was given up after less time is searched anew."""
        try:
            found = self._cache.get(wanted)
        except Stale as stale:
            self._note(str(stale))
            return None
        if found is not None and found.source is None and 2 * found.seconds < self.options.budget_seconds:
            return None
        return found

    def _searched(
        self,
        problem: Problem,
        piece: Piece,
        wanted: Key,
        where: Where,
        bench: Callable[[], Bench],
        seconds: float,
    ) -> Found:
        LOG.info("tilesmith: searching %s for %.0f s", problem.name, seconds)
        try:
            with self._cache.searching(wanted, 2 * self.options.budget_seconds + PATIENCE_S):
                # Another process may have found it meanwhile.
                if (known := self._kept(wanted)) is not None:
                    return known
                found = optimize(problem, piece.graph, where, bench(), self._cache.folder, seconds, self.options.seed)
                if found.source is not None and where.device is not None:
                    found = _contested(problem, found, where)
                found = replace(found, seconds=self.options.budget_seconds, order=piece.places)
                try:
                    self._cache.put(wanted, found)
                except MachineError as error:
                    self._note(f"{str(error).rstrip('.')}; what was found is used in this process only")
                return found
        except JournalError as error:
            # Its own advice is for the command line.
            told = f"{str(error).partition(';')[0]}; remove it, or name another cache with TILESMITH_CACHE"
            self._note(told)
            return Found(f"it could not be searched: {told}")
        except TilesmithError as error:
            self._note(str(error))
            return Found(f"it could not be searched: {error}")

    def _kernels(
        self, same: Sequence[Piece], found: Found, problem: Problem, device: torch.device
    ) -> tuple[list[torch.nn.Module], Found]:
        """The modules that stand for equal parts; none, with the reason, where the kernel is not right here."""
        if found.source is None:
            return [], found
        if sorted(found.order) != sorted(same[0].places):
            return [], Found("its cache entry names inputs that it does not have", cached=found.cached)
        part = original(problem.source)
        modules: list[torch.nn.Module] = []
        try:
            kernel = load(found.source)
        except Exception as error:  # a kernel that another machine could load may need what this one lacks
            return [], Found(f"its kernel cannot be loaded: {type(error).__name__}: {error}", cached=found.cached)
        for number, piece in enumerate(same):
            order = [piece.places.index(place) for place in found.order]
            guarded = Guarded(kernel, part if not number else _part(piece), piece.forms, order)
            if not number and (wrong := disagreement(guarded, part, inputs(problem.source, device))):
                self._note(f"{problem.name}: {wrong}; the part stays PyTorch's")
                return [], Found(f"its kernel is not used: {wrong}", cached=found.cached)
            modules.append(guarded if self.options.rest == "eager" else Opaque(guarded, _results(piece)))
        return modules, found


def _part(piece: Piece) -> Callable[..., Any]:
    """Equal parts are one program, but may name their inputs in another order."""
    spreads = [(0.0, 1.0)] * len(piece.forms)
    return original(piece.problem("part", spreads, tf32=False, target=None).source)


def _results(piece: Piece) -> list[Form]:
    """How an operator lays out its results: contiguous."""
    made = []
    for node in piece.results:
        value = node.meta["val"]
        made.append(form_of(torch.empty(value.shape, dtype=value.dtype, device="meta")))
    return made


def _contested(problem: Problem, found: Found, where: Where) -> Found:
    """With its time against PyTorch's, or without its source where it is not faster."""
    assert where.device is not None
    assert found.source is not None
    assert found.evidence is not None
    answer = contest(problem.source, found.source, where.device, tf32=problem.settings.tf32)
    if isinstance(answer, str):
        return Found(f"a correct kernel was found, but {answer}")
    baseline, timing = answer
    if not faster(timing):
        return Found(slower_words(baseline, timing))
    return replace(found, evidence=replace(found.evidence, measured=timing, baseline=baseline))


def _alike(cut: Sequence[Piece]) -> dict[tuple[str, ...], list[Piece]]:
    """Equal parts together, in the order in which they appear."""
    made: dict[tuple[str, ...], list[Piece]] = {}
    for piece in cut:
        made.setdefault(tuple(piece.rows.values()), []).append(piece)
    return made


def _key(piece: Piece, where: Where, *, tf32: bool) -> Key:
    versions = {name: version(name) for name in ("torch", "triton")}
    how = "measured" if where.device else "estimated"
    return key(
        {
            **piece.rows,
            **versions,
            "tilesmith": tilesmith.__version__,
            "gpu": str(where),
            "how": how,
            "tf32": str(tf32),
        }
    )


def _report(same: Sequence[Piece], found: Found) -> PartReport:
    return PartReport(same[0].calls, same[0].inputs, len(same), found)


def _rest(captured: Captured, cut: Sequence[Piece]) -> tuple[str, ...]:
    """What the superoptimizer has no operator for; views and what no output needs are not listed."""
    del cut
    return tuple(dict.fromkeys(line.partition(" (")[0] for line in captured.traced.opaque))


def _spreads(captured: Captured, example: Sequence[Any], firsts: Sequence[Piece]) -> dict[Node, tuple[float, float]]:
    """Mean and standard deviation of what the parts read, in one call of the whole: problems' inputs are like them."""
    wanted = {node for piece in firsts for node in piece.sources}
    seen: dict[Node, tuple[float, float]] = {}

    class Looking(Interpreter):
        def run_node(self, node: Node) -> Any:
            value = super().run_node(node)
            if node in wanted:
                seen[node] = _spread(value)
            return value

    with torch.no_grad():
        Looking(captured.module).run(*captured.lifted, *example)
    return seen


def _spread(value: Any) -> tuple[float, float]:
    """Rounded: it decides what is drawn, not what is right."""
    wide = value.detach().float()
    mean, spread = float(wide.mean()), float(wide.std(correction=0))
    if not (math.isfinite(mean) and math.isfinite(spread)):
        return 0.0, 1.0
    # What is everywhere the same, as weights of a norm are at first, would hide mistakes.
    spread = spread if spread > 0.05 * abs(mean) else max(0.1 * abs(mean), 1e-3)
    return (0.0 if abs(mean) < 0.1 * spread else float(f"{mean:.2g}")), float(f"{spread:.2g}")


_BY_OPTIONS: dict[Options, Backend] = {}


def by_options(options: Options) -> Backend:
    if options not in _BY_OPTIONS:
        _BY_OPTIONS[options] = Backend(options)
    return _BY_OPTIONS[options]


def backend(
    module: GraphModule, example: Sequence[Any], *, options: dict[str, Any] | None = None, **_: Any
) -> Callable[..., Any]:
    """`torch.compile(model, backend="tilesmith", options={...})`."""
    return by_options(options_of(options))(module, example)


def explained() -> Explanation:
    """Of everything that this process compiled by the backend's name."""
    each = [made.explain() for made in _BY_OPTIONS.values()]
    notes = dict.fromkeys(note for one in each for note in one.notes)
    return Explanation(tuple(graph for one in each for graph in one.graphs), tuple(notes))
