"""Whatever reaches the engine, it answers or refuses: nothing that Python can say makes C++ fail otherwise."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tilesmith.core.gpu import target
from tilesmith.core.graph import Graph, Limits
from tilesmith.superopt.engine import engine
from tilesmith.superopt.limits import Plan
from tilesmith.superopt.table import Function, Named

TERMS = ("input", "apply", "add", "sub", "mul", "div", "matmul", "sum", "permute", "rename", "nonsense")
FUNCTIONS = ("exp", "square", "sqrt", "rsqrt", "reciprocal", "scale", "shift", "rms_norm", "opaque", "nonsense")
STOPS = {"exhausted", "seconds", "graphs", "interrupted", "incomplete"}

small = st.integers(-1, 7)
names = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def tuples(items: st.SearchStrategy[object], most: int) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(items, max_size=most).map(tuple)


@st.composite
def programs(draw: st.DrawFn) -> Named:
    """Mostly malformed; those drawn from fewer kinds and earlier values often are not."""
    sane = draw(st.booleans())
    bases = draw(st.integers(1, 4))
    base = st.integers(1, bases)
    inputs = draw(
        st.lists(st.lists(base, unique=True, max_size=3).map(tuple) if sane else names, min_size=1, max_size=3)
    )
    nodes: list[tuple[str, int, int, tuple[int, ...]]] = [("input", place, 0, ()) for place in range(len(inputs))]
    for _ in range(draw(st.integers(1, 6))):
        known = st.integers(0, len(nodes) - 1)
        term = draw(st.sampled_from(("apply", "add", "mul", "div", "matmul", "sum") if sane else TERMS))
        over = draw(st.lists(base, max_size=2, unique=True).map(tuple) if sane else names)
        b = draw(st.integers(0, 1) if sane and term == "apply" else known if sane else st.integers(-2, 2000))
        nodes.append((term, draw(known if sane else small), b, over))
    return Named(
        graph=Graph((), (), ()),
        parts=tuple(draw(st.integers(1, 7) if not sane else st.sampled_from((1, 3, 7))) for _ in range(bases)),
        extents=tuple(
            draw(st.sampled_from((1, 2, 3, 64, 4096)) if sane else st.integers(-1, 1 << 40)) for _ in range(bases)
        ),
        inputs=tuple(inputs),
        functions=(
            tuple(Function(name, name) for name in draw(st.permutations(("exp", "square", "sqrt"))))
            if sane
            else tuple(
                Function(draw(st.sampled_from(FUNCTIONS)), "exp", (), draw(small), draw(small), draw(small))
                for _ in range(draw(st.integers(0, 3)))
            )
        ),
        nodes=tuple(nodes),
        outputs=tuple(draw(st.lists(st.integers(0, len(nodes) - 1) if sane else small, min_size=1, max_size=2))),
        output_names=(),
        output_dims=(),
        aliases=() if sane else draw(tuples(st.tuples(small, small), 2)),  # type: ignore[arg-type]
        element_bytes=2,
    )


limits = st.builds(
    Limits,
    graph_defined_kernels=st.integers(1, 3),
    block_ops=st.integers(0, 12),
    inputs=st.integers(0, 6),
    outputs=st.integers(0, 2),
)
plans = st.builds(
    Plan, keep=st.integers(1, 20), kernels=st.sampled_from(("listing", "closure")), threads=st.integers(1, 2)
)


@settings(max_examples=150, deadline=None)
@given(programs(), limits, plans)
def test_it_answers_or_refuses(program: Named, limits: Limits, plan: Plan) -> None:
    try:
        made = engine(program, limits, replace(plan, seconds=0.1), target())
        result = made.run()
    except (ValueError, TypeError, OverflowError):
        return
    assert result.stop in STOPS
    for kernels in made.graphs():
        for kernel in kernels:
            assert kernel.seconds > 0
            assert len(kernel.values) == len(kernel.inputs) + len(kernel.steps)
