"""Drawings of µGraphs: an SVG that needs nothing else, and text for Graphviz. All three levels are in one picture.

A box is an operator with what it makes; a kernel is a box of boxes, with its loads on top and its stores below, in the
colour of when they exist; a thread lists its operators. Constants stand in the boxes that use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise

from tilesmith.core.graph import Accumulate, Graph, Kernel, Load, Op, Step, Store, Tensor, Thread
from tilesmith.core.graph_check import Block, block, block_ops, label, shared_bytes, tensors
from tilesmith.core.operators import OPERATORS

AXES = "xyzuvw"
LINE, CHARACTER, PAD, GAP_X, GAP_Y = 17, 7.3, 8, 18, 34
LEGEND = (
    ("input", "tensor in device memory"),
    ("op", "predefined kernel"),
    ("view", "view, no kernel of its own"),
    ("varying", "another tile in every iteration"),
    ("invariant", "the same tile in every iteration"),
    ("after", "exists after the loop"),
    ("thread", "fused in registers"),
)


# What is written on the boxes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """One box: what is written on it, its kind, what it follows, and the boxes inside."""

    kind: str
    lines: tuple[str, ...]
    before: tuple[tuple[int, int], ...] = ()
    """Pairs of an item and which of its results."""
    inner: tuple[Item, ...] = ()


def _items(graph: Graph) -> list[Item]:
    """Inputs, nodes, outputs. Constants are no items."""
    known = tensors(graph)
    items = [Item("input", (t.name, _shape(t))) for t in graph.inputs]
    origin: dict[int, tuple[int, int]] = {value: (value, 0) for value in range(len(items))}
    constants: dict[int, str] = {}
    names = {value: tensor.name for value, tensor in enumerate(graph.inputs)}
    value = len(graph.inputs)
    for node in graph.nodes:
        if isinstance(node, Op) and node.operator == "constant":
            constants[value] = str(node.values[0])
            value += 1
            continue
        sources = node.operands if isinstance(node, Op) else tuple(load.source for load in node.loads)
        before = tuple(origin[source] for source in sources if source in origin)
        if isinstance(node, Op):
            kind = "view" if OPERATORS[node.operator].kind == "view" else "op"
            made = Item(kind, (_written(node, constants), _shape(known[value])), before)
        else:
            made = _kernel(node, known, {v: names.get(v, f"v{v}") for v in range(value)}, before)
        for offset in range(1 if isinstance(node, Op) else len(node.stores)):
            origin[value] = (len(items), offset)
            value += 1
        items.append(made)
    for place, output in enumerate(graph.outputs):
        shown = (origin[output],) if output in origin else ()
        items.append(Item("input", (f"output {place}", constants.get(output, _shape(known[output]))), shown))
    return items


def _kernel(
    kernel: Kernel, known: Sequence[Tensor], names: Mapping[int, str], before: tuple[tuple[int, int], ...]
) -> Item:
    made = block(kernel, known)
    header = (
        f"kernel: grid {' × '.join(map(str, kernel.grid)) or '1'}, loop {kernel.loop}",
        f"{block_ops(kernel)} operators, {shared_bytes(kernel, known):,} bytes of shared memory",
    )
    inner = [
        Item(made.phases[place].value, (f"load {names[load.source]}{_cuts(kernel, load)}", _shape(made.tiles[place])))
        for place, load in enumerate(kernel.loads)
    ]
    place_of = {value: value for value in range(len(inner))}
    constants: dict[int, str] = {}
    for value, step in enumerate(kernel.body, len(kernel.loads)):
        if isinstance(step, Op) and step.operator == "constant":
            constants[value] = str(step.values[0])
            continue
        place_of[value] = len(inner)
        inner.append(_step(step, value, made, constants, place_of))
    for place, store in enumerate(kernel.stores):
        follows = ((place_of[store.source], 0),) if store.source in place_of else ()
        inner.append(Item("after", (f"store{_joins(store)}", _shape(made.stored[place])), follows))
    return Item("kernel", header, before, tuple(inner))


def _step(step: Step, value: int, made: Block, constants: Mapping[int, str], place_of: Mapping[int, int]) -> Item:
    before = tuple((place_of[operand], 0) for operand in step.operands if operand in place_of)
    shape = _shape(made.tiles[value])
    if isinstance(step, Thread):
        inside = {place: constants[operand] for place, operand in enumerate(step.operands) if operand in constants}
        lines = tuple(_written(op, inside) for op in step.ops)
        return Item("thread", (*lines, shape), before)
    if isinstance(step, Accumulate):
        axes = f" over {', '.join(map(str, step.axes))}" if step.axes else ""
        return Item(made.phases[value].value, (label(step) + axes, shape), before)
    return Item(made.phases[value].value, (_written(step, constants), shape), before)


def _written(op: Op, constants: Mapping[int, str]) -> str:
    """An operator with its attributes, and the constants among its operands in their places."""
    words = [op.operator]
    if any(operand in constants for operand in op.operands):
        words.append("(" + ", ".join(constants.get(operand, "·") for operand in op.operands) + ")")
    words += [f"[{', '.join(map(str, row))}]" for row in (op.axes, op.dims) if row]
    words += [str(number) for number in op.values]
    words += [f"{w.size}/{w.stride}+{w.padding}·{w.dilation}" for w in op.windows]
    return " ".join([*words, *([op.dtype] if op.dtype else [])])


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(map(str, tensor.dims))}] {tensor.dtype}"


def _axis(number: int) -> str:
    return AXES[number] if number < len(AXES) else f"axis {number}"


def _cuts(kernel: Kernel, load: Load) -> str:
    words = [f"{_axis(axis)}→{dim}" for axis, dim in enumerate(load.imap) if dim is not None]
    return "".join(f"  {word}" for word in [*words, *([f"loop→{load.fmap}"] if load.fmap is not None else [])]) + (
        "" if kernel.grid or load.fmap is not None else "  whole"
    )


def _joins(store: Store) -> str:
    return "".join(f"  {_axis(axis)}→{dim}" for axis, dim in enumerate(store.omap) if dim is not None)


# Graphviz ------------------------------------------------------------------------------------------------------------


def dot(graph: Graph) -> str:
    """The graph in the language of Graphviz. Raises `OptionError` for a malformed one."""
    items = _items(graph)
    rows = ["digraph mugraph {", '  node [shape=box, fontname="Helvetica", style="rounded"];']
    for number, item in enumerate(items):
        if not item.inner:
            rows.append(f"  n{number} [label={_quoted(item.lines)}];")
            continue
        rows.append(f"  subgraph cluster_{number} {{ label={_quoted(item.lines)};")
        for place, part in enumerate(item.inner):
            rows.append(f"    n{number}_{place} [label={_quoted(part.lines)}, group={part.kind}];")
            rows += [f"    n{number}_{before} -> n{number}_{place};" for before, _ in part.before]
        rows.append("  }")
    for number, item in enumerate(items):
        for load, (before, result) in enumerate(item.before):
            head = f"n{number}_{load}" if item.inner else f"n{number}"
            rows.append(f"  n{before}{_tail(items[before], result)} -> {head};")
    return "\n".join([*rows, "}"]) + "\n"


def _tail(item: Item, result: int) -> str:
    """Of a kernel the store whose result it is: stores come last."""
    return f"_{len(item.inner) - _results(item) + result}" if item.inner else ""


def _results(item: Item) -> int:
    return sum(part.lines[0].startswith("store") for part in item.inner)


def _quoted(lines: Sequence[str]) -> str:
    text = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return f'"{text}"'


# SVG -----------------------------------------------------------------------------------------------------------------


Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where an item stands, from its parent's corner, and what is inside it, from its own."""

    item: Item
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0
    inner: _Layout | None = None


@dataclass(frozen=True, slots=True)
class _Layout:
    """Items where they stand, and for each what its edges pass between the rows: (item, which edge) to points."""

    placed: tuple[_Placed, ...]
    ways: Mapping[tuple[int, int], tuple[Point, ...]]
    width: float
    height: float


STYLE = """
text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: var(--ink); }
rect { stroke: var(--line); rx: 5; } path { fill: none; stroke: var(--line); stroke-width: 1.2; }
svg { background: var(--paper); --ink: #1f2328; --line: #8c959f; --paper: #ffffff; --kernel: #fbfcfd;
  --input: #f6f8fa; --op: #fff1d6; --view: #fbf7ef;
  --varying: #ddeeff; --invariant: #eeeeee; --after: #dff5e3; --thread: #f3e5ff; }
@media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --line: #6e7681; --paper: #0d1117; --kernel: #14191f;
  --input: #1c2128; --op: #4a3718; --view: #2b2620;
  --varying: #16324f; --invariant: #2d333b; --after: #173d24; --thread: #3a2352; } }
"""


def svg(graph: Graph) -> str:
    """A picture that stands alone, light or dark as its reader is. Raises `OptionError` for a malformed graph."""
    layout = _laid_out(_items(graph))
    rows = _drawn(layout)
    rows.append(f'<g transform="translate(0 {layout.height + GAP_Y:.1f})">')
    for number, (kind, text) in enumerate(LEGEND):
        y = number * (LINE + 4)
        rows.append(f'<rect x="0" y="{y}" width="22" height="{LINE - 3}" style="fill: var(--{kind})"/>')
        rows.append(f'<text x="30" y="{y + 11}">{escape(text)}</text>')
    rows.append("</g>")
    width = max(layout.width, 300.0) + 2 * PAD
    height = layout.height + GAP_Y + len(LEGEND) * (LINE + 4) + 2 * PAD
    box = f'viewBox="{-PAD} {-PAD} {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    body = "\n".join(rows)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>\n<style>{STYLE}</style>\n{body}\n</svg>\n'


def _laid_out(items: Sequence[Item]) -> _Layout:
    """Rows by the longest way from the top, inputs just above where they are used, each row ordered by what is above.

    An edge over several rows passes each of them through a place of its own, as if an item stood there.
    """
    depths = _depths(items)
    sized = [_sized(item) for item in items]
    # In a row stand items, by their number, and passages of edges: (item, which edge, row).
    rows: list[list[int | tuple[int, int, int]]] = [[] for _ in range(max(depths, default=-1) + 1)]
    for number, item in enumerate(items):
        rows[depths[number]].append(number)
        for edge, (before, _) in enumerate(item.before):
            for row in range(depths[before] + 1, depths[number]):
                rows[row].append((number, edge, row))

    def width_of(key: int | tuple[int, int, int]) -> float:
        return sized[key].width if isinstance(key, int) else 8.0

    def above(key: int | tuple[int, int, int]) -> float:
        """The middle of what is joined to it from above; a passage follows its own edge."""
        if isinstance(key, int):
            sources = [_above(items, depths, key, edge) for edge in range(len(items[key].before))]
        else:
            sources = [_above(items, depths, key[0], key[1], key[2])]
        return sum(centres[source] for source in sources) / len(sources) if sources else float("inf")

    widths = [sum(width_of(key) + GAP_X for key in row) - GAP_X for row in rows]
    width = max(widths, default=0.0)
    centres: dict[int | tuple[int, int, int], float] = {}
    placed: dict[int, _Placed] = {}
    passages: dict[tuple[int, int, int], tuple[Point, Point]] = {}
    y = 0.0
    for keys, row_width in zip(rows, widths, strict=True):
        keys.sort(key=above)
        height = max(sized[key].height for key in keys if isinstance(key, int))
        x = (width - row_width) / 2
        for key in keys:
            centres[key] = x + width_of(key) / 2
            if isinstance(key, int):
                placed[key] = replace(sized[key], x=x, y=y)
            else:
                passages[key] = (centres[key], y), (centres[key], y + height)
            x += width_of(key) + GAP_X
        y += height + GAP_Y
    ways = {
        (number, edge): tuple(
            point for row in range(depths[before] + 1, depths[number]) for point in passages[number, edge, row]
        )
        for number, item in enumerate(items)
        for edge, (before, _) in enumerate(item.before)
    }
    return _Layout(tuple(placed[n] for n in range(len(items))), ways, width, max(0.0, y - GAP_Y))


def _depths(items: Sequence[Item]) -> list[int]:
    depths = [0] * len(items)
    for number, item in enumerate(items):
        depths[number] = max((depths[before] + 1 for before, _ in item.before), default=0)
    users: dict[int, list[int]] = {}
    for number, item in enumerate(items):
        for before, _ in item.before:
            users.setdefault(before, []).append(depths[number])
    # Tensors in device memory stand near their users; loads stay at the top of their kernel.
    return [
        min(users[number]) - 1 if item.kind == "input" and not item.before and number in users else depths[number]
        for number, item in enumerate(items)
    ]


def _above(
    items: Sequence[Item], depths: Sequence[int], number: int, edge: int, row: int | None = None
) -> int | tuple[int, int, int]:
    """What an edge comes from in the row above: its source, or its own passage."""
    before = items[number].before[edge][0]
    last = (depths[number] if row is None else row) - 1
    return before if depths[before] == last else (number, edge, last)


def _sized(item: Item) -> _Placed:
    width = max(map(len, item.lines)) * CHARACTER + 2 * PAD
    height = float(len(item.lines) * LINE + PAD)
    if not item.inner:
        return _Placed(item, width, height)
    inner = _laid_out(item.inner)
    return _Placed(item, max(width, inner.width + 4 * PAD), height + inner.height + 3 * PAD, inner=inner)


def _corner(placed: _Placed) -> Point:
    """Where what is inside begins, from the item's own corner."""
    return 2 * PAD, len(placed.item.lines) * LINE + 2 * PAD


def _drawn(layout: _Layout) -> list[str]:
    rows = []
    for number, one in enumerate(layout.placed):
        for edge, (before, result) in enumerate(one.item.before):
            points = [_port(layout.placed[before], result, below=True), *layout.ways[number, edge], _port(one, edge)]
            rows.append(f'<path d="{_curve(points)}"/>')
    for one in layout.placed:
        size = f'width="{one.width:.1f}" height="{one.height:.1f}"'
        rows.append(f'<rect x="{one.x:.1f}" y="{one.y:.1f}" {size} style="fill: var(--{one.item.kind})"/>')
        for number, line in enumerate(one.item.lines):
            rows.append(f'<text x="{one.x + PAD:.1f}" y="{one.y + (number + 1) * LINE - 2:.1f}">{escape(line)}</text>')
        if one.inner is not None:
            x, y = _corner(one)
            rows.append(f'<g transform="translate({one.x + x:.1f} {one.y + y:.1f})">')
            rows += [*_drawn(one.inner), "</g>"]
    return rows


def _port(placed: _Placed, place: int, below: bool = False) -> Point:
    """Where an edge meets an item: at a kernel above its load, or below its store, of that number."""
    x = placed.x + placed.width / 2
    if placed.inner is not None:
        parts = placed.inner.placed
        part = parts[len(parts) - _results(placed.item) + place] if below else parts[place]
        x = placed.x + _corner(placed)[0] + part.x + part.width / 2
    return x, placed.y + placed.height if below else placed.y


def _curve(points: Sequence[Point]) -> str:
    """Upright at every point; straight through a row."""
    rows = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (y1 + y2) / 2
        rows.append(f"C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}")
    return " ".join(rows)
