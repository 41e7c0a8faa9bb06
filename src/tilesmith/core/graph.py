"""A µGraph: a tensor program over three levels. This page is the grammar; `graph_check` says what is well formed.

    Graph      = inputs: Tensor*   nodes: (Op | Kernel)*   outputs: Value*              device memory
    Kernel     = grid: Extent*     loop: Extent   loads: Load*   body: Step*   stores: Store*
    Step       = Op | Accumulate | Thread                                                shared memory
    Thread     = operands: Value*  ops: Op*                                              registers

A value is a number. In a graph its inputs come first, then what the nodes make, in order: an `Op` makes one value, a
`Kernel` one for every store. Inside a kernel the loads come first, then the steps; inside a thread its operands, then
its operators, of which the last is the result. Nothing refers to what comes later, so an order is always at hand.

An `Op` among the nodes is a predefined kernel; a `Kernel` is defined by its own graph. `operators` lists the operators.

The blocks of a kernel form a grid of any rank. Each axis of it, and the loop, cuts a dimension into that many parts of
equal length, in order: block i of axis a takes part i of dimension `imap[a]`, then iteration j takes part j of that
along `fmap`. A store puts the blocks' tiles back together along `omap`. None leaves the tile whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from tilesmith.core.problem import Dtype

Dims = tuple[int, ...]
Gathering = Literal["sum", "max", "concat", "rescale"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of a value: its extents and how an element is stored. Inputs have names."""

    dims: Dims
    dtype: Dtype
    name: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """How a dimension is read in pieces, which may overlap: for each place `size` elements, `dilation` apart."""

    size: int
    stride: int = 1
    padding: int = 0
    """Zeros that are thought before and after; of a maximum it is nothing that counts."""
    dilation: int = 1

    def places(self, extent: int) -> int:
        """How many places a dimension of this extent has; below 1 where the window does not fit."""
        return (extent + 2 * self.padding - self.dilation * (self.size - 1) - 1) // self.stride + 1


@dataclass(frozen=True, slots=True)
class Op:
    """One operator. Which attributes it takes is in the table of `operators`; the others stay empty."""

    operator: str
    operands: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    """Dimensions that it reduces, normalises, permutes, cuts or joins; never negative."""
    dims: Dims = ()
    """The extents that it makes, or where a slice begins and ends."""
    values: tuple[Fraction, ...] = ()
    """Numbers, exact: a constant, an exponent, an epsilon, bounds."""
    windows: tuple[Window, ...] = ()
    dtype: Dtype | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """A tile of a tensor in device memory."""

    source: int
    """A value of the graph."""
    imap: tuple[int | None, ...] = ()
    """For each axis of the grid the dimension that it cuts."""
    fmap: int | None = None
    """The dimension that the loop cuts; None loads one tile before the loop."""


@dataclass(frozen=True, slots=True)
class Accumulate:
    """What is gathered over the iterations of the loop; its result exists after the loop.

    sum      adds the tiles, and then over `axes`, which stay with extent 1
    max      the same with the larger of two
    concat   puts the tiles one after another along the one axis in `axes`
    rescale  the sum of online softmax. Of scores S alone: exp(S - m) added over the last dimension and the loop, where
             m is the maximum of S over both. Of scores S and values V: exp(S - m) @ V, likewise. It is computed with
             a running maximum, and what was added so far is rescaled when that grows.
    """

    how: Gathering
    operands: tuple[int, ...]
    axes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Thread:
    """Element-wise operators that are fused: what lies between them stays in registers."""

    operands: tuple[int, ...]
    ops: tuple[Op, ...]


@dataclass(frozen=True, slots=True)
class Store:
    """A tile that becomes part of a tensor in device memory."""

    source: int
    """A value of the kernel, complete: no tile of a single iteration."""
    omap: tuple[int | None, ...] = ()
    """For each axis of the grid the dimension along which its blocks' tiles lie; None only where the axis is 1 long."""


Step = Op | Accumulate | Thread


@dataclass(frozen=True, slots=True)
class Kernel:
    """A graph-defined kernel: what one block does, and how blocks and iterations share the work."""

    grid: Dims
    loop: int
    loads: tuple[Load, ...]
    body: tuple[Step, ...]
    stores: tuple[Store, ...]


Node = Op | Kernel


@dataclass(frozen=True, slots=True)
class Graph:
    """A µGraph. Two that differ only in names or in the order of what is independent have one `graph_hash`."""

    inputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a search may build. The paper's: 11 operators a block and 5 kernels; Mirage's shared memory is 96 KiB."""

    kernel_ops: int = 5
    """Kernels of any kind. Views cost none."""
    block_ops: int = 11
    """Loads, operators and accumulators of one kernel; constants, views and stores are free."""
    graph_defined_kernels: int = 1
    inputs: int = 4
    """Loads of one kernel."""
    outputs: int = 2
    """Stores of one kernel."""
    shared_bytes: int = 227 << 10
    blocks: int = 1 << 31
