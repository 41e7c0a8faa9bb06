"""What is read from a reply: one block, as it stands, or a sentence why not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesmith.propose.code import NoCode, blocks, code_block
from tilesmith.propose.words import fenced

FUNCTION = "import torch\n\n\ndef kernel_function(x):\n    return x\n"
MODEL = "from torch import nn\n\n\nclass ModelNew(nn.Module):\n    pass\n"
SNIPPET = (
    "BLOCK = 128\nWARPS = 4\nSTAGES = 3\n"
    "# A longer remark than the whole kernel: tune these, and only these, on every GPU.\n"
)


def python(source: str, label: str = "python") -> str:
    return f"```{label}\n{source}```\n"


@pytest.mark.parametrize(
    "label", ["python", "py", "Python", "python3", 'python title="kernel.py"', "triton", "{.python}"]
)
def test_the_only_block_is_taken_whatever_stands_around_it(label: str) -> None:
    assert code_block(f"Some `prose`.\n\n{python(FUNCTION, label)}\nMore ```of``` it.") == FUNCTION


def test_a_block_needs_no_label_where_it_is_the_only_kind() -> None:
    assert code_block(python(FUNCTION, "")) == FUNCTION


def test_a_labelled_block_goes_before_others() -> None:
    reply = "```\nM = 2048\n```\n\n```bash\npip install triton\n```\n" + python(FUNCTION) + "```text\nout\n```\n"
    assert code_block(reply) == FUNCTION


@pytest.mark.parametrize("source", [FUNCTION, MODEL, "kernel_function = launch\n", "def kernel_function(x:\n"])
def test_of_several_the_one_with_the_entry_point(source: str) -> None:
    assert code_block(python(SNIPPET) + python(source) + python("x = 1\n")) == source


def test_of_several_with_entry_points_the_longest() -> None:
    longer = FUNCTION + "\n# The whole of it.\n"
    assert code_block(python(FUNCTION) + python(longer) + python(SNIPPET * 4)) == longer


def test_a_mention_is_no_definition() -> None:
    assert (
        code_block(
            python("y = kernel_function(torch.ones(3), and_more_of_it_than_the_kernel_has=1)\n" * 3) + python(FUNCTION)
        )
        == FUNCTION
    )


def test_copies_of_one_block_are_one() -> None:
    assert code_block(python(FUNCTION) + "Once more:\n" + python(FUNCTION)) == FUNCTION


def test_equally_long_blocks_are_ambiguous() -> None:
    with pytest.raises(NoCode, match="2 Python code blocks"):
        code_block(python(FUNCTION) + python(FUNCTION.replace("x", "y")))


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        (" \n\n", "empty"),
        ("I cannot help with that.", "no code block"),
        ("import torch\n", "no code block"),
        ("```json\n{}\n```", "labelled json"),
        ("```python\n```", "no code block"),
        ("```python\n" + FUNCTION, "never closed"),
        (python(SNIPPET) + "```python\n" + FUNCTION, "never closed"),
        ("<think>\n```python\nx = 1\n```\n</think>\nNo.", "no code block"),
    ],
)
def test_there_is_no_code(reply: str, reason: str) -> None:
    with pytest.raises(NoCode, match=reason) as caught:
        code_block(reply)
    assert str(caught.value).endswith(".")


def test_a_reply_that_is_the_file() -> None:
    assert code_block(FUNCTION) == FUNCTION
    assert code_block(MODEL.rstrip("\n")) == MODEL


def test_a_fence_too_many_at_the_end_harms_nothing() -> None:
    assert code_block(python(FUNCTION) + "```\n") == FUNCTION


def test_thoughts_do_not_count() -> None:
    assert code_block(f"<think>\nFirst:\n{python(MODEL)}\nNo.\n</think>\n{python(FUNCTION)}") == FUNCTION


def test_a_block_in_a_list_loses_the_list_s_indentation() -> None:
    indented = "".join(f"   {line}" if line.strip() else line for line in python(FUNCTION).splitlines(keepends=True))
    assert code_block(f"1. The file:\n\n{indented}") == FUNCTION


def test_tildes_and_longer_fences() -> None:
    source = FUNCTION.replace("import torch", '"""\n```\nA fence.\n```\n"""')
    assert code_block(f"~~~~python\n{source}~~~~\n") == source
    assert code_block(f"````python\n{source}````\n") == source


def test_an_indented_fence_in_a_docstring_closes_nothing() -> None:
    source = 'def kernel_function(x):\n    """Like this:\n\n    ```\n    f(x)\n    ```\n    """\n    return x\n'
    assert code_block(python(source)) == source


def test_nothing_is_mended() -> None:
    source = "def kernel_function(x):\r\n\treturn '\\d' + x   \n\n\x0c\n"
    assert code_block(python(source)) == source


@given(st.text(st.characters(codec="utf-8")))
def test_a_quoted_text_comes_back(text: str) -> None:
    (block,) = blocks("Before.\n\n" + fenced(text, "python") + "\n\nAfter.")
    assert block.closed
    assert block.text == (text if text.endswith("\n") else text + "\n")


@given(st.text(st.sampled_from("`~ \npython#x")))
def test_any_reply_gives_code_or_a_reason(reply: str) -> None:
    try:
        source = code_block(reply)
    except NoCode as reason:
        source = str(reason)
    assert source.strip()
