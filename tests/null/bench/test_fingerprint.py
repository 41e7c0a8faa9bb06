"""Cosmetic edits keep the fingerprint; everything that reaches the device changes it. Proven on compiled kernels."""

from __future__ import annotations

from dataclasses import replace

import pytest
from offline_kernels import Kernel, Texts, compile_kernels

from tilesmith.bench.compiled import Choice, Compiled, Operator, Pointer
from tilesmith.bench.fingerprint import fingerprint, normalised
from tilesmith.core.profile import Launch

PLAIN = """
@triton.jit
def scale(x_ptr, o_ptr, n, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < n)
    tl.store(o_ptr + i, x * factor, mask=i < n)
"""
SIGNATURE = {"x_ptr": "*fp32", "o_ptr": "*fp32", "n": "i32", "factor": "fp32", "BLOCK": "constexpr"}

RENAMED = """
# A comment that moves every line.


@triton.jit
def ret(inputs, outputs, count, amount, WIDTH: tl.constexpr):
    "The name of the kernel is that of an instruction."
    at = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)   # "quoted // comment"
    value = tl.load(inputs + at,
                    mask=at < count)

    tl.store(outputs + at, value * amount, mask=at < count)
"""
RENAMED_SIGNATURE = {
    "inputs": "*fp32",
    "outputs": "*fp32",
    "count": "i32",
    "amount": "fp32",
    "WIDTH": "constexpr",
}

HELPED = """
@triton.jit(noinline=True)
def {helper}(x):
    return tl.exp(x) * 2.0

@triton.jit
def {kernel}(x_ptr, o_ptr):
    tl.store(o_ptr, {helper}(tl.load(x_ptr)))
"""
HELPED_SIGNATURE = {"x_ptr": "*fp32", "o_ptr": "*fp32"}


@pytest.fixture(scope="module")
def texts() -> dict[str, Texts]:
    kernels = {
        "plain": Kernel(PLAIN, "scale", SIGNATURE, {"BLOCK": 256}),
        "renamed": Kernel(RENAMED, "ret", RENAMED_SIGNATURE, {"WIDTH": 256}, file="a folder/other.py"),
        "add": Kernel(PLAIN.replace("def scale", "def add"), "add", SIGNATURE, {"BLOCK": 256}),
        "wide": Kernel(PLAIN, "scale", SIGNATURE, {"BLOCK": 256}, warps=8),
        "other": Kernel(PLAIN.replace("x * factor", "x + factor"), "scale", SIGNATURE, {"BLOCK": 256}),
        "helped": Kernel(HELPED.format(helper="helper", kernel="main"), "main", HELPED_SIGNATURE),
        "helped renamed": Kernel(
            HELPED.format(helper="call", kernel="param"), "param", HELPED_SIGNATURE, file="deep/er/mul.py"
        ),
    }
    return dict(zip(kernels, compile_kernels(list(kernels.values())), strict=True))


def launched(text: Texts, names: dict[str, str], **scalars: float) -> Compiled:
    launch = Launch(
        kernel=names["kernel"],
        grid=(40, 1, 1),
        warps=4,
        stages=3,
        shared_bytes=text.shared_bytes,
        registers=16,
        spills=0,
        arguments=tuple(sorted(scalars.items())),
    )
    pointers = tuple(Pointer(names[role], index, "fp32", 40_000) for index, role in enumerate(("in", "out")))
    return Compiled(launch, text.ttir, text.ptx, pointers)


PLAIN_NAMES = {"kernel": "scale", "in": "x_ptr", "out": "o_ptr"}


@pytest.fixture
def plain(texts: dict[str, Texts]) -> Compiled:
    return launched(texts["plain"], PLAIN_NAMES, n=10_000, factor=2.0, BLOCK=256)


def test_names_comments_and_files_do_not_count(texts: dict[str, Texts], plain: Compiled) -> None:
    names = {"kernel": "ret", "in": "inputs", "out": "outputs"}
    renamed = launched(texts["renamed"], names, count=10_000, amount=2.0, WIDTH=256)
    assert texts["renamed"].ptx != texts["plain"].ptx
    assert normalised(texts["renamed"].ptx) == normalised(texts["plain"].ptx)
    assert fingerprint((renamed,), "h200") == fingerprint((plain,), "h200")


@pytest.mark.parametrize(("one", "two"), [("plain", "add"), ("helped", "helped renamed")])
def test_a_name_like_an_instruction_is_told_from_it(texts: dict[str, Texts], one: str, two: str) -> None:
    assert normalised(texts[one].ptx) == normalised(texts[two].ptx)


def test_instructions_survive(texts: dict[str, Texts]) -> None:
    text = normalised(texts["add"].ptx)
    assert "add.s64" in text
    assert ".entry function0(" in text
    assert not [word for word in (".loc", ".file", ".debug", "//", "kernel.py") if word in text]
    assert "ret;" in normalised(texts["renamed"].ptx)


def test_what_reaches_the_device_counts(texts: dict[str, Texts], plain: Compiled) -> None:
    launch = plain.launch
    fill = Operator("aten.zeros", "fill", 40_000)
    shorter = tuple(("n", 9_999) if pair[0] == "n" else pair for pair in launch.arguments)
    calls = {
        "plain": (plain,),
        "code": (launched(texts["other"], PLAIN_NAMES, n=10_000, factor=2.0, BLOCK=256),),
        "warps": (replace(plain, ptx=texts["wide"].ptx, launch=replace(launch, warps=8)),),
        "grid": (replace(plain, launch=replace(launch, grid=(20, 2, 1))),),
        "shared": (replace(plain, launch=replace(launch, shared_bytes=1024)),),
        "scalar": (replace(plain, launch=replace(launch, arguments=shorter)),),
        "twice": (plain, plain),
        "operator before": (fill, plain),
        "operator after": (plain, fill),
        "larger operator": (replace(fill, nbytes=80_000), plain),
        "another operator": (replace(fill, kind="copy"), plain),
        "nothing": (),
    }
    prints = {fingerprint(call, "h200") for call in calls.values()} | {fingerprint((plain,), "a100-80")}
    assert len(prints) == len(calls) + 1


def test_what_the_compiler_baked_in_does_not_count_twice(plain: Compiled) -> None:
    dead = replace(plain.launch, arguments=(*plain.launch.arguments, ("UNUSED", 7)))
    deeper = replace(plain.launch, stages=5, registers=17)
    assert fingerprint((replace(plain, launch=dead),), "h200") == fingerprint((plain,), "h200")
    assert fingerprint((replace(plain, launch=deeper),), "h200") == fingerprint((plain,), "h200")


def test_equal_numbers_of_two_types_differ(plain: Compiled) -> None:
    whole = tuple(("factor", 2) if pair[0] == "factor" else pair for pair in plain.launch.arguments)
    changed = replace(plain, launch=replace(plain.launch, arguments=whole))
    assert fingerprint((changed,), "h200") != fingerprint((plain,), "h200")


def test_swapped_tensors_differ(plain: Compiled) -> None:
    x, o = (replace(pointer, tensor=name) for pointer, name in zip(plain.pointers, ("a", "b"), strict=True))
    straight = replace(plain, pointers=(x, o))
    swapped = replace(plain, pointers=(replace(x, tensor="b"), replace(o, tensor="a")))
    assert fingerprint((straight,), "h200") != fingerprint((swapped,), "h200")


def test_scalars_count_where_the_ir_names_none(plain: Compiled) -> None:
    blind = replace(plain, ttir="")
    shorter = tuple(("n", 9_999) if pair[0] == "n" else pair for pair in plain.launch.arguments)
    changed = replace(blind, launch=replace(plain.launch, arguments=shorter))
    assert fingerprint((blind,), "h200") != fingerprint((changed,), "h200")


def test_a_choice_is_the_set_of_its_configurations_until_one_is_chosen(plain: Compiled) -> None:
    other = replace(plain, launch=replace(plain.launch, grid=(80, 1, 1)))
    open_choice = fingerprint((Choice((plain, other)),), "h200")
    assert fingerprint((Choice((other, plain, other)),), "h200") == open_choice
    assert fingerprint((Choice((plain, other), chosen=0),), "h200") == fingerprint((plain,), "h200")
    assert fingerprint((Choice((plain, other), chosen=1),), "h200") == fingerprint((other,), "h200")
    assert open_choice not in {fingerprint((plain,), "h200"), fingerprint((other,), "h200")}
