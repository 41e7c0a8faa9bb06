"""What windows see, as Triton statements: loads for every tap, or rows to gather from, and planes that are carried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tilesmith.core.graph import Op
from tilesmith.superopt.lower.axes import Row, Rows, Viewed
from tilesmith.superopt.lower.options import Choice
from tilesmith.superopt.lower.places import Lines, Names, Places, at, operand
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.sizes import View
from tilesmith.superopt.lower.windows import Delay, delays

UNROLLED = 64
"""Taps that are written out by the compiler; of more it makes loops."""


class Windows:
    """The windows of one operator. `plan` is that of a program that walks, where it does."""

    def __init__(self, plan: Plan, choice: Choice, places: Places, names: Names, out: Lines, value: int) -> None:
        self.plan, self.choice, self.places, self.names, self.out = plan, choice, places, names, out
        step = plan.kernel.body[value - len(plan.kernel.loads)]
        assert isinstance(step, Op), "windows are an operator's"
        self.op, self.load = step, step.operands[0]
        self.views = [view for view in plan.axes.views if view.value == value]
        self.rows = plan.axes.rows[value]
        source = plan.sources[self.load]
        assert source is not None, "a number has no windows"
        self.source = source
        self.low = 'float("-inf")' if step.operator == "max_pool" else "0.0"
        unrolled = math.prod(view.window.size for view in self.views) <= UNROLLED
        self.range = "tl.static_range" if unrolled else "range"
        self.image: View | None = None
        self.now: dict[int, str] = {}
        """By tap along the walk what it sees now."""

    # What is held ----------------------------------------------------------------------------------------------------

    def _held(self) -> Rows:
        """The rows of what is held before anything is gathered."""
        last = self.views[-1]
        if not self.choice.gather or last.seen is None:
            return self.rows
        return (*self.rows[: last.dim], (last.seen,), *self.rows[last.dim + 1 :])

    def _full(self, rows: Rows) -> str:
        present = [row for row in rows if row]
        shape = self.places.shape(present) if present else "()"
        return f"tl.full({shape}, {self.low}, tl.float32)"

    def _joined(self, left: str, right: str) -> str:
        if self.op.operator == "max_pool":
            return f"tl.maximum({left}, {right}, propagate_nan=tl.PropagateNan.ALL)"
        return f"{left} + {right}"

    # All at once -----------------------------------------------------------------------------------------------------

    def all(self) -> str:
        """The name of what all windows of a tile see."""
        views = self.views[:-1] if self.choice.gather else self.views
        return self._gathered(self._taps(views, {}, [], "seen"))

    def _taps(self, views: Sequence[Viewed], known: dict[int, str], masks: list[str], word: str) -> str:
        """What windows see along some dimensions, at `known` spots along others, where `masks` hold; its name."""
        name, rows = self.names.new(word), self._held()
        self.out(f"{name} = {self._full(rows)}")
        depth = self.out.indent
        spots, masks = dict(known), list(masks)
        for view in views:
            masks += self._tap(view, spots, rows)
        uncut, lead = [(None, False)] * len(rows), dict.fromkeys(range(self.views[0].dim), "0")
        address = self.places.address(self._image(rows), rows, uncut, spots=lead | spots)
        ragged = self.places.mask([row for row in rows if row])
        mask = " & ".join([*([ragged] if ragged else []), *masks])
        loaded = f"tl.load({address}{f', mask={mask}, other={self.low}' if mask else ''})"
        tapped = self.names.new(self.source.buffer.lower())
        self.out(f"{tapped} = {loaded}")
        wide = tapped if self.source.dtype == "fp32" else f"{tapped}.to(tl.float32)"
        self.out(f"{name} = {self._joined(name, wide)}")
        self.out.indent = depth
        return name

    def _image(self, rows: Rows) -> View:
        """What windows look at as a view that begins with this program's image, or images."""
        if self.image is None:
            imap = self.plan.kernel.loads[self.load].imap
            cuts = [(imap.index(dim) if dim in imap else None, False) for dim in range(len(rows))]
            begins = self.places.address(self.source, rows, cuts, spots={view.dim: "0" for view in self.views})
            name = self.source.buffer
            if begins != f"{name}_ptr":
                name = self.names.new("image")
                self.places.head(f"{name}_ptr = {begins}")
            self.image = replace(self.source, buffer=name, offset=0)
        return self.image

    def _tap(self, view: Viewed, spots: dict[int, str], rows: Rows) -> list[str]:
        """Begin the loop over the taps of a window, and say where they are; and what is inside."""
        row, window = rows[view.dim], view.window
        place = self.places.vector(row) if row else "0"
        tap = ""
        if window.size > 1:
            tap = self.names.new(f"{self._word(view)}_tap")
            self.out(f"for {tap} in {self.range}({window.size}):")
            self.out.indent += 1
        spots[view.dim] = self._spot(view, place, tap)
        # Without padding a window that begins inside ends inside.
        return [self._inside(view, spots[view.dim], row, rows)] if window.padding else []

    def _word(self, view: Viewed) -> str:
        return self.plan.names[view.seen] if view.seen is not None else "spot"

    def _spot(self, view: Viewed, place: str, tap: str, shift: int = 0) -> str:
        """Where a tap is at a place, and so many elements on; as a name."""
        window, shift = view.window, shift - view.window.padding
        terms = [] if place == "0" else [f"{operand(place)} * {window.stride}" if window.stride > 1 else place]
        terms += [f"{tap} * {window.dilation}" if window.dilation > 1 else tap] if tap else []
        made = " + ".join(terms) or "0"
        name = self.names.new(f"{self._word(view)}_seen")
        sign = "-" if shift < 0 else "+"
        self.out(f"{name} = {made}{f' {sign} {abs(shift)}' if shift else ''}")
        return name

    def _inside(self, view: Viewed, spot: str, row: Row, rows: Rows) -> str:
        size = self.names.size(self.plan.sizes[view.seen]) if view.seen is not None else "1"
        name = self.names.new(f"{spot}_inside")
        self.out(f"{name} = ({spot} >= 0) & ({spot} < {size})")
        return self._lying(name, view.dim, rows) if row else name

    def _lying(self, name: str, dim: int, rows: Rows) -> str:
        present = [other for other, row in enumerate(rows) if row]
        return at(name, present.index(dim), len(present))

    # Gathering -------------------------------------------------------------------------------------------------------

    def _gathered(self, held: str) -> str:
        """What windows see along the last dimension of what is held."""
        view = self.views[-1]
        if not self.choice.gather or view.seen is None:
            return held
        window, row = view.window, self.rows[view.dim]
        present = [other for other in self.rows if other]
        rank, axis = len(present), sum(1 for other in self.rows[: view.dim] if other)
        name = self.names.new("best" if self.op.operator == "max_pool" else "total")
        self.out(f"{name} = {self._full(self.rows)}")
        depth = self.out.indent
        tap = self.names.new(f"{self._word(view)}_tap")
        self.out(f"for {tap} in {self.range}({window.size}):")
        self.out.indent += 1
        spot = self._spot(view, self.places.vector(row), tap)
        near = f"tl.minimum(tl.maximum({spot}, 0), {self.places.block(view.seen)} - 1)"
        spread = f"tl.broadcast_to({at(operand(near), axis, rank)}, {self.places.shape(present)})"
        spots = self.names.new("spots")
        self.out(f"{spots} = {spread}")
        tapped = f"tl.gather({held}, {spots}, {axis})"
        if window.padding:
            size = self.names.size(self.plan.sizes[view.seen])
            inside = at(f"(({spot} >= 0) & ({spot} < {size}))", axis, rank)
            tapped = f"tl.where({inside}, {tapped}, {self.low})"
        gathered = self.names.new("tapped")
        self.out(f"{gathered} = {tapped}")
        tapped = gathered
        self.out(f"{name} = {self._joined(name, tapped)}")
        self.out.indent = depth
        return name

    # Walking ---------------------------------------------------------------------------------------------------------

    def _walked(self) -> tuple[Viewed, str]:
        view = self.views[0]
        assert view.places is not None, "there is somewhere to walk"
        return view, self.plan.names[view.places]

    def _plane(self, place: str, tap: int, word: str, beyond: bool = False) -> str:
        """What the tile's windows see of one plane: that of a tap at a place, which may be beyond the last one."""
        view, _ = self._walked()
        window = view.window
        spot = self._spot(view, place, "", tap * window.dilation)
        masks = [f"({spot} >= 0)"] if window.padding > tap * window.dilation else []
        if beyond or window.padding > (window.size - 1 - tap) * window.dilation:
            size = "1" if view.seen is None else self.names.size(self.plan.sizes[view.seen])
            masks.append(f"({spot} < {size})")
        views = self.views[1:-1] if self.choice.gather else self.views[1:]
        return self._taps(views, {view.dim: spot}, masks, word)

    def begin(self) -> dict[Delay, list[str]]:
        """The planes that the first windows see and later taps would have seen before, the oldest first."""
        view, name = self._walked()
        grid = self.plan.axes.axes[view.places or 0].grid
        assert grid is not None, "places are walked over the grid"
        tile = self.places.ids[grid]
        self.names.taken |= {f"{name}_first", f"{name}_stop"}
        block, size = self.places.block(view.places or 0), self.names.size(self.plan.sizes[view.places or 0])
        self.out(f"{name}_first = {tile} * {block}")
        self.out(f"{name}_stop = tl.minimum({name}_first + {block}, {size})")
        self.places.ids[grid] = name
        queues: dict[Delay, list[str]] = {}
        for delay in delays(view.window):
            queues[delay] = [
                self._plane(f"{name}_first + {ahead}" if ahead else f"{name}_first", delay.tap, "carried", ahead > 0)
                for ahead in range(delay.places)
            ]
        return queues

    def line(self) -> str:
        """The head of the loop."""
        _, name = self._walked()
        stages = f", num_stages={self.choice.stages}" if self.choice.stages > 1 else ""
        return f"for {name} in {'tl.range' if stages else 'range'}({name}_first, {name}_stop{stages}):"

    def next(self, queues: dict[Delay, list[str]]) -> str:
        """What the windows of one place see."""
        view, name = self._walked()
        carried = {delay.tap: queue[0] for delay, queue in queues.items()}
        fresh = {tap: self._plane(name, tap, "plane") for tap in range(view.window.size) if tap not in carried}
        self.now = carried | fresh
        seen = self.names.new("seen")
        first, *others = (self.now[tap] for tap in range(view.window.size))
        made = first
        for other in others:
            made = self._joined(made, other)
        self.out(f"{seen} = {made}")
        return self._gathered(seen)

    def shift(self, queues: dict[Delay, list[str]]) -> None:
        """What was seen moves on by a place; the taps that see it again come first."""
        for delay, queue in queues.items():
            for old, new in zip(queue, [*queue[1:], self.now[delay.of]], strict=True):
                self.out(f"{old} = {new}")
