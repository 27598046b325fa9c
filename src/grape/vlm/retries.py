"""Retry delays: exponential backoff with jitter, or what the server asks for."""

import email.utils
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["PASSING", "Retries", "retry_after"]

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""HTTP statuses that may be gone a little later."""


@dataclass(frozen=True)
class Retries:
    """Retry policy.

    Attributes:
        attempts: How often a question is sent at most.
        first_wait: Seconds before the second attempt; doubles with every further one.
        longest_wait: Most seconds between two attempts; a server that asks for more is given up.
        sleep: Waits; tests wait without waiting.
        draw: Random number from 0 to 1, for the jitter.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 90.0
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = random.random

    def wait(self, attempt: int) -> float:
        """Seconds after the attempt with this number, from 0: between half and all of the doubled wait."""
        full = min(self.longest_wait, self.first_wait * 2.0 ** min(attempt, 30))
        return full * (0.5 + 0.5 * self.draw())


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds that the server asks to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date.

    Returns:
        None where it asks for nothing that can be read.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        try:
            seconds = float(text) * scale
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0.0 else None
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError, IndexError):
        return None
    return max(0.0, date.timestamp() - now())
