"""What windows see, as Triton statements: loads for every tap, or rows to gather from, and planes that are carried.

A maximum does not change when an element is compared twice. So what a window would see beyond an edge is replaced by
the nearest of its taps that is inside, as a row's number and not as a mask: loads stay plain. Two windows that share an
element beyond an edge share what stands for it, too: it depends on where the element is and not on the window. Maxima
are found in the dtype of the tensor, which is exact, and packs two elements in a register.

Sums have zeros beyond the edges, and are added in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from tilesmith.core.graph import Op
from tilesmith.core.problem import Dtype
from tilesmith.superopt.lower.axes import Rows, Viewed
from tilesmith.superopt.lower.options import Choice
from tilesmith.superopt.lower.places import Lines, Names, Places, at, operand
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.sizes import View
from tilesmith.superopt.lower.text import TL
from tilesmith.superopt.lower.windows import UNROLLED, Delay, delays, parts


class Windows:
    """The windows of one operator. `plan` is that of a program that walks, where it does."""

    def __init__(self, plan: Plan, choice: Choice, places: Places, names: Names, out: Lines, value: int) -> None:
        self.plan, self.choice, self.places, self.names, self.out = plan, choice, places, names, out
        step = plan.kernel.body[value - len(plan.kernel.loads)]
        assert isinstance(step, Op), "windows are an operator's"
        self.load, self.largest = step.operands[0], step.operator == "max_pool"
        self.views = [view for view in plan.axes.views if view.value == value]
        self.rows = plan.axes.rows[value]
        source = plan.sources[self.load]
        assert source is not None, "a number has no windows"
        self.source = source
        self.dtype: Dtype = source.dtype if self.largest else "fp32"
        self.low = 'float("-inf")' if self.largest else "0.0"
        self.held = self._held()
        self.image: View | None = None
        self.spots: dict[tuple[int, int], tuple[str, str]] = {}
        """By dimension and tap where it is, and what of it is inside."""
        self.now: list[str] = []
        """For every tap along the walk what it sees now."""
        self.coming: dict[int, list[str]] = {}
        """For taps that see new planes the tiles of the next place, where those are loaded ahead."""

    def _held(self) -> Rows:
        """The rows of what is held before anything is gathered."""
        last = self.views[-1]
        if not self.choice.gather or last.seen is None:
            return self.rows
        return (*self.rows[: last.dim], (last.seen,), *self.rows[last.dim + 1 :])

    def all(self) -> str:
        """What all windows of a tile see, in float32."""
        views = self.views[:-1] if self.choice.gather else self.views
        return self._gathered(self._seen(views, {}, "", "seen"))

    def _word(self, view: Viewed) -> str:
        return self.plan.names[view.seen] if view.seen is not None else "spot"

    def _size(self, view: Viewed) -> str:
        return "1" if view.seen is None else self.names.size(self.plan.sizes[view.seen])

    # Taps ------------------------------------------------------------------------------------------------------------

    def _seen(self, views: Sequence[Viewed], spots: dict[int, str], mask: str, word: str) -> str:
        """What windows see along some dimensions, at `spots` along others; its name."""
        if math.prod(view.window.size for view in views) > UNROLLED:
            return self._looped(views, spots, mask, word)
        tiles = [self.out.say(self._buffer, load) for load in self._loads(views, spots, mask)]
        return self._joined([self._wide(tile) for tile in tiles], word)

    def _loads(self, views: Sequence[Viewed], spots: dict[int, str], mask: str) -> Iterator[str]:
        """Expressions that load a tile for each tap along some dimensions."""
        for taps in product(*(range(view.window.size) for view in views)):
            found = {view.dim: self._spot(view, tap) for view, tap in zip(views, taps, strict=True)}
            masks = [*([mask] if mask else []), *(inside for _, inside in found.values() if inside)]
            yield self._load(spots | {dim: spot for dim, (spot, _) in found.items()}, masks)

    def _looped(self, views: Sequence[Viewed], spots: dict[int, str], mask: str, word: str) -> str:
        """The same, one tap after another."""
        present = [row for row in self.held if row]
        shape = self.places.shape(present) if present else "()"
        name, depth = self.out.say(word, f"tl.full({shape}, {self.low}, {TL[self.dtype]})"), self.out.indent
        found, masks = dict(spots), [mask] if mask else []
        for view in views:
            tap = self.names.new(f"{self._word(view)}_tap")
            self.out(f"for {tap} in range({view.window.size}):")
            self.out.indent += 1
            scaled = f"{tap} * {view.window.dilation}" if view.window.dilation > 1 else tap
            spot = self.out.say(f"{self._word(view)}_seen", self._position(view, scaled, -view.window.padding))
            most = -(-view.window.padding // view.window.dilation)
            inside = self._kept(self.out, view, spot, most, most)
            found[view.dim], masks = spot, [*masks, *([inside] if inside else [])]
        tile = self.out.say(self._buffer, self._load(found, masks))
        self.out(f"{name} = {self._pair(name, self._wide(tile))}")
        self.out.indent = depth
        return name

    def _position(self, view: Viewed, tap: str, shift: int) -> str:
        """Where a tap is, for the places of the tile."""
        row = self.held[view.dim]
        place = self.places.vector(row) if row else ""
        if row and self.largest and self.plan.pads(row[0], self.choice.blocks[row[0]]):
            # Places of a ragged tile see what the last one sees.
            place = f"tl.minimum({place}, {self.names.size(self.plan.sizes[row[0]])} - 1)"
        return _sum(place, view.window.stride, tap, shift)

    def _spot(self, view: Viewed, tap: int) -> tuple[str, str]:
        """Where a tap is, as a name; and a mask of what is inside, if it is needed. The same in every iteration."""
        if (view.dim, tap) not in self.spots:
            window = view.window
            made = self._position(view, "", tap * window.dilation - window.padding)
            spot = self.names.new(f"{self._word(view)}_{tap}")
            self.places.head(f"{spot} = {made}")
            low, high = _beyond(view, tap)
            inside = self._kept(self.places.head, view, spot, low, high)
            self.spots[view.dim, tap] = spot, inside
        return self.spots[view.dim, tap]

    def _kept(self, out: Lines, view: Viewed, spot: str, low: int, high: int) -> str:
        """Keep a spot inside that may be so many taps before or behind: by other spots, or by the mask that is told."""
        if not low and not high:
            return ""
        size, apart = self._size(view), view.window.dilation
        if self.largest:
            for _ in range(low):
                out(f"{spot} = tl.where({spot} < 0, {spot} + {apart}, {spot})")
            for _ in range(high):
                out(f"{spot} = tl.where({spot} < {size}, {spot}, {spot} - {apart})")
            return ""
        name = self.names.new(f"{spot}_inside")
        out(f"{name} = {_between(spot if low else '', spot if high else '', size)}")
        return self._lying(name, view.dim) if self.held[view.dim] else name

    def _lying(self, name: str, dim: int) -> str:
        present = [other for other, row in enumerate(self.held) if row]
        return at(name, present.index(dim), len(present))

    @property
    def _buffer(self) -> str:
        return self.source.buffer.lower()

    def _wide(self, tile: str) -> str:
        """What was loaded in the dtype in which it is joined."""
        return tile if self.dtype == self.source.dtype else f"{tile}.to({TL[self.dtype]})"

    def _load(self, spots: dict[int, str], masks: Sequence[str]) -> str:
        """The expression that loads a tile of taps."""
        uncut, lead = [(None, False)] * len(self.held), dict.fromkeys(range(self.views[0].dim), "0")
        address = self.places.address(self._image(), self.held, uncut, spots=lead | spots)
        for view in self.views:
            if view.seen is None and self.held[view.dim]:
                # All places look at a single element.
                address += f" + 0 * {self._lying(self.places.vector(self.held[view.dim]), view.dim)}"
        places = {view.places for view in self.views}
        axes = [axis for row in self.held for axis in row if not self.largest or axis not in places]
        ragged = self.places.mask([row for row in self.held if row], axes)
        mask = " & ".join([*([ragged] if ragged else []), *masks])
        other = "" if self.largest else ", other=0.0"
        return f"tl.load({address}{f', mask={mask}{other}' if mask else ''})"

    def _image(self) -> View:
        """What windows look at as a view that begins with this program's image, or images."""
        if self.image is None:
            imap = self.plan.kernel.loads[self.load].imap
            cuts = [(imap.index(dim) if dim in imap else None, False) for dim in range(len(self.held))]
            begins = self.places.address(self.source, self.held, cuts, spots={view.dim: "0" for view in self.views})
            name = self.source.buffer
            if begins != f"{name}_ptr":
                name = self.names.new("image")
                self.places.head(f"{name}_ptr = {begins}")
            self.image = replace(self.source, buffer=name, offset=0)
        return self.image

    def _pair(self, left: str, right: str) -> str:
        if not self.largest:
            return f"{left} + {right}"
        # It widens bfloat16; to narrow it again is exact, and leaves one instruction for two elements.
        narrow = ".to(tl.bfloat16)" if self.dtype == "bf16" else ""
        return f"tl.maximum({left}, {right}, propagate_nan=tl.PropagateNan.ALL){narrow}"

    def _joined(self, seen: Sequence[str], word: str) -> str:
        """What several taps see, as one; its name."""
        if len(seen) == 1 and seen[0].isidentifier():
            return seen[0]
        if len(seen) == 1 or not self.largest:
            return self.out.say(word, " + ".join(seen))
        name = self.out.say(word, self._pair(*seen[:2]))
        for other in seen[2:]:
            self.out(f"{name} = {self._pair(name, other)}")
        return name

    # Gathering -------------------------------------------------------------------------------------------------------

    def _gathered(self, held: str) -> str:
        """What windows see along the last dimension of what is held, in float32."""
        view = self.views[-1]
        wide = held if self.dtype == "fp32" else f"{held}.to(tl.float32)"
        if not self.choice.gather or view.seen is None:
            return wide
        if self.dtype != "fp32":
            wide = self.out.say(f"{held}_wide", wide)
        self.dtype = "fp32"
        lanes = self._lanes(wide, parts(view.window))
        return self._joined([self._tapped(lanes, tap) for tap in range(view.window.size)], "made")

    def _lanes(self, held: str, count: int) -> list[str]:
        """Every so many-th element of rows: those that some taps see lie side by side."""
        view = self.views[-1]
        lanes, left = [held], count
        if count == 1:
            return lanes
        rows = [row for row in self.held if row]
        width = self.places.block(view.seen or 0)
        before = [self.places.shape([row])[1:-2] for row in rows[:-1]]
        twos = [2] * (count.bit_length() - 1)
        shape = ", ".join([*before, f"{width} // {count}", *map(str, twos)])
        lanes = [self.out.say("lanes", f"tl.reshape({held}, ({shape}))")]
        while left > 1:
            # The last dimension is the lowest bit of an element's number: what it splits goes side by side.
            halves = []
            for lane in lanes:
                pair = self.names.new("even"), self.names.new("odd")
                self.out(f"{pair[0]}, {pair[1]} = tl.split({lane})")
                halves.append(pair)
            lanes = [first for first, _ in halves] + [second for _, second in halves]
            left //= 2
        return lanes

    def _tapped(self, lanes: Sequence[str], tap: int) -> str:
        """What one tap sees of rows; its name."""
        view, count = self.views[-1], len(lanes)
        window, row, size = view.window, self.rows[view.dim], self._size(view)
        present = [other for other in self.rows if other]
        rank, axis = len(present), sum(1 for other in self.rows[: view.dim] if other)
        # Element s·o + c of a row is element (s / n)·o + c div n of the lane c mod n.
        shift, lane = divmod(tap * window.dilation - window.padding, count)
        head, place = self.places.head, self.places.vector(row)
        spot = self.names.new(f"{self._word(view)}_{tap}")
        head(f"{spot} = {_sum(place, window.stride // count, '', shift)}")
        low, high = _beyond(view, tap)
        inside = ""
        if low or high:
            inside = self.names.new(f"{spot}_inside")
            scaled = f"{spot} * {count} + {lane}" if count > 1 else spot
            head(f"{inside} = {_between(spot if low else '', scaled if high else '', size)}")
        held = self.places.block(view.seen or 0)
        held = f"{held} // {count}" if count > 1 else held
        head(f"{spot} = tl.minimum(tl.maximum({spot}, 0), {held} - 1)")
        spread = self.out.say("spots", f"tl.broadcast_to({at(spot, axis, rank)}, {self.places.shape(present)})")
        tapped = f"tl.gather({lanes[lane]}, {spread}, {axis})"
        return self.out.say("tapped", f"tl.where({at(inside, axis, rank)}, {tapped}, {self.low})" if inside else tapped)

    # Walking ---------------------------------------------------------------------------------------------------------

    def _walked(self) -> tuple[Viewed, int, str]:
        """The dimension of the walk, the axis of its places, and what that is called."""
        view = self.views[0]
        assert view.places is not None, "there is somewhere to walk"
        return view, view.places, self.plan.names[view.places]

    def _plane(self, place: str, tap: int, word: str, beyond: bool = False) -> str:
        """What the tile's windows see of one plane: that of a tap at a place, which may be beyond the last one."""
        return self._seen(self._across, *self._at(place, tap, beyond), word)

    @property
    def _across(self) -> Sequence[Viewed]:
        """The dimensions of a plane whose taps are loaded."""
        return self.views[1:-1] if self.choice.gather else self.views[1:]

    def _at(self, place: str, tap: int, beyond: bool = False) -> tuple[dict[int, str], str]:
        """Which plane it is, and a mask of whether there is such."""
        view, _, _ = self._walked()
        window = view.window
        shift = tap * window.dilation - window.padding
        spot = self.out.say(f"{self._word(view)}_at", _sum(place, window.stride, "", shift))
        low, high = _beyond(view, tap)
        mask = self._kept(self.out, view, spot, low, high)
        if beyond:
            # Nobody sees it: it only has to be memory.
            self.out(f"{spot} = tl.minimum({spot}, {self._size(view)} - 1)")
        return {view.dim: spot}, mask

    def begin(self) -> dict[Delay, list[str]]:
        """The planes that the first windows see and later taps would have seen before, the oldest first."""
        view, axis, name = self._walked()
        grid = self.plan.axes.axes[axis].grid
        assert grid is not None, "places are walked over the grid"
        self.names.taken |= {f"{name}_first", f"{name}_stop"}
        block = self.places.block(axis)
        self.out(f"{name}_first = {self.places.ids[grid]} * {block}")
        self.out(f"{name}_stop = tl.minimum({name}_first + {block}, {self.names.size(self.plan.sizes[axis])})")
        self.places.ids[grid] = name
        queues: dict[Delay, list[str]] = {}
        for delay in delays(view.window):
            places = [f"{name}_first + {ahead}" if ahead else f"{name}_first" for ahead in range(delay.places)]
            planes = [self._plane(place, delay.tap, "carried", n > 0) for n, place in enumerate(places)]
            queues[delay] = [
                plane if plane.startswith("carried") else self.out.say("carried", plane) for plane in planes
            ]
        if self.choice.prefetch:
            for tap in self._fresh():
                loads = list(self._loads(self._across, *self._at(f"{name}_first", tap)))
                self.coming[tap] = [self.out.say(f"next_{self._buffer}", load) for load in loads]
        return queues

    def _fresh(self) -> list[int]:
        """Taps of the walk that see what none has seen before."""
        window = self._walked()[0].window
        seen = {delay.tap for delay in delays(window)}
        return [tap for tap in range(window.size) if tap not in seen]

    def line(self) -> str:
        """The head of the loop."""
        _, _, name = self._walked()
        return f"for {name} in range({name}_first, {name}_stop):"

    def next(self, queues: dict[Delay, list[str]]) -> str:
        """What the windows of one place see, in float32."""
        view, _, name = self._walked()
        planes = {delay.tap: queue[0] for delay, queue in queues.items()}
        tiles = {tap: [self.out.say(self._buffer, tile) for tile in coming] for tap, coming in self.coming.items()}
        if tiles:
            # Behind the last place it is that once more.
            ahead = self.out.say("ahead", f"tl.minimum({name} + 1, {name}_stop - 1)")
            for tap, coming in self.coming.items():
                for tile, load in zip(coming, self._loads(self._across, *self._at(ahead, tap)), strict=True):
                    self.out(f"{tile} = {load}")
        for tap in self._fresh():
            loaded = [self._wide(tile) for tile in tiles.get(tap, ())]
            planes[tap] = self._joined(loaded, "plane") if loaded else self._plane(name, tap, "plane")
        self.now = [planes[tap] for tap in range(view.window.size)]
        return self._gathered(self._joined(self.now, "seen"))

    def shift(self, queues: dict[Delay, list[str]]) -> None:
        """What was seen moves on by a place. A queue takes what another begins with before that moves on."""
        for delay, queue in queues.items():
            for old, new in zip(queue, [*queue[1:], self.now[delay.of]], strict=True):
                self.out(f"{old} = {new}")


def _sum(place: str, scale: int, tap: str, shift: int) -> str:
    terms = [f"{operand(place)} * {scale}" if scale > 1 else place] if place else []
    made = " + ".join([*terms, *([tap] if tap else [])])
    if not made:
        return str(shift)
    return f"{made} {'-' if shift < 0 else '+'} {abs(shift)}" if shift else made


def _between(least: str, most: str, size: str) -> str:
    if least and most:
        return f"({least} >= 0) & ({most} < {size})"
    return f"{least} >= 0" if least else f"{most} < {size}"


def _beyond(view: Viewed, tap: int) -> tuple[int, int]:
    """How many taps a tap may be before the first element, and behind the last: none without padding."""
    window = view.window
    after = window.size - 1 - tap
    return tuple(max(0, -(-(window.padding - n * window.dilation) // window.dilation)) for n in (tap, after))  # type: ignore[return-value]
