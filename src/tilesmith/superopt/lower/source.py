"""A whole file: what it was made from, its kernels, and the wrapper that launches them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

from tilesmith.core.graph import Accumulate, Graph, Kernel, Load, Op, Thread, Window
from tilesmith.core.graph_check import label, tensors
from tilesmith.core.graph_hash import graph_hash
from tilesmith.superopt.lower.emit import Written, written
from tilesmith.superopt.lower.gluon import GL, IMPORTS, specialized
from tilesmith.superopt.lower.options import Choice, grid_order
from tilesmith.superopt.lower.program import TORCH, Launch, Steps
from tilesmith.superopt.lower.sizes import Size
from tilesmith.superopt.lower.tma import Descriptor
from tilesmith.superopt.lower.windows import LEAST_ROW

WIDTH = 120
TICKETS = '''
# Programs that share a tile count themselves here. What is left at the end of a call is what the next one expects.
_tickets = {}


def tickets(device, kernel, count):
    """At least `count` numbers, zeros at first, the same in every call of a kernel."""
    if (device, kernel) not in _tickets or _tickets[device, kernel].numel() < count:
        _tickets[device, kernel] = torch.zeros(count, device=device, dtype=torch.int32)
    return _tickets[device, kernel]
'''.strip("\n").split("\n")


def file(
    graph: Graph,
    steps: Steps,
    choices: Sequence[Choice],
    parameters: Sequence[str],
    tf32: bool,
    fixed: frozenset[Fraction] | None = None,
) -> str:
    """The source of a candidate: `choices` has one for every launch. Of `fixed` see `Lowering`."""
    kept = fixed if steps.named else None
    launches = [step for step in steps.steps if isinstance(step, Launch)]
    kernels = [
        (specialized if choice.consumers else written)(launch, choice, tf32, kept)
        for launch, choice in zip(launches, choices, strict=True)
    ]
    lines = [
        '"""',
        *_description(graph, steps, any(kernel.tiled for kernel in kernels)),
        '"""',
        "",
        "import torch",
        "import triton",
        "import triton.language as tl",
    ]
    if any(choice.consumers for choice in choices):
        lines += IMPORTS
    if any(tile.dtype is None for kernel in kernels for tile in kernel.tiled):
        lines.append("from triton.tools.tensor_descriptor import TensorDescriptor")
    if any(kernel.scratch for kernel in kernels):
        lines += ["", *TICKETS]
    for kernel in kernels:
        lines += ["", "", *kernel.lines]
    lines += ["", "", *_wrapper(steps, launches, kernels, choices, parameters)]
    return "\n".join(part for line in lines for part in laid_out(line)) + "\n"


# Where it comes from -------------------------------------------------------------------------------------------------


def _description(graph: Graph, steps: Steps, tiled: bool) -> Iterator[str]:
    yield f"Lowered from µGraph {graph_hash(graph)}."
    yield ""
    known = tensors(graph)
    names = [tensor.name for tensor in graph.inputs]
    for tensor in graph.inputs:
        yield f"    {tensor.name}: {tensor.dtype} {list(tensor.dims)}"
    for place, node in enumerate(graph.nodes):
        if isinstance(node, Op):
            shown = ", ".join(names[value] for value in node.operands)
            yield from _folded(f"    node {place}: v{len(names)} = {node.operator}({shown}){_attributes(node)}")
            names.append(f"v{len(names)}")
            continue
        yield f"    node {place}: a kernel of grid {list(node.grid)}, loop {node.loop}"
        for load in node.loads:
            yield f"        {names[load.source]} {_cut(load)}"
        yield from _folded(f"        {_body(node)}")
        for store in node.stores:
            dims = list(known[len(names)].dims)
            yield f"        -> v{len(names)} {dims}, omap {_map(store.omap)}"
            names.append(f"v{len(names)}")
    shown = ", ".join(names[value] for value in graph.outputs)
    yield f"    returns {shown}"
    yield ""
    sizes = "for inputs of any extents" if steps.named else "for these extents only"
    yield f"It is made {sizes}{' whose rows are multiples of 16 bytes' if tiled and steps.named else ''}."


def _attributes(op: Op) -> str:
    parts = [f"axes {list(op.axes)}"] if op.axes else []
    parts += [f"dims {list(op.dims)}"] if op.dims else []
    parts += [", ".join(str(value) for value in op.values)] if op.values else []
    parts += [", ".join(_window(window) for window in op.windows)] if op.windows else []
    return f", {', '.join(parts)}" if parts else ""


def _window(window: Window) -> str:
    return f"{window.size} (stride {window.stride}, padding {window.padding}, dilation {window.dilation})"


def _cut(load: Load) -> str:
    return f"imap {_map(load.imap)}, fmap {'-' if load.fmap is None else load.fmap}"


def _map(dims: Sequence[int | None]) -> str:
    return "[" + ", ".join("-" if dim is None else str(dim) for dim in dims) + "]"


def _body(kernel: Kernel) -> str:
    words = []
    for step in kernel.body:
        if isinstance(step, Op) and step.operator == "constant":
            words.append(str(step.values[0]))
        elif isinstance(step, Accumulate | Op | Thread):
            words.append(label(step))
    return ", ".join(words) or "a copy"


def _folded(line: str) -> Iterator[str]:
    """A long line of a description as several, indented as the first."""
    indent = " " * (len(line) - len(line.lstrip()))
    while len(line) > WIDTH and (end := line.rfind(" ", 0, WIDTH)) > len(indent):
        yield line[:end].rstrip()
        line = f"{indent}    {line[end + 1 :]}"
    yield line


def laid_out(line: str) -> Iterator[str]:
    """A long statement whose last part is a call, with the call's arguments on lines of their own."""
    start = _last_call(line)
    if len(line) <= WIDTH or start < 0:
        yield line
        return
    indent = " " * (len(line) - len(line.lstrip()))
    inner, close = line[start + 1 : line.rindex(")")], line[line.rindex(")") :]
    yield line[: start + 1]
    if len(indent) + 4 + len(inner) <= WIDTH:
        yield f"{indent}    {inner}"
    else:
        for argument in _arguments(inner):
            yield from laid_out(f"{indent}    {argument},")
    yield f"{indent}{close}"


def _last_call(line: str) -> int:
    """Where the parenthesis opens that the last one closes."""
    if not line.rstrip(",:").endswith(")"):
        return -1
    depth = 0
    for place in range(line.rindex(")"), -1, -1):
        depth += (line[place] in ")]") - (line[place] in "([")
        if depth == 0:
            return place
    return -1


def _arguments(inner: str) -> Iterator[str]:
    depth, start = 0, 0
    for place, letter in enumerate(inner):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            yield inner[start:place].strip()
            start = place + 1
    yield inner[start:].strip()


# The wrapper ---------------------------------------------------------------------------------------------------------


def _wrapper(
    steps: Steps,
    launches: Sequence[Launch],
    kernels: Sequence[Written],
    choices: Sequence[Choice],
    parameters: Sequence[str],
) -> Iterator[str]:
    names = [name for name, _ in steps.inputs]
    own = [name for name, tensor in steps.inputs if tensor.name in parameters]
    given = [name for name in names if name not in own]
    yield f"def kernel_function({', '.join([*given, *(['*', *own] if own else [])])}):"
    for name, tensor in steps.inputs:
        if not steps.named:
            yield f"    if tuple({name}.shape) != {tensor.dims}:"
            yield f'        raise ValueError(f"{name} must have the shape {tensor.dims}, not {{tuple({name}.shape)}}.")'
    lines = [*_launches(steps, launches, kernels, choices), f"    return {', '.join(steps.outputs)}"]
    used = set(re.findall(r"\w+", "\n".join(lines)))
    for name, expression in reversed(steps.counted):
        used |= set(re.findall(r"\w+", expression)) if name in used else set()
    for name, place, dim in steps.symbols:
        if name in used:
            yield f"    {name} = {names[place]}.shape[{dim}]"
    for name, expression in steps.counted:
        if name in used:
            yield f"    {name} = {expression}"
    yield from lines


def _launches(
    steps: Steps, launches: Sequence[Launch], kernels: Sequence[Written], choices: Sequence[Choice]
) -> Iterator[str]:
    device = f"{steps.inputs[0][0]}.device"
    number = 0
    for step in steps.steps:
        if not isinstance(step, Launch):
            yield f"    {step.text}"
            continue
        kernel, choice = kernels[number], choices[number]
        suffix = f"_{number}" if len(launches) > 1 else ""
        number += 1
        for name, sizes, dtype in zip(step.outputs, step.sizes, step.plan.dtypes, strict=True):
            dims = ", ".join(size.text for size in sizes) + ("," if len(sizes) == 1 else "")
            yield f"    {name} = torch.empty(({dims}), device={device}, dtype={TORCH[dtype]})"
        yield from _launch(step, kernel, choice, suffix, [name for name, _ in steps.inputs])


def _launch(step: Launch, kernel: Written, choice: Choice, suffix: str, inputs: Sequence[str]) -> Iterator[str]:
    device = f"{inputs[0]}.device"
    constants = {name: f"{name}{suffix}" for name, _ in kernel.constants}
    plain = [(constants[name], value) for name, value in kernel.constants if isinstance(value, int)]
    if plain:
        yield f"    {', '.join(name for name, _ in plain)} = {', '.join(str(value) for _, value in plain)}"
    least = _least(step, choice)
    for name, value in kernel.constants:
        if isinstance(value, Size):
            power = f"triton.next_power_of_2({value.text})"
            yield f"    {constants[name]} = {f'max({power}, {least[name]})' if least[name] > 1 else power}"
    total = _total(step, choice, constants)
    buffers = list(kernel.buffers)
    if kernel.scratch:
        tiles = total
        yield f"    tiles{suffix} = {tiles}"
        names = [name for name in buffers if name.startswith("partials")]
        for name, cells in zip(names, kernel.scratch, strict=True):
            size = _renamed(cells, constants)
            yield (
                f"    {name} = torch.empty(tiles{suffix} * {constants['SPLIT']} * {size}, "
                f"device={device}, dtype=torch.float32)"
            )
        count = f"tiles{suffix} * ({constants['SPLIT']} + 1)" if choice.together else f"tiles{suffix}"
        buffers[buffers.index("tickets")] = f'tickets({device}, "{step.plan.name}", {count})'
        total = f"tiles{suffix} * {constants['SPLIT']}"
    elif choice.programs:
        total = f"min({choice.programs}, {total})"
    given = [f"{name}.contiguous()" if name in inputs else name for name in buffers]
    tiled = [_tiled(tile, constants, inputs) for tile in kernel.tiled]
    arguments = [*tiled, *given, *kernel.symbols, *(f"{name}={constants[name]}" for name, _ in kernel.constants)]
    arguments += kernel.launch or [f"num_warps={choice.warps}", f"num_stages={choice.stages}"]
    yield f"    {step.plan.name}[({total},)]({', '.join(arguments)})"


def _tiled(tile: Descriptor, constants: dict[str, str], inputs: Sequence[str]) -> str:
    """A descriptor of whole tensors, as an argument."""
    buffer = f"{tile.buffer}.contiguous()" if tile.buffer in inputs else tile.buffer
    shape, strides = (", ".join(size.text for size in sizes) for sizes in (tile.shape, tile.strides))
    block = ", ".join(constants.get(name, name) for name in tile.block)
    if tile.dtype is None:
        return f"TensorDescriptor({buffer}, [{shape}], [{strides}], [{block}])"
    layout = f"gl.NVMMASharedLayout.get_default_for([{block}], {GL[tile.dtype]})"
    return f"GluonDescriptor({buffer}, [{shape}], [{strides}], [{block}], {layout})"


def _least(step: Launch, choice: Choice) -> dict[str, int]:
    """The matrix units take no fewer than 16 elements; rows that windows see are split into lanes."""
    del choice
    return {
        f"BLOCK_{name.upper()}": 16 if axis.dot else LEAST_ROW if axis.kind == "seen" else 1
        for name, axis in zip(step.plan.names, step.plan.axes.axes, strict=True)
    }


def _total(step: Launch, choice: Choice, constants: dict[str, str]) -> str:
    """How many tiles there are, as the wrapper says it."""
    plan = step.plan
    parts = []
    for grid in grid_order(plan, choice.order):
        axis = plan.axes.grid[grid]
        if axis is None:
            parts.append(plan.counts[grid].text)
        else:
            parts.append(f"triton.cdiv({plan.sizes[axis].text}, {constants[f'BLOCK_{plan.names[axis].upper()}']})")
    return " * ".join(parts) or "1"


def _renamed(cells: str, constants: dict[str, str]) -> str:
    return " * ".join(constants.get(part, part) for part in cells.split(" * "))


# In a line -----------------------------------------------------------------------------------------------------------


def note(steps: Steps, choices: Sequence[Choice]) -> str:
    """How kernels are tiled and launched."""
    launches = [step for step in steps.steps if isinstance(step, Launch)]
    parts = []
    for launch, choice in zip(launches, choices, strict=True):
        tiles = zip(launch.plan.names, launch.plan.axes.axes, choice.blocks, strict=True)
        held = [f"{name} {block}" for name, axis, block in tiles if axis.kind != "seen"]
        words = [" x ".join(held) or "one element"]
        words += [f"{choice.warps} warps"]
        words += [f"{choice.stages} stages"] if choice.stages > 1 else []
        words += ["prefetched"] if choice.prefetch else []
        words += ["descriptors"] if choice.descriptors and not choice.consumers else []
        words += [f"a warp copies for {choice.consumers} that multiply"] if choice.consumers else []
        words += ["side by side"] if choice.wide else []
        words += ["walked"] if choice.walk else []
        words += ["gathered"] if choice.gather else []
        words += [f"split in {choice.split}{' together' * choice.together}"] if choice.split > 1 else []
        words += ["strips"] if choice.group else []
        words += [f"{choice.programs} programs"] if choice.programs else []
        parts.append(f"{launch.plan.name}: {', '.join(words)}")
    return "; ".join(parts)
