"""The one code block of a reply.

Fences are read as CommonMark has them: three or more backticks or tildes, closed by at least as many of the same at no
deeper indentation than three more spaces. What is taken is taken as it stands; nothing is mended.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

ENTRY_POINTS = ("kernel_function", "ModelNew")
PYTHON = frozenset(("python", "python3", "py", "py3", "triton"))
"""Labels of a block that holds Python."""

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})(.*)$")
_DEFINED = re.compile(r"^(?:def kernel_function|class ModelNew)\b", re.MULTILINE)
_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


class NoCode(ValueError):
    """A reply has no one code block to take. The message is a sentence that its model can answer."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    label: str
    """The first word after the fence, in lower case; empty without one."""
    text: str
    """Its lines, each with its end; of a block in a list without the fence's indentation."""
    closed: bool


def spoken(reply: str) -> str:
    """A reply without what it thinks aloud first, in <think>."""
    return _THINKING.sub("", reply, count=1)


def blocks(text: str) -> tuple[Block, ...]:
    """Every fenced block, in order; one that is never closed reaches to the end."""
    found: list[Block] = []
    fence, indent, label = "", 0, ""
    lines: list[str] = []
    for line in text.split("\n"):
        matched = _FENCE.match(line.rstrip("\r"))
        if not fence:
            # The label of a backtick fence holds no backtick: ```x``` is code within a line.
            if matched and not (matched[2][0] == "`" and "`" in matched[3]):
                fence, indent, lines = matched[2], len(matched[1]), []
                label = (re.findall(r"[\w+#-]+", matched[3].lower()) or [""])[0]
        elif matched and matched[2].startswith(fence) and not matched[3].strip() and len(matched[1]) <= indent + 3:
            found.append(Block(label, "".join(lines), True))
            fence = ""
        else:
            outer = len(line) - len(line.lstrip(" \t"))
            lines.append(line[min(indent, outer) :] + "\n")
    if fence:
        found.append(Block(label, "".join(lines), False))
    return tuple(found)


def code_block(reply: str) -> str:
    """The source that a reply proposes, the whole file.

    The only Python block is taken; where no block is labelled, the only one without a label. Of several the one that
    defines the entry point; of several such, or none, the longest, where one is. Without any fence the whole reply,
    where it is Python that defines an entry point. What a reply thinks aloud first, in <think>, does not count.

    Raises `NoCode`: no block, an empty or ambiguous one, or one that is never closed, as a reply is that was cut.
    """
    answer = spoken(reply)
    if not answer.strip():
        raise NoCode("The reply is empty.")
    fenced = [block for block in blocks(answer) if block.text.strip()]
    held = [block for block in fenced if block.label in PYTHON] or [block for block in fenced if not block.label]
    if any(not block.closed for block in held):
        raise NoCode(
            "The reply ends inside its code block, which is never closed: it seems to have been cut. "
            "Reply with the code block alone, and keep the file shorter if you can."
        )
    if not held:
        if not fenced and _entry_point(answer, strict=True):
            return answer if answer.endswith("\n") else answer + "\n"
        others = sorted({block.label for block in fenced})
        if others:
            raise NoCode(f"The reply has no Python code block; its blocks are labelled {', '.join(others)}.")
        raise NoCode("The reply has no code block.")
    texts = list(dict.fromkeys(block.text for block in held))
    chosen = [text for text in texts if _entry_point(text)] or texts
    longest = max(chosen, key=len)
    if sum(len(text) == len(longest) for text in chosen) > 1:
        raise NoCode(
            f"The reply has {len(texts)} Python code blocks, and it is not clear which one is the answer. "
            "Reply with exactly one, which holds the whole file."
        )
    return longest


def _entry_point(source: str, *, strict: bool = False) -> bool:
    """Whether a source defines an entry point; unless `strict`, one that does not parse may, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return not strict and _DEFINED.search(source) is not None
    return any(name in ENTRY_POINTS for statement in tree.body for name in _defined(statement))


def _defined(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return [name]
        case _:
            return []
