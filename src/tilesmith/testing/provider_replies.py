"""How models answer when they are asked for a kernel: well, in too many words, in none, late, or not at all."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from tilesmith.testing.provider import Asked, Behaviour, Script


def plain(code: str) -> str:
    """One code block and nothing else."""
    return f"```python\n{code}\n```\n"


def prose(code: str) -> str:
    """One code block in the midst of words."""
    return (
        "The kernel waits for memory, so each program should load more at once. I keep `BLOCK` a power of two.\n\n"
        f"{plain(code)}\nTwo things to check: the mask of the last tile, and whether `num_stages=3` still fits.\n"
    )


def three_blocks(code: str) -> str:
    """The answer between what it is not."""
    return (
        f"The loop was\n\n{plain('for k in range(0, K, BLOCK_K):')}\nHere is the whole file.\n\n{plain(code)}\n"
        "Run it with\n\n```bash\npython kernel.py\n```\n"
    )


def no_code() -> str:
    """Advice."""
    return "I would first profile the kernel. Could you tell me which GPU it runs on?\n"


LIMITED = Behaviour(status=429, kind="rate_limit_error", message="too many requests", retry_after_s=0.0)
BROKEN = Behaviour(status=503, kind="overloaded_error", message="overloaded")
REFUSED = Behaviour(text="", end="refusal")


@dataclass(frozen=True, slots=True)
class Latency:
    """How long answers take: log-normal with this mean, of this width; always the mean where the width is 0."""

    mean_s: float
    sigma: float = 0.0
    """Of the logarithm: 0.5 puts nine of ten answers between 0.39 and 2.0 times the mean."""

    def draw_s(self, draws: random.Random) -> float:
        return self.mean_s * math.exp(self.sigma * draws.gauss(0.0, 1.0) - self.sigma**2 / 2)


@dataclass(frozen=True, slots=True)
class Shares:
    """Which share of the requests meets which fate; all others get one code block, with words around half of them."""

    limited: float = 0.0
    broken: float = 0.0
    stalled: float = 0.0
    cut: float = 0.0
    rubbish: float = 0.0
    refused: float = 0.0
    no_code: float = 0.0
    three_blocks: float = 0.0


def seeded(seed: int, codes: Sequence[str], latency: Latency, shares: Shares | None = None) -> Script:
    """A script in which chance rules, the same every time: the fate of a request depends on the seed, its model, its
    words and how often it came before, not on the order in which requests arrive."""
    shares = shares or Shares()
    fates = [each.name for each in fields(shares)]
    weights = [getattr(shares, fate) for fate in fates]
    if min(weights) < 0 or sum(weights) > 1:
        raise ValueError("shares are of one: none negative, no more than 1 together")

    def script(asked: Asked) -> Behaviour:
        draws = random.Random(f"{seed}/{asked.model}/{asked.prompt.id}/{asked.repeat}")
        fate = draws.choices([*fates, "plain", "prose"], [*weights, *[(1 - sum(weights)) / 2] * 2])[0]
        code = draws.choice(codes)
        latency_s = latency.draw_s(draws)
        words = {"no_code": no_code(), "three_blocks": three_blocks(code), "prose": prose(code)}
        answer = Behaviour(words.get(fate, plain(code)), latency_s)
        match fate:
            case "limited":
                return LIMITED
            case "broken":
                return BROKEN
            case "refused":
                return replace(REFUSED, latency_s=latency_s)
            case "stalled":
                return replace(answer, failure="stall")
            case "cut":
                return replace(answer, failure="cut")
            case "rubbish":
                return replace(answer, failure="rubbish")
            case _:
                return answer

    return script
