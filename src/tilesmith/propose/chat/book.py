"""What is known of providers and prices, built in or from the user's file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from tilesmith.core.reply import Usage

Protocol = Literal["anthropic", "openai", "command", "replay"]
OutputLimit = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, slots=True)
class Rates:
    """USD for a million tokens."""

    input: float
    output: float
    cache_read: float
    cache_write: float

    def usd(self, usage: Usage) -> float:
        return (
            usage.input_tokens * self.input
            + usage.output_tokens * self.output
            + usage.cache_read_tokens * self.cache_read
            + usage.cache_write_tokens * self.cache_write
        ) / 1e6


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs. Some charge every token of a call more where the prompt is long."""

    rates: Rates
    long_above: int | None = None
    """Input tokens, cached ones included, beyond which `long` holds."""
    long: Rates | None = None

    def usd(self, usage: Usage) -> float:
        """The cost of one call."""
        return self._rates(usage.tokens - usage.output_tokens).usd(usage)

    def most_usd(self, input_tokens: int, output_tokens: int) -> float:
        """The cost of a call with no more tokens than these, whatever of them is cached."""
        rates = self._rates(input_tokens)
        dearest = max(rates.input, rates.cache_read, rates.cache_write)
        return (input_tokens * dearest + output_tokens * rates.output) / 1e6

    def _rates(self, input_tokens: int) -> Rates:
        if self.long is not None and self.long_above is not None and input_tokens > self.long_above:
            return self.long
        return self.rates


DATED = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")
"""The end of a name that pins a model to a day. The model costs the same without it."""

FREE = Price(Rates(0.0, 0.0, 0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Provider:
    """Who serves models, how to reach them, and how much may be asked of them at once."""

    name: str
    protocol: Protocol
    base_url: str | None = None
    key_env: str | None = None
    """The environment variable that holds the key; None: none is needed."""
    concurrent: int = 32
    """Calls in flight, over all models of the provider."""
    tokens_per_minute: int | None = None
    """Over all models of the provider, input and output together. None: as many as it gives."""
    idle_s: float = 120.0
    """A stream that sends nothing for this long is given up."""
    free: bool = False
    """Whether its models cost nothing where no price says otherwise."""
    output_limit: OutputLimit = "max_tokens"
    """The name under which the OpenAI protocol is told the most output tokens: the service itself wants the longer
    one, most that are compatible know the older."""


BUILT_IN: tuple[Provider, ...] = (
    Provider("anthropic", "anthropic", "https://api.anthropic.com", "ANTHROPIC_API_KEY"),
    Provider("openai", "openai", "https://api.openai.com/v1", "OPENAI_API_KEY", output_limit="max_completion_tokens"),
    Provider("gemini", "openai", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
    Provider("openrouter", "openai", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    Provider("vllm", "openai", "http://localhost:8000/v1", concurrent=256, idle_s=300.0, free=True),
    Provider("ollama", "openai", "http://localhost:11434/v1", concurrent=4, idle_s=300.0, free=True),
    Provider("command", "command", concurrent=4),
    Provider("replay", "replay", concurrent=1024, free=True),
)


@dataclass(frozen=True, slots=True)
class ModelBook:
    """Providers by name, prices by "provider:model"."""

    providers: Mapping[str, Provider] = field(default_factory=lambda: {each.name: each for each in BUILT_IN})
    prices: Mapping[str, Price] = field(default_factory=dict)
    as_of: date | None = None
    """The day when the packaged prices were read."""

    def price(self, name: str) -> Price | None:
        """What the model of this "provider:model" costs; None where nobody knows."""
        provider = self.providers.get(name.partition(":")[0])
        known = self.prices.get(name) or self.prices.get(DATED.sub("", name))
        return known or (FREE if provider is not None and provider.free else None)

    @property
    def key_variables(self) -> frozenset[str]:
        """The environment variables that hold keys: no other process needs to see them."""
        return frozenset(each.key_env for each in self.providers.values() if each.key_env is not None)
