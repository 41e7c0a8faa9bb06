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
    short_by: int
    """The fewest operators that a last kernel lacked; 0 where none lacked any."""

class Times:
    """What a worker did: the sums, and what from when to when; empty without a timeline."""

    busy_s: float
    wait_s: float
    steal_s: float
    oracle_s: float
    spans: list[tuple[str, float, float]]

def turn_ns(times: int, timeline: bool) -> float:
    """What one change of a worker's activity takes, in nanoseconds of processor time."""

class Worker:
    counters: Counters
    items: int
    given: int
    nodes: int
    times: Times

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
    workers: list[Worker]

class Engine:
    """One search. `run` gives the interpreter free; another thread may `interrupt` it."""

    classes: int
    rows: int
    input_tensors: list[tuple[int, list[tuple[int, int]]] | None]
    """With the names that the tensor has in place of its own."""
    output_tensors: list[int]
    views: list[tuple[int, int, list[tuple[int, int]]]]
    """A tensor, the same under other names, and which names become which."""
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
        schedule: str,
        order: str,
        threads: int,
        frontier_bytes: int,
        timeline: bool,
        ranks: int,
        rank: int,
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
    ready: bool
    """Whether `begin`, `join` and what follows may be called: where there are ranks, while `run` goes on."""
    items: int
    """What the search is split into."""
    waiting: int
    """Pieces of work that no worker has taken."""
    parked: int
    """Pieces of work that wait for what another rank makes."""
    idle: bool
    """Whether all workers wait for work, and there is none."""
    def begin(self) -> bytes:
        """The first rank's split, for the others; empty as long as there is none."""
    def join(self, split: bytes) -> None: ...
    def offer(self, item: int) -> None: ...
    def give(self) -> bytes:
        """Some of the work here, for another rank; empty where there is none just now."""
    def receive(self, given: bytes) -> None: ...
    def end(self) -> None: ...
    def fresh(self) -> bytes:
        """Block searches made here since the last call."""
    def learn(self, made: bytes) -> None: ...
    def wanted(self) -> list[bytes]:
        """Block searches to ask each rank for: whoever a set of tensors belongs to makes them."""
    def ask(self, wanted: bytes) -> None:
        """Another rank asks for these."""
    def found(self, everything: bool) -> bytes:
        """What was found and not told: in work that is done, or after the search in all."""
    def tell(self, found: bytes) -> None:
        """Raises ValueError where it names a block search that was not learned."""
    def replay(self) -> None:
        """Goes through what was learned, as far as it leads, where nothing was run."""
    def told_enough(self) -> bool: ...
    def conclude(self) -> Result:
        """Ranks what was told."""
    def graphs(self) -> list[list[Kernel]]: ...

# The concrete space and its oracles.

class Z3:
    """libz3, loaded from a path."""

    def __init__(self, path: str) -> None: ...

class Solver:
    """A context of z3 with axioms: is a formula part of any target? One thread at a time."""

    def __init__(self, z3: Z3, axioms: str, targets: Sequence[str], effort: int) -> None: ...
    def ask(self, formula: str) -> str:
        """yes, no or unknown."""

class Judge:
    """The table of a program in degrees, asked about expressions, which are numbers."""

    classes: int
    rows: int
    seconds: float
    incomplete: str
    def __init__(
        self,
        inputs: int,
        primes: Sequence[int],
        functions: Sequence[tuple[str, int, str]],
        nodes: Sequence[tuple[str, int, int]],
        outputs: Sequence[int],
        degrees: Sequence[int],
    ) -> None: ...
    def input(self, place: int) -> int: ...
    def make(self, kind: str, a: int, b: int) -> int: ...
    def accepts(self, expression: int) -> bool: ...
    def probe_ns(self, times: int) -> float: ...
    def text(self, expression: int) -> str: ...
    def formula(self, expression: int) -> str:
        """For z3; empty where no target can have such a degree."""
    def axioms(self) -> str: ...

class NamedTable:
    """The table of the symbolic space. Classes are numbers; -1 is none. `probe` of a sum takes 8 · name + parts."""

    classes: int
    rank: int
    incomplete: str
    def __init__(
        self,
        parts: Sequence[int],
        inputs: Sequence[Sequence[int]],
        functions: Sequence[tuple[str, int, str]],
        nodes: Sequence[tuple[str, int, int, Sequence[int]]],
        outputs: Sequence[int],
    ) -> None: ...
    def input(self, place: int) -> int: ...
    def probe(self, rule: str, a: int, b: int) -> int: ...

class ConcreteCounts:
    states: int
    candidates: int
    tested: int
    shape: int
    phase: int
    memory: int
    oracle: int
    bound: int
    unsound: int
    roots: int
    frontier: int
    depths: list[int]
    calls: int
    hits: int
    unknown: int
    only_oracle: int
    only_table: int
    lock_s: float
    cpu_s: float
    first_s: float
    given: int
    taken: int
    times: Times

ConcreteStep = tuple[str, int, int, int]
ConcreteBlock = tuple[list[int], int, list[tuple[int, list[int], int]], list[ConcreteStep], list[int], list[int]]
ConcreteGraph = tuple[list[ConcreteStep | ConcreteBlock], list[int]]

class ConcreteSearch:
    """A concrete space. `roots` first; then `search_root` of any, by any thread, or `run`."""

    stop: str
    incomplete: str
    classes: int
    rows: int
    table_s: float
    unfit_roots: int
    predefined: list[ConcreteGraph]
    root_counts: ConcreteCounts
    def __init__(
        self,
        *,
        inputs: Sequence[Sequence[int]],
        outputs: Sequence[Sequence[int]],
        primes: Sequence[int],
        functions: Sequence[tuple[str, int, str]],
        nodes: Sequence[tuple[str, int, int]],
        targets: Sequence[int],
        unary: Sequence[int],
        norms: Sequence[tuple[int, Sequence[int]]],
        transposes: bool,
        subtracts: bool,
        element_bytes: int,
        as_coded: bool,
        bounded: bool,
        heads: bool,
        tiles: Sequence[int],
        loops: Sequence[int],
        least_blocks: int,
        most_blocks: int,
        kernel_ops: int,
        block_ops: int,
        graph_defined: int,
        loads: int,
        stores: int,
        shared_bytes: int,
        oracle_every: int,
        max_classes: int,
        seconds: float,
    ) -> None: ...
    def ask_z3(self, z3: Z3, cache: str, effort: int) -> None: ...
    def breadth_first(self, frontier_bytes: int) -> None: ...
    def roots(self) -> int: ...
    def interrupt(self) -> None: ...
    def search_root(self, index: int) -> tuple[list[ConcreteGraph], ConcreteCounts]: ...
    def run(
        self, threads: int, dealt: bool, max_graphs: int, timeline: bool
    ) -> tuple[list[tuple[int, ConcreteGraph]], list[ConcreteCounts]]: ...

    # One of several processes: what an `Engine` has, too, from `serve` on.
    def serve(self, threads: int, timeline: bool, max_graphs: int, ranks: int) -> None: ...
    def run_served(self) -> list[ConcreteCounts]:
        """By worker; until it is ended. Gives the interpreter free."""

    ready: bool
    items: int
    waiting: int
    parked: int
    idle: bool
    def begin(self) -> bytes: ...
    def join(self, split: bytes) -> None: ...
    def offer(self, item: int) -> None: ...
    def give(self) -> bytes: ...
    def receive(self, given: bytes) -> None: ...
    def end(self) -> None: ...
    def fresh(self) -> bytes: ...
    def learn(self, made: bytes) -> None: ...
    def wanted(self) -> list[bytes]: ...
    def ask(self, wanted: bytes) -> None: ...
    def found(self, everything: bool) -> bytes: ...
    def tell(self, found: bytes) -> None: ...
    def told_enough(self) -> bool: ...
    def conclude(self) -> list[ConcreteGraph]:
        """What was told, in an order that does not depend on who found it. Once."""
