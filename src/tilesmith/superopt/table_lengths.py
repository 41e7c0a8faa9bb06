"""Which dimensions of a program run together: the first step in giving them names.

Every dimension of every value is a row of lengths, longest stride first. A reshape that joins or cuts dimensions cuts
lengths into factors; operators that need equal dimensions join them. What is left are the atoms that all values are
made of: [batch, tokens, heads · dim] seen as [batch, tokens, heads, dim] makes two of the last dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tilesmith.core.graph import Dims, Graph, Op
from tilesmith.core.operators import OPERATORS, Misfit


@dataclass(slots=True, eq=False)
class Length:
    """A factor of a dimension; it may turn out to be another, or a product of smaller ones."""

    extent: int
    same: Length | None = None
    factors: list[Length] = field(default_factory=list)

    def atoms(self) -> list[Length]:
        if self.same:
            return self.same.atoms()
        return [atom for factor in self.factors for atom in factor.atoms()] if self.factors else [self]


Row = list[Length]
"""One dimension; empty where its extent is 1."""


def atoms(row: Row) -> Row:
    return [atom for length in row for atom in length.atoms()]


def fresh(dims: Dims) -> list[Row]:
    return [[Length(extent)] if extent > 1 else [] for extent in dims]


def join(left: Row, right: Row) -> None:
    """Make two rows of one extent the same. Raises `Misfit` where no common factors exist."""
    a, b = atoms(left), atoms(right)
    while a and b:
        x, y = a[0], b[0]
        if x is y:
            a, b = a[1:], b[1:]
        elif x.extent == y.extent:
            x.same = y
            a, b = atoms(a[1:]), atoms(b[1:])
        else:
            large, small = (x, y) if x.extent > y.extent else (y, x)
            if large.extent % small.extent:
                raise Misfit(f"dimensions of {x.extent} and {y.extent} overlap without a common factor")
            large.factors = [Length(small.extent), Length(large.extent // small.extent)]
            a, b = atoms(a), atoms(b)


def reshaped(rows: Sequence[Row], dims: Dims) -> list[Row]:
    """The same lengths, dealt out to other dimensions."""
    left = [atom for row in rows for atom in atoms(row)]
    made: list[Row] = []
    for extent in dims:
        row: Row = []
        wanted = extent
        while wanted > 1:
            first = left.pop(0)
            if first.extent > wanted:
                if first.extent % wanted:
                    raise Misfit(f"a dimension of {first.extent} is cut where it has no factor")
                first.factors = [Length(wanted), Length(first.extent // wanted)]
                left[:0] = first.factors
                first = left.pop(0)
            if wanted % first.extent:
                raise Misfit(f"dimensions of {first.extent} and {extent} overlap without a common factor")
            row.append(first)
            wanted //= first.extent
        made.append(row)
    return made


def aligned(left: Sequence[Row], right: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Dimensions that broadcast against each other, the last ones together."""
    rank = max(len(left), len(right))
    first, second = ([*([] for _ in range(rank - len(rows))), *rows] for rows in (left, right))
    return list(zip(first, second, strict=True))


def rows_of(graph: Graph) -> list[list[Row]]:
    """The dimensions of every value. Raises `Misfit` with the node for what the search does not know."""
    known = [fresh(tensor.dims) for tensor in graph.inputs]
    for place, node in enumerate(graph.nodes):
        if not isinstance(node, Op):
            raise Misfit(f"node {place} is a kernel; a search starts from operators")
        try:
            known.append(_rows(node, [known[value] for value in node.operands]))
        except Misfit as misfit:
            raise Misfit(f"node {place} ({node.operator}): {misfit}") from None
    # Lengths that were cut after a value was made are cut in it too.
    return [[atoms(row) for row in rows] for rows in known]


def _rows(op: Op, operands: Sequence[list[Row]]) -> list[Row]:
    kind = OPERATORS[op.operator].kind
    if kind == "constant":
        return []
    x = operands[0]
    if op.operator == "matmul":
        y = operands[1]
        join(x[-1], y[-2])
        return [*_broadcast(x[:-2], y[:-2]), x[-2], y[-1]]
    if op.operator in ("softmax", "rms_norm") or kind == "element-wise":
        made = x
        for other in operands[1:]:
            made = _broadcast(made, other)
        return made
    if op.operator in ("sum", "mean"):
        return [[] if axis in op.axes else row for axis, row in enumerate(x)]
    if op.operator == "reshape":
        return reshaped(x, op.dims)
    if op.operator == "permute":
        return [x[axis] for axis in op.axes]
    if op.operator == "expand" and all(
        len(row) > 0 or extent == 1 for row, extent in zip(x, op.dims[-len(x) :], strict=True)
    ):
        return [*([] for _ in op.dims[len(x) :]), *x]
    raise Misfit("the symbolic space does not know this operator; cut the program there")


def _broadcast(left: Sequence[Row], right: Sequence[Row]) -> list[Row]:
    made = []
    for a, b in aligned(left, right):
        if a and b:
            join(a, b)
        made.append(a or b)
    return made
