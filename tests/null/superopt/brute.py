"""Block graphs by brute force: every way to put operators together, tried on numbers.

The grammar is that of one graph-defined kernel whose dimensions are known by letters, as docs/superopt.md states it:
operators that the program has, tiles of no more dimensions than its largest tensor, a loop over one dimension that some
sum runs over. Nothing is pruned but what has too few operators left to use all that it made, and a value that is there
already. No order is imposed: a graph is a set of steps, and a set that was seen is not looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from brute_values import Algebra, Label, Numbers, Value

Term = tuple  # type: ignore[type-arg]
"""What is computed, nested: ("input", 0), ("add", x, y), ("matmul", x, y, "K"), ("sum", x, "K"), ("apply", f, x),
and in a kernel ("gather", x, "") or ("gather", x, "K"): over the loop, and over what is in the tile besides. A function
is ("exp",), ("scale", "1/16"), ("rms_norm", "K", "1/4096", "1/100000") or another name."""
Function = tuple  # type: ignore[type-arg]

COMMUTE = ("add", "mul", "matmul")
NONE = ""


@dataclass(frozen=True, slots=True)
class Written:
    """A program: letters of its inputs' dimensions, their extents, and what it computes."""

    inputs: tuple[str, ...]
    extents: tuple[tuple[str, int], ...]
    body: Term

    def extent(self, letter: str) -> int:
        return dict(self.extents)[letter]

    def terms(self) -> Iterator[Term]:
        """Every part of it, after what it is made of; repeated where it is used again."""
        stack = [self.body]
        while stack:
            term = stack.pop()
            yield term
            stack += [part for part in term[1:] if isinstance(part, tuple) and term[0] != "apply"]
            if term[0] == "apply":
                stack.append(term[2])

    def letters_of(self, term: Term) -> frozenset[str]:
        match term[0]:
            case "input":
                return frozenset(self.inputs[term[1]])
            case "apply":
                return self.letters_of(term[2])
            case "sum" | "gather":
                return self.letters_of(term[1]) - frozenset(term[2])
            case "matmul":
                return (self.letters_of(term[1]) | self.letters_of(term[2])) - frozenset(term[3])
        return self.letters_of(term[1]) | self.letters_of(term[2])

    def summed(self) -> frozenset[str]:
        sums = [set(term[-1]) for term in self.terms() if term[0] in ("matmul", "sum")]
        norms = [{term[1][1]} for term in self.terms() if term[0] == "apply" and term[1][0] == "rms_norm"]
        return frozenset(letter for letters in sums + norms for letter in letters)

    def sets(self) -> tuple[str, ...]:
        """What one operator may sum over: one dimension, or those that one of the program's does."""
        own = {"".join(sorted(term[-1])) for term in self.terms() if term[0] in ("matmul", "sum")}
        return tuple(sorted(own | {letter for letter, _ in self.extents}))

    def functions(self) -> tuple[Function, ...]:
        found: set[Function] = set()
        for term in self.terms():
            if term[0] != "apply":
                continue
            found.add(term[1])
            if term[1][0] == "rms_norm":
                found |= {("square",), ("scale", term[1][2]), ("shift", term[1][3]), ("sqrt",)}
        return tuple(sorted(found))

    def rank(self) -> int:
        return max(len(self.letters_of(term)) for term in self.terms())

    def operators(self) -> int:
        """Steps of one kernel that computes it as it is written."""
        return len({term for term in self.terms() if term[0] != "input"})


LOOPED = 64
"""The loop may run over dimensions longer than this."""


class Values:
    """All values of a program that brute force came across, each once, by number."""

    def __init__(self, program: Written, algebra: Algebra, seed: int = 1) -> None:
        self.program = program
        self.loops = frozenset(letter for letter in program.summed() if program.extent(letter) > LOOPED)
        labels = [(letter, part) for letter, _ in program.extents for part in ("tl" if letter in self.loops else "t")]
        self.numbers = Numbers(labels, algebra, seed)
        self.known: dict[object, int] = {}
        self.values: list[Value] = []
        self.inputs = [
            self.number(self.numbers.draw(self.whole(letters), str(place)))
            for place, letters in enumerate(program.inputs)
        ]

    def whole(self, letters: str) -> frozenset[Label]:
        return frozenset(label for label in self.numbers.labels if label[0] in letters)

    def number(self, value: Value) -> int:
        """The place of a value among those that are known; the same for the same numbers."""
        key = self.numbers.key(value)
        place = self.known.setdefault(key, len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place

    def apply(self, function: Function, x: Value) -> Value | None:
        n = self.numbers
        match function[0]:
            case "exp":
                return n.exp(x)
            case "square":
                return n.mul(x, x)
            case "sqrt":
                return n.sqrt(x)
            case "rsqrt":
                return n.inverse(n.sqrt(x))
            case "reciprocal":
                return n.inverse(x)
            case "scale":
                return n.mul(x, n.constant(function[1]))
            case "shift":
                return n.add(x, n.constant(function[1]))
            case "rms_norm":
                squares = n.sum(n.mul(x, x), self.whole(function[1]))
                mean = n.mul(squares, n.constant(function[2]))
                return n.div(x, n.sqrt(n.add(mean, n.constant(function[3]))))
        return n.opaque(str(function), x)

    def of(self, term: Term, known: dict[Term, Value] | None = None) -> Value:
        """A term of the program, or of a kernel: where a loop gathers, `gather` sums what it runs over."""
        known = {} if known is None else known
        if term not in known:
            known[term] = self._of(term, known)
        return known[term]

    def _of(self, term: Term, known: dict[Term, Value]) -> Value:
        match term[0]:
            case "input":
                return self.values[self.inputs[term[1]]]
            case "apply":
                made = self.apply(term[1], self.of(term[2], known))
                assert made is not None, "one exponential at most on any way"
                return made
            case "sum":
                return self.numbers.sum(self.of(term[1], known), self.whole(term[2]))
            case "matmul":
                product = self.numbers.mul(self.of(term[1], known), self.of(term[2], known))
                return self.numbers.sum(product, self.whole(term[3]))
        join = getattr(self.numbers, term[0])
        made = join(self.of(term[1], known), self.of(term[2], known))
        assert isinstance(made, Value)
        return made


VARYING, AFTER, INVARIANT = 0, 1, 4
Step = tuple[object, ...]
"""Its kind, attributes and operands."""
Made = tuple[int, int, bool]
"""A value, the number of the step that makes it, and whether that gathers."""


class Blocks:
    """All block graphs of one kernel that loads every input and stores what the program computes."""

    def __init__(self, values: Values, loop: str, most: int, states: int) -> None:
        self.values, self.loop, self.most_states = values, loop, states
        program = values.program
        self.most = most - len(program.inputs)
        self.looped = frozenset([(loop, "l")]) if loop else frozenset()
        self.functions, self.sets = program.functions(), program.sets()
        self.squares = ("square",) in self.functions
        self.subtracts = any(term[0] == "sub" for term in program.terms())
        self.rank = program.rank()
        self.target = values.number(values.of(program.body))
        self.steps: list[Step] = []
        self.singles: dict[tuple[int, bool], list[Made]] = {}
        self.pairs: dict[tuple[int, int, bool], list[Made]] = {}
        self.states = 0
        self._seen: set[frozenset[int]] = set()
        self._found: set[Term] = set()
        self._at: dict[int, int] = {}

    def run(self) -> set[Term]:
        """What is stored, as terms."""
        values: tuple[tuple[int, int], ...] = ()
        for number in self.values.inputs:
            varies = self.values.values[number].labels & self.looped
            values += ((number, VARYING if varies else INVARIANT),)
        self._grow(values, frozenset(), (1 << len(values)) - 1, self.most)
        return self._found

    def _tile(self, value: Value) -> frozenset[str]:
        return frozenset(label[0] for label in value.labels - self.looped)

    def _kept(
        self, offered: Iterator[tuple[frozenset[Label], Callable[[], Value | None], Step]], last: bool
    ) -> list[Made]:
        """Those of a shape that a tensor can have or, where no step may follow, the target; computed only then."""
        wanted = self.values.values[self.target].labels
        made: list[Made] = []
        for labels, compute, step in offered:
            if (labels != wanted) if last else (sum(part == "t" for _, part in labels) > self.rank):
                continue
            value = compute()
            if value is None or (last and not self.values.numbers.same(value, self.values.values[self.target])):
                continue
            made.append((self.values.number(value), len(self.steps), step[0] == "gather"))
            self.steps.append(step)
        return made

    def _alone(self, a: int) -> Iterator[tuple[frozenset[Label], Callable[[], Value | None], Step]]:
        x, n = self.values.values[a], self.values.numbers
        for function in self.functions:
            # A macro that sums needs the whole dimension in its tile.
            if function[0] == "rms_norm" and not self.values.whole(function[1]) <= x.labels - self.looped:
                continue
            yield x.labels, lambda f=function: self.values.apply(f, x), ("apply", function, a)
        varies = x.labels & self.looped
        for letters in (NONE, *self.sets):
            if not frozenset(letters) <= self._tile(x):
                continue
            inner = frozenset(label for label in x.labels - self.looped if label[0] in letters)
            if inner:
                yield x.labels - inner, lambda over=inner: n.sum(x, over), ("sum", letters, a)
            if varies:
                both = inner | varies
                yield x.labels - both, lambda over=both: n.sum(x, over), ("gather", letters, a)

    def _together(self, a: int, b: int) -> Iterator[tuple[frozenset[Label], Callable[[], Value | None], Step]]:
        """In both orders where the order counts."""
        x, y = self.values.values[a], self.values.values[b]
        n = self.values.numbers
        tiles = self._tile(x), self._tile(y)
        shared = tiles[0] & tiles[1]
        parts = [frozenset(label for label in v.labels - self.looped if label[0] in shared) for v in (x, y)]
        if parts[0] != parts[1]:
            return
        labels = x.labels | y.labels
        yield labels, lambda: n.add(x, y), ("add", a, b)
        if not (a == b and self.squares):
            yield labels, lambda: n.mul(x, y), ("mul", a, b)
        for first, second in {(a, b), (b, a)}:
            left, right = self.values.values[first], self.values.values[second]
            yield labels, lambda u=left, v=right: n.div(u, v), ("div", first, second)
            if self.subtracts:
                yield labels, lambda u=left, v=right: n.sub(u, v), ("sub", first, second)
        for letters in self.sets:
            over = frozenset(letters)
            # A matrix product has a batch only beside rows or columns.
            if not over <= shared or (shared > over and tiles[0] == tiles[1]):
                continue
            inner = frozenset(label for label in labels - self.looped if label[0] in over)
            yield labels - inner, lambda over=inner: n.sum(n.mul(x, y), over), ("matmul", a, b, letters)

    def _grow(self, values: tuple[tuple[int, int], ...], steps: frozenset[int], unused: int, left: int) -> None:
        """`unused`: a bit for each value that nothing has used yet. `left`: steps that may follow."""
        self.states += 1
        left -= 1
        last = left == 0
        there = {number for number, _ in values}

        def take(made: Made, phase: int, still: int) -> None:
            number, step, _ = made
            if number == self.target:
                # Nothing needs the target but its store, and everything else must have been used for it.
                if not still and (phase == AFTER if self.loop else phase == INVARIANT):
                    self._found.add(self._term(number, {**self._made(steps), number: step}))
            elif left and number not in there and (grown := steps | {step}) not in self._seen:
                self._seen.add(grown)
                self._at[step] = number
                self._grow((*values, (number, phase)), grown, still | 1 << len(values), left)

        # So many of what is unused this step must use, if those that follow are to use the rest.
        due = unused.bit_count() - left
        if due > 2 or self.states > self.most_states:
            return
        everything = range(len(values))
        idle = [place for place in everything if unused >> place & 1]
        for place in (everything, idle, ())[max(due, 0)]:
            number, phase = values[place]
            if (number, last) not in self.singles:
                self.singles[number, last] = self._kept(self._alone(number), last)
            for made in self.singles[number, last]:
                if not made[2]:
                    take(made, phase, unused & ~(1 << place))
                elif phase == VARYING:
                    take(made, AFTER, unused & ~(1 << place))
        for a in idle if due > 0 else everything:
            x, early = values[a]
            for b in idle if due == 2 else everything:
                # Each pair once.
                if b < a and (due != 1 or unused >> b & 1):
                    continue
                if due == 2 and a == b:
                    continue
                y, late = values[b]
                if early + late == VARYING + AFTER and early != late:
                    continue
                key = (x, y, last) if x < y else (y, x, last)
                if key not in self.pairs:
                    self.pairs[key] = self._kept(self._together(key[0], key[1]), last)
                for made in self.pairs[key]:
                    take(made, late if early == INVARIANT else early, unused & ~(1 << a | 1 << b))

    def _made(self, steps: frozenset[int]) -> dict[int, int]:
        """By which step each value is made."""
        return {self._at[step]: step for step in steps}

    def _term(self, number: int, steps: dict[int, int]) -> Term:
        if number in self.values.inputs:
            return ("input", self.values.inputs.index(number))
        kind, *rest = self.steps[steps[number]]
        match kind:
            case "apply":
                return ("apply", rest[0], self._term(rest[1], steps))
            case "sum" | "gather":
                return (kind, self._term(rest[1], steps), rest[0])
        operands = [self._term(operand, steps) for operand in rest[:2]]
        return (kind, *(sorted(operands, key=repr) if kind in COMMUTE else operands), *rest[2:])


def brute(program: Written, most: int, algebra: Algebra, states: int = 10**9) -> set[tuple[str, Term]] | None:
    """Every block graph of at most so many loads and steps that computes the program: the loop's dimension, and what is
    stored. None past so many states."""
    values = Values(program, algebra)
    found = set()
    for loop in (NONE, *sorted(values.loops)):
        if loop and not any(loop in letters for letters in program.inputs):
            continue
        search = Blocks(values, loop, most, states)
        found |= {(loop, term) for term in search.run()}
        states -= search.states
        if states < 0:
            return None
    return found
