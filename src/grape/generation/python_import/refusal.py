"""Why a part of a function has no counterpart in the language."""

import math

__all__ = ["TranslationError", "finite"]

LARGEST = 1e6


class TranslationError(Exception):
    """A part of a function has no counterpart in the language; the message is the reason, without a full stop."""


def finite(value: float) -> float:
    """The value itself.

    Raises:
        TranslationError: It is beyond any length or angle.
    """
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise TranslationError("holds a number beyond any length or angle")
    return value
