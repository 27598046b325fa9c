"""One shard's computation in a worker: a result, or the error that this process would have met."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from grape.core.errors import GrapeError

__all__ = ["Outcome", "attempt"]


@dataclass(frozen=True)
class Outcome:
    """What became of one shard.

    Attributes:
        value: The function's result; None where it raised.
        error: What it raised, or None.
    """

    value: Any = None
    error: BaseException | None = None


def attempt(function: Callable[[Any], Any], shard: Any) -> Outcome:
    """Call the function; what it raises becomes part of the outcome.

    Errors of the project and of the operating system travel as they are. Anything else is a fault of the program: its
    traceback, which would not survive the way to another process, goes into the message.
    """
    try:
        return Outcome(function(shard))
    except (GrapeError, OSError) as error:
        return Outcome(error=error)
    except Exception:
        return Outcome(error=RuntimeError(f"A worker failed.\n{traceback.format_exc()}"))
