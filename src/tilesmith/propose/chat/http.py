"""What HTTP says of a failed attempt, the same for both protocols."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping

from tilesmith.propose.chat.wire import Fault
from tilesmith.propose.chat.words import sentence

PASSING = frozenset({"overloaded_error", "rate_limit_error", "api_error", "timeout_error", "server_error"})
"""Kinds of error that providers report inside of a stream that began well."""


def status_fault(status: int, kind: str, message: str, headers: Mapping[str, str]) -> Fault:
    """The fault of an answer with this status and this kind of error in its body."""
    said = sentence(message) or "no message"
    if status < 400:
        return Fault(f"the provider broke off: {said}", passing=kind in PASSING)
    # A bill that nobody paid has the status of too many calls, and waiting mends nothing.
    passing = (status == 429 and kind != "insufficient_quota") or status >= 500
    return Fault(f"the provider answered {status}: {said}", passing, after_s(headers) if passing else None, status)


def connection_fault(cause: BaseException) -> Fault:
    """The fault of a request that got no answer, from the HTTP client's own error."""
    if _timed_out(cause):
        # A request that was sent may be paid for; only one that never left is sent again.
        unsent = type(cause).__name__ in ("ConnectTimeout", "PoolTimeout")
        return Fault("the provider did not answer before the idle limit", passing=unsent)
    return Fault(f"no connection to the provider ({sentence(str(cause)) or type(cause).__name__})", passing=True)


def stream_fault(error: BaseException) -> Fault:
    """The fault of an answer that began well. It is not asked for again: what came of it is paid for."""
    if _timed_out(error):
        return Fault("the provider's stream stalled beyond the idle limit")
    if isinstance(error, ValueError | TypeError | LookupError | AttributeError):
        return Fault(f"the provider sent what is not of its protocol ({type(error).__name__})")
    return Fault(f"the provider's stream was cut ({type(error).__name__})")


def _timed_out(error: BaseException) -> bool:
    # By name: the HTTP client is the SDK's choice, not ours to import.
    return type(error).__name__.endswith(("Timeout", "TimeoutException", "TimeoutError"))


def after_s(headers: Mapping[str, str]) -> float | None:
    """How long the answer asks to wait: `retry-after-ms`, else `retry-after` in seconds or as a date."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * scale
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        until = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    return max(0.0, until.timestamp() - time.time())
