"""What is asked of a language model, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilesmith.core.problem import content_id


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation so far: the user's and the model's words in turn; the user speaks first and last."""

    system: str
    turns: tuple[str, ...]

    def answered(self, reply: str, words: str) -> Prompt:
        """The same conversation after a reply, with the user's next words."""
        return Prompt(self.system, (*self.turns, reply, words))

    @property
    def id(self) -> str:
        return content_id(repr((self.system, self.turns)))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the provider counted them. Cached and cache-writing input tokens are not among `input_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """One call of a model that is over, whatever came of it: what was paid for is recorded, failures too."""

    key: str
    """What was asked of whom: the prompt, the model, the sample. A resumed run finds its replies by it."""
    model: str
    """ "provider:name"."""
    text: str
    usage: Usage = field(default_factory=Usage)
    usd: float | None = None
    """None where the price is not known; 0 where it costs nothing."""
    seconds: float = 0.0
    """From the first attempt to the last word, waiting between attempts included."""
    attempts: int = 1
    fault: str | None = None
    """Why there is no usable text, in one sentence: a refusal, a deadline, what the provider said."""
