"""How many tokens a text has, without the tokenizer of the model that will read it."""

from __future__ import annotations

from tilesmith.core.reply import Prompt

FRAME = 32
"""Tokens, at most, that a chat template wraps around one turn."""


def about(text: str) -> int:
    """A guess, rather high: code has some three bytes a token."""
    return (len(text.encode("utf-8", "replace")) + 2) // 3


def of_prompt(prompt: Prompt) -> int:
    """A guess at the input tokens of a conversation."""
    return about(prompt.system) + sum(about(turn) for turn in prompt.turns)


def at_most(prompt: Prompt) -> int:
    """No tokenizer makes more of a conversation: each of its tokens holds one byte at least."""
    texts = (prompt.system, *prompt.turns)
    return sum(len(text.encode("utf-8", "replace")) + FRAME for text in texts)
