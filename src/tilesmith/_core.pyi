"""The search engine of the symbolic space, in C++."""

from collections.abc import Sequence

class Device:
    """What estimates are for. Rates are per second, of the whole device."""

    multiprocessors: float
    dram_bytes_per_s: float
    l2_bytes_per_s: float
    matrix_flops: float
    vector_flops: float
    launch_s: float
    pass_s: float
    register_bytes: float
    shared_bytes: float
    blocks: float
    def __init__(self) -> None: ...

class Counters:
    states: int
    candidates: int
    shape: int
    phase: int
    table: int
    duplicate: int
    bound: int
    blocks: int

class Worker:
    counters: Counters
    busy_s: float
    wait_s: float
    oracle_s: float

Tensor = tuple[int, list[tuple[int, int]]]
"""A number, and the parts of each name that it has."""

class Kernel:
    """A kernel with its schedule. Values are loads, then steps."""

    inputs: list[Tensor]
    outputs: list[tuple[Tensor, int]]
    """With the value that is stored."""
    values: list[tuple[list[int], int]]
    """The names in each tile, and its phase: 0 varying, 1 invariant, 2 after the loop."""
    steps: list[tuple[str, int, int, int, list[int]]]
    """Kind, operands (-1: none), function, the names that are summed."""
    walk: tuple[int, int, int]
    """The name that the loop runs over, which of its parts, and the name that is split over the grid; 0 for none."""
    cuts: list[tuple[int, int]]
    """Into how many blocks names are cut."""
    loop: int
    split: int
    seconds: float
    bytes: float
    traffic: float
    flops: float
    shared_bytes: float

class Result:
    stop: str
    incomplete: str
    table_s: float
    search_s: float
    rank_s: float
    graphs: int
    plans: int
    implementations: int
    unfit: int
    schedules: int
    tensors: int
    subsets: int
    searched: int
    workers: list[Worker]

class Engine:
    """One search. `run` gives the interpreter free; another thread may `interrupt` it."""

    classes: int
    rows: int
    input_tensors: list[int | None]
    output_tensors: list[int]
    views: list[tuple[int, int, int, int]]
    """A tensor, the same under another name, and the two names."""
    def __init__(
        self,
        parts: Sequence[int],
        extents: Sequence[int],
        inputs: Sequence[tuple[int, Sequence[int], float]],
        functions: Sequence[tuple[str, int, int, int]],
        nodes: Sequence[tuple[str, int, int, Sequence[int]]],
        outputs: Sequence[int],
        aliases: Sequence[tuple[int, int]],
        *,
        device: Device,
        element_bytes: float,
        closure: bool,
        threads: int,
        block_ops: int,
        kernel_inputs: int,
        kernel_outputs: int,
        kernels: int,
        seconds: float,
        max_graphs: int,
        keep: int,
        max_classes: int,
    ) -> None: ...
    def run(self) -> Result: ...
    def interrupt(self) -> None: ...
    def graphs(self) -> list[list[Kernel]]: ...
