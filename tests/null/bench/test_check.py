"""The error metric: what must pass, what must not, whatever the shape, the dtype and the scale of an output."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tilesmith.bench.check import NUDGE, TELLING, Expected, expect, finite, scaled_error, terms_of

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
SEEDS = st.integers(0, 2**32 - 1)
quick = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On small tensors threads only wait for each other, the more so beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gaussian(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def judged_by_product(a: torch.Tensor, b: torch.Tensor) -> tuple[Expected, torch.Tensor]:
    """What is expected of `a @ b`, and the reference's own answer, in the operands' dtype."""
    native = a @ b
    return expect(a.double() @ b.double(), native), native


# A zero-mean output, as a product of matrices whose elements are around zero has it ----------------------------------


@st.composite
def products(draw: st.DrawFn) -> tuple[Expected, torch.Tensor, torch.dtype]:
    """A zero-mean product of at least 8 rows and 4 columns, in any dtype and at any scale that fits all of them."""
    rows, columns, inner = draw(st.integers(8, 40)), draw(st.integers(4, 40)), draw(st.integers(4, 300))
    dtype, scale = draw(st.sampled_from(FLOATS)), 2.0 ** draw(st.integers(-3, 4))
    seed = draw(SEEDS)
    a = (gaussian(rows, inner, seed=seed) * scale).to(dtype)
    b = gaussian(inner, columns, seed=seed ^ 1).to(dtype)
    return *judged_by_product(a, b), dtype


@quick
@given(products())
def test_the_reference_passes_its_own_examination(product: tuple[Expected, torch.Tensor, torch.dtype]) -> None:
    expected, native, _ = product
    assert scaled_error(native, expected, 1.0) <= 0.5


@quick
@given(products())
def test_the_truth_rounded_once_passes(product: tuple[Expected, torch.Tensor, torch.dtype]) -> None:
    expected, _, dtype = product
    assert scaled_error(expected.truth.to(dtype), expected, 1.0) <= 1


@quick
@given(products(), SEEDS)
def test_answers_that_are_wrong_everywhere(product: tuple[Expected, torch.Tensor, torch.dtype], seed: int) -> None:
    expected, native, dtype = product
    order = torch.randperm(native.numel(), generator=torch.Generator().manual_seed(seed))
    mean, spread = expected.truth.mean(), expected.truth.std()
    impostors = {
        "zeros": torch.zeros_like(native),
        "the mean": torch.full_like(native, float(mean)),
        "5 % too large": (expected.truth * 1.05).to(dtype),
        "5 % too small": (expected.truth * 0.95).to(dtype),
        "the other sign": -native,
        "shifted": (expected.truth + 0.1 * spread).to(dtype),
        "rows rolled": native.roll(1, 0),
        "columns rolled": native.roll(1, 1),
        "noise of the same size": (gaussian(*native.shape, seed=seed).double() * spread + mean).to(dtype),
        "shuffled": native.flatten()[order].view_as(native),
    }
    accepted = [name for name, answer in impostors.items() if scaled_error(answer, expected, 1.0) <= 1]
    assert not [name for name in accepted if not torch.equal(impostors[name], native)]


@quick
@given(products(), SEEDS)
def test_one_wrong_element(product: tuple[Expected, torch.Tensor, torch.dtype], seed: int) -> None:
    expected, native, _ = product
    index = seed % native.numel()
    for wrong in (float(native.flatten()[index]) + expected.variation, math.nan, math.inf, -math.inf):
        answer = native.clone()
        answer.flatten()[index] = wrong
        assert scaled_error(answer, expected, 1.0) > 1


@quick
@given(products(), SEEDS, st.booleans())
def test_one_part_that_was_never_written(
    product: tuple[Expected, torch.Tensor, torch.dtype], seed: int, zeros: bool
) -> None:
    """Fresh memory is poisoned with NaN, but a kernel may also leave zeros, or the answer of another row."""
    expected, native, _ = product
    row = seed % native.shape[0]
    answer = native.clone()
    answer[row] = 0 if zeros else math.nan
    error = scaled_error(answer, expected, 1.0)
    assert error > 1 if zeros else error == math.inf


@quick
@given(products(), st.floats(0.01, 100.0))
def test_tolerance_divides_the_error(product: tuple[Expected, torch.Tensor, torch.dtype], tolerance: float) -> None:
    expected, native, _ = product
    answer = native * 1.5
    assert scaled_error(answer, expected, tolerance) == pytest.approx(scaled_error(answer, expected, 1.0) / tolerance)


@quick
@given(products(), st.integers(-3, 3))
def test_the_scale_of_an_output_does_not_count(product: tuple[Expected, torch.Tensor, torch.dtype], power: int) -> None:
    expected, native, dtype = product
    factor = 2.0**power
    answer = native.double() * 1.01
    larger = expect(expected.truth * factor, (native.double() * factor).to(torch.float64))
    larger = Expected(larger.truth, dtype, larger.variation, expected.noise * factor, larger.rms_lost, larger.most_lost)
    assert scaled_error(answer * factor, larger, 1.0) == pytest.approx(scaled_error(answer, expected, 1.0), rel=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_wrong_element_in_a_million(dtype: torch.dtype) -> None:
    """Too few to show in the root mean square, wrong by half a standard deviation."""
    truth = gaussian(1000, 1000, seed=6).double()
    native = truth.to(dtype)
    expected = expect(truth, native)
    answer = native.clone()
    answer[712, 3] += 0.5
    assert scaled_error(native, expected, 1.0) <= 0.5
    assert scaled_error(answer, expected, 1.0) > 1


# Honest arithmetic ---------------------------------------------------------------------------------------------------


def one_by_one(a: torch.Tensor, b: torch.Tensor, step: int) -> torch.Tensor:
    """The product with one accumulator an element, `step` terms of the sum at a time."""
    total = torch.zeros(a.shape[0], b.shape[1])
    for start in range(0, a.shape[1], step):
        total = total + a[:, start : start + step] @ b[start : start + step]
    return total


@quick
@given(st.integers(1, 1024), st.sampled_from([16, 32, 64, 128]), st.sampled_from([1, 2, 4, 8]), st.booleans(), SEEDS)
@example(1024, 16, 8, True, 0)
def test_any_order_of_a_sum_is_right_in_fp32(inner: int, tile: int, splits: int, positive: bool, seed: int) -> None:
    make = uniform if positive else gaussian
    a, b = make(24, inner, seed=seed), make(inner, 20, seed=seed ^ 1)
    expected, _ = judged_by_product(a, b)
    order = torch.randperm(inner, generator=torch.Generator().manual_seed(seed))
    part = -(-inner // splits)
    honest = {
        "backwards": a.flip(1) @ b.flip(0),
        "in another order": a[:, order] @ b[order],
        "in tiles": one_by_one(a, b, tile),
        "split over programs": sum(a[:, at : at + part] @ b[at : at + part] for at in range(0, inner, part)),
        "element by element, then a tree": (a[:, :, None] * b[None]).sum(1),
    }
    refused = {name: error for name, answer in honest.items() if (error := scaled_error(answer, expected, 1.0)) > 1}
    assert not refused


@quick
@given(st.integers(1, 1024), st.booleans(), SEEDS)
@example(1024, True, 0)
def test_one_accumulator_is_right_in_fp32(inner: int, positive: bool, seed: int) -> None:
    make = uniform if positive else gaussian
    a, b = make(16, inner, seed=seed), make(inner, 12, seed=seed ^ 1)
    expected, _ = judged_by_product(a, b)
    assert scaled_error(one_by_one(a, b, 1), expected, 1.0) <= 1


@quick
@given(st.integers(16, 1024), st.sampled_from([torch.float16, torch.bfloat16]), SEEDS)
def test_sums_in_fp32_of_narrow_operands_are_right(inner: int, dtype: torch.dtype, seed: int) -> None:
    """What matrix units do: products of narrow operands summed in fp32, rounded once."""
    a, b = gaussian(16, inner, seed=seed).to(dtype), gaussian(inner, 12, seed=seed ^ 1).to(dtype)
    expected, _ = judged_by_product(a, b)
    assert scaled_error(one_by_one(a.float(), b.float(), 16).to(dtype), expected, 1.0) <= 1


# Arithmetic that is less than what was asked for ----------------------------------------------------------------------


def tf32(tensor: torch.Tensor) -> torch.Tensor:
    """Rounded to the 10 bits of fraction that TF32 has, to nearest."""
    bits = tensor.view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


@quick
@given(st.integers(16, 1024), SEEDS)
def test_tf32_is_not_fp32(inner: int, seed: int) -> None:
    a, b = gaussian(16, inner, seed=seed), gaussian(inner, 12, seed=seed ^ 1)
    expected, _ = judged_by_product(a, b)
    assert scaled_error(tf32(a) @ tf32(b), expected, 1.0) > 3


@quick
@given(st.integers(16, 1024), st.sampled_from([torch.float16, torch.bfloat16]), SEEDS)
def test_a_narrow_answer_is_not_fp32(inner: int, dtype: torch.dtype, seed: int) -> None:
    a, b = gaussian(16, inner, seed=seed), gaussian(inner, 12, seed=seed ^ 1)
    expected, _ = judged_by_product(a, b)
    assert scaled_error((a.to(dtype) @ b.to(dtype)).float(), expected, 1.0) > 3


@quick
@given(st.integers(64, 512), SEEDS)
def test_a_sum_that_is_rounded_at_every_term_is_not_bf16(inner: int, seed: int) -> None:
    a, b = gaussian(16, inner, seed=seed).bfloat16(), gaussian(inner, 12, seed=seed ^ 1).bfloat16()
    expected, _ = judged_by_product(a, b)
    total = torch.zeros(16, 12, dtype=torch.bfloat16)
    for at in range(inner):
        total = total + a[:, at : at + 1] * b[at : at + 1]
    assert scaled_error(total, expected, 1.0) > 1


@quick
@given(st.sampled_from([128, 256, 500]), SEEDS)
def test_a_sum_that_leaves_out_its_last_terms(inner: int, seed: int) -> None:
    for dtype in FLOATS:
        a, b = gaussian(16, inner, seed=seed).to(dtype), gaussian(inner, 12, seed=seed ^ 1).to(dtype)
        expected, _ = judged_by_product(a, b)
        assert scaled_error(a[:, :-1] @ b[:-1], expected, 1.0) > 1, dtype


# Long sums of positive numbers ---------------------------------------------------------------------------------------


def test_a_constant_passes_where_all_outputs_are_alike_and_nowhere_else() -> None:
    """A sum of 2^18 products of U[0, 1) is 2^16, give or take less than bfloat16 can tell: such inputs prove nothing.

    That is why no candidate is judged by the problem's own inputs alone.
    """
    terms = 1 << 18
    constant = torch.full((16, 1), terms / 4, dtype=torch.bfloat16)
    own, _ = judged_by_product(uniform(16, terms, seed=1).bfloat16(), uniform(terms, 1, seed=2).bfloat16())
    zero_mean, native = judged_by_product(gaussian(16, terms, seed=1).bfloat16(), gaussian(terms, 1, seed=2).bfloat16())
    assert scaled_error(constant, own, 1.0) <= 1
    assert scaled_error(constant, zero_mean, 1.0) > 100
    assert scaled_error(torch.zeros_like(constant), zero_mean, 1.0) > 10
    assert scaled_error(native, zero_mean, 1.0) <= 0.5


def test_variation_counts_and_magnitude_does_not() -> None:
    """All outputs are near 1000: a constant is right to a thousandth of each, and wrong."""
    truth = 1000 + gaussian(64, 64, seed=3).double()
    expected = expect(truth, truth.float())
    constant = torch.full((64, 64), 1000.0)
    assert float(((constant - truth).abs() / truth).max()) < 1e-2
    assert scaled_error(constant, expected, 1.0) > 100
    assert scaled_error(truth.float(), expected, 1.0) <= 0.5


@pytest.mark.parametrize("terms", [4096, 65536])
def test_sums_of_one_sign_may_be_taken_one_tile_after_another(terms: int) -> None:
    """Products of numbers in [0, 1): one accumulator in float32 loses more than blocks do."""
    generator = torch.Generator().manual_seed(terms)
    left = torch.rand(16, terms, generator=generator)
    right = torch.rand(terms, 8, generator=generator)
    expected = expect(left.double() @ right.double(), left @ right)
    tile, total = 16, torch.zeros(16, 8)
    for start in range(0, terms, tile):
        total += left[:, start : start + tile] @ right[start : start + tile]
    assert scaled_error(total, expected, 1.0) <= 1
    assert scaled_error(total * (1 + 1e-3), expected, 1.0) > 1


# Outputs of other kinds ----------------------------------------------------------------------------------------------


@quick
@given(
    st.sampled_from([torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool]),
    st.integers(1, 200),
    SEEDS,
)
def test_whole_numbers_are_right_or_wrong(dtype: torch.dtype, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 2, (count,), generator=generator).to(dtype)
    expected = expect(truth, truth)
    assert scaled_error(truth.clone(), expected, 1.0) == 0
    off = truth.clone()
    off[seed % count] = 1 - off[seed % count].to(torch.int64)
    assert scaled_error(off, expected, 1000.0) == math.inf


@quick
@given(st.sampled_from(FLOATS), st.floats(-100, 100), st.integers(1, 50))
def test_an_output_of_one_value(dtype: torch.dtype, value: float, count: int) -> None:
    native = torch.full((count,), value, dtype=dtype)
    expected = expect(native.double(), native)
    assert scaled_error(native, expected, 1.0) == 0
    assert scaled_error(native + max(1.0, abs(value)), expected, 1.0) > 1


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2)])
def test_shapes_of_few_elements(shape: tuple[int, ...]) -> None:
    native = torch.ones(shape)
    assert scaled_error(native.clone(), expect(native.double(), native), 1.0) == 0


def test_outputs_larger_than_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    native = gaussian(50, 21, seed=4)
    wrong = native.clone()
    wrong[-1, -1] += 1
    whole = expect(native.double() * 1.0001, native)
    told = scaled_error(native, whole, 1.0), scaled_error(wrong, whole, 1.0)
    monkeypatch.setattr("tilesmith.bench.check.CHUNK", 64)
    parts = expect(native.double() * 1.0001, native)
    assert (parts.variation, parts.rms_lost, parts.most_lost) == pytest.approx(
        (whole.variation, whole.rms_lost, whole.most_lost)
    )
    assert (scaled_error(native, parts, 1.0), scaled_error(wrong, parts, 1.0)) == pytest.approx(told)


def test_answers_in_another_layout_are_read_by_element() -> None:
    native = gaussian(30, 20, seed=5)
    expected = expect(native.double(), native)
    assert scaled_error(native.t().contiguous().t(), expected, 1.0) == 0


def test_finite() -> None:
    right = [torch.ones(3), torch.tensor([1, 2]), "a value", None]
    assert finite(right)
    for wrong in (math.nan, math.inf, -math.inf):
        assert not finite([*right, torch.tensor([1.0, wrong])])


def test_a_sum_that_cancels_is_measured_by_its_terms() -> None:
    torch.manual_seed(0)
    terms = torch.randn(1 << 20)
    terms[0] -= terms.double().sum().float()  # the sum is as near zero as float32 has it
    truth, native = terms.double().sum(), terms.sum()
    nudged = [(terms.double() * (1 + NUDGE * torch.randn(terms.shape).sign().double())).sum() for _ in range(TELLING)]
    honest = torch.stack([terms[start::1000].sum() for start in range(1000)]).sum()
    alone, told = expect(truth, native), expect(truth, native, terms_of(truth, nudged))
    assert told.noise > 100 * alone.noise
    assert scaled_error(honest, told, 1.0) <= 1
    # A sum of half the terms is as wrong as before.
    assert scaled_error(terms[: 1 << 19].sum(), told, 1.0) > 100
