"""Loops that programs share: each leaves what it has for the others of its tile, and it is put together.

`tiles` are the places of whole tiles; where each program finishes a slice of its tile, that has places of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilesmith.core.graph import Accumulate
from tilesmith.superopt.lower.axes import Rows
from tilesmith.superopt.lower.options import UNROLLED
from tilesmith.superopt.lower.places import Lines, Places, at
from tilesmith.superopt.lower.plan import Plan
from tilesmith.superopt.lower.values import LOW, Value, spread

LOOKS = 64
"""How often a program looks whether the others of its tile have come: some tens of microseconds."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What a program carries over its share of a loop."""

    plan: Plan
    peaks: dict[int, str]
    """By scores, their running maximum."""
    state: dict[int, str]
    """What an accumulator is carried in."""

    @property
    def rows(self) -> dict[str, Rows]:
        """By name; maxima of scores first."""
        known = self.plan.axes.rows
        made = {name: (*known[scores][:-1], ()) for scores, name in self.peaks.items()}
        return made | {name: known[value] for value, name in self.state.items() if name not in made}

    @property
    def maxima(self) -> set[str]:
        return {self.state[value] for value, step in self._accumulators() if step.how == "max"} | {*self.peaks.values()}

    def rescaled(self, scores: int) -> list[str]:
        """The sums that shrink when the maximum of scores grows."""
        found = self._accumulators()
        return [self.state[value] for value, step in found if step.how == "rescale" and step.operands[0] == scores]

    def _accumulators(self) -> Iterator[tuple[int, Accumulate]]:
        kernel = self.plan.kernel
        return ((v, s) for v, s in enumerate(kernel.body, len(kernel.loads)) if isinstance(s, Accumulate))


def last_adds(tiles: Places, out: Lines, carried: Carried) -> None:
    """Every program of a tile leaves what it has; the last to arrive puts it together and goes on."""
    spots = _left(tiles, out, carried)
    out('if tl.atomic_add(tickets_ptr + tile, 1, sem="acq_rel") == SPLIT - 1:')
    out.indent = 1
    _begin(tiles, out, carried)
    # The loads of an unrolled loop wait together.
    out(f"for other in {'tl.static_range' if tiles.choice.split <= UNROLLED else 'range'}(SPLIT):")
    _add_others(tiles, tiles, out, carried, spots)


def all_add(tiles: Places, out: Lines, carried: Carried, axis: int) -> tuple[Places, Lines, Carried]:
    """Every program of a tile leaves what it has, waits a little for the others, and adds a slice of the tile.

    SPLIT programs come in every call, so that the count needs no reset. Whoever has not seen all others after LOOKS
    looks marks its slice with this call's goal and counts once more: either all have come by then, or the last to
    come finds the mark and takes the slice. So nothing depends on programs running at once, and where they do, the
    last reads all marks at once and goes on as the others.

    Answers where a slice lies, the statements for one slice, and what is carried of it.
    """
    _left(tiles, out, carried)
    out("count_ptr = tickets_ptr + tile * (SPLIT + 1)")
    out('ticket = tl.atomic_add(count_ptr, 1, sem="acq_rel")')
    out("goal = ticket - ticket % SPLIT + SPLIT")
    out("come = ticket + 1")
    out("looks = 0")
    out("while (come != goal) & (looks < LOOKS):")
    out('    come = tl.atomic_add(count_ptr, 0, sem="acquire")')
    out("    looks += 1")
    out("if come != goal:")
    out("    tl.atomic_xchg(count_ptr + 1 + part, goal)")
    out('    come = tl.atomic_add(count_ptr, 0, sem="acq_rel")')
    out("own_slices = tl.where(come == goal, 1, 0)")
    out("if ticket + 1 == goal:")
    out('    marks = tl.load(count_ptr + 1 + tl.arange(0, SPLIT), cache_modifier=".cg")')
    out("    own_slices = tl.where(tl.max(tl.where(marks == goal, 1, 0), axis=0) > 0, SPLIT, 1)")
    out("for turn in range(0, own_slices):")
    out("    own = (part + turn) % SPLIT")
    out("    mark = goal")
    out("    if turn > 0:")
    out('        mark = tl.load(count_ptr + 1 + own, cache_modifier=".cg")')
    out("    if mark == goal:")
    places, inner = tiles.sliced(axis, "own"), Lines(tiles.names)
    new = {name: tiles.names.new(f"own_{name}") for name in carried.rows}
    own = Carried(
        carried.plan,
        {scores: new[name] for scores, name in carried.peaks.items()},
        {value: new[name] for value, name in carried.state.items()},
    )
    _begin(places, inner, own)
    spots = {name: _spots(tiles, places, inner, rows, axis) for name, rows in own.rows.items()}
    inner("for other in tl.static_range(SPLIT):")
    _add_others(tiles, places, inner, own, spots)
    return places, inner, own


def partials(place: int) -> str:
    """The buffer that one of the values carried is left in."""
    return "partials" if not place else f"partials{place + 1}"


def cells(tiles: Places, rows: Rows) -> str:
    """How many elements a program holds of a value."""
    return " * ".join(tiles.block(axis) for row in rows for axis in row) or "1"


def _left(tiles: Places, out: Lines, carried: Carried) -> dict[str, str]:
    """Leave what this program has where the others of its tile find it."""
    spots = {name: _spots(tiles, tiles, out, rows) for name, rows in carried.rows.items()}
    for place, (name, rows) in enumerate(carried.rows.items()):
        mask = tiles.mask([row for row in rows if row])
        address = _spot(tiles, place, rows, spots[name], "part")
        out(f"tl.store({address}, {name}{f', mask={mask}' if mask else ''})")
    # All warps have stored before the ticket is drawn.
    out("tl.debug_barrier()")
    return spots


def _begin(places: Places, out: Lines, carried: Carried) -> None:
    maxima = carried.maxima
    for name, rows in carried.rows.items():
        shape = places.shape([row for row in rows if row]) if any(rows) else "()"
        out(f"{name} = tl.full({shape}, {LOW if name in maxima else '0.0'}, tl.float32)")


def _add_others(tiles: Places, places: Places, out: Lines, carried: Carried, spots: dict[str, str]) -> None:
    """The body of the loop over the programs of a tile: what each left, added."""
    out.indent += 1
    parts = {}
    for place, (name, rows) in enumerate(carried.rows.items()):
        mask = places.mask([row for row in rows if row])
        masked = f", mask={mask}, other=0.0" if mask else ""
        address = _spot(tiles, place, rows, spots[name], "other")
        parts[name] = out.say(f"part_{name}", f'tl.load({address}{masked}, cache_modifier=".cg")')
    _put_together(out, carried, parts)
    out.indent -= 1


def _put_together(out: Lines, carried: Carried, parts: dict[str, str]) -> None:
    rows, done = carried.rows, set(carried.peaks.values())
    for scores, peaks in carried.peaks.items():
        new = out.say(f"new_{peaks}", f"tl.maximum({peaks}, {parts[peaks]})")
        # A share without elements has a maximum of -inf, and nothing to add.
        old = out.say("shrink", f"tl.where({peaks} == {new}, 1.0, tl.exp({peaks} - {new}))")
        own = out.say("own_shrink", f"tl.where({parts[peaks]} == {new}, 1.0, tl.exp({parts[peaks]} - {new}))")
        for name in carried.rescaled(scores):
            before, after = (spread(Value(rows[peaks], factor), rows[name]) for factor in (old, own))
            out(f"{name} = {name} * {before} + {parts[name]} * {after}")
            done.add(name)
        out(f"{peaks} = {new}")
    for name in rows:
        if name not in done and name in carried.maxima:
            out(f"{name} = tl.maximum({name}, {parts[name]})")
        elif name not in done:
            out(f"{name} += {parts[name]}")


def _spots(tiles: Places, places: Places, out: Lines, rows: Rows, sliced: int | None = None) -> str:
    """Where the elements of a tile, or of its slice along an axis, lie in a buffer of its own."""
    present = [row for row in rows if row]
    terms = []
    for place, row in enumerate(present):
        inner = " * ".join(tiles.shape([other])[1:-2] for other in present[place + 1 :])
        width = places.shape([row])[1:-2]
        index = f"tl.arange(0, {width})"
        index = at(f"(own * {width} + {index})" if row == (sliced,) else index, place, len(present))
        terms.append(f"{index} * {inner}" if inner else index)
    return out.say("spots", " + ".join(terms)) if terms else ""


def _spot(tiles: Places, place: int, rows: Rows, spots: str, part: str) -> str:
    base = f"{partials(place)}_ptr + (tile * SPLIT + {part})"
    return f"{base} * ({cells(tiles, rows)}) + {spots}" if spots else base
