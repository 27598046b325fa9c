"""Parsing and formatting of number selections: ``"10,11-20"``."""

from grape.core.errors import SettingsError

__all__ = ["MOST_NUMBERS", "format_numbers", "parse_numbers"]

MOST_NUMBERS = 10_000_000
"""A selection of more numbers is taken for a slip of the hand: it would only fill the memory."""

_MOST_DIGITS = 18  # of a number; Python refuses to read much longer ones


def parse_numbers(text: str, what: str) -> tuple[int, ...]:
    """Numbers named by a list of numbers and inclusive ranges, in the order given and without repetition.

    Args:
        text: For example ``"10,11-20"``.
        what: What is counted, for messages, e.g. ``"initial states"``.

    Raises:
        SettingsError: The text is empty or not of this form, a range runs backwards, or there are more than
            :data:`MOST_NUMBERS`.
    """
    numbers: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise SettingsError(
                f"'{text}' names no {what}: {part.strip()!r} is not understood.",
                "Write numbers and inclusive ranges, e.g. 10,11-20.",
            )
        if max(len(first), len(last)) > _MOST_DIGITS:
            raise SettingsError(f"The {what} name a number of more than {_MOST_DIGITS} digits.", "Check the range.")
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise SettingsError(f"'{part.strip()}' in the {what} runs backwards.", f"Write {high}-{low}.")
        if len(numbers) + high - low >= MOST_NUMBERS:
            raise SettingsError(
                f"'{text}' names more than {MOST_NUMBERS} {what}.", "Check the range, or split the work into several."
            )
        numbers |= dict.fromkeys(range(low, high + 1))
    return tuple(numbers)


def format_numbers(numbers: tuple[int, ...]) -> str:
    """Shortest text that :func:`parse_numbers` reads back as the sorted ``numbers``."""
    parts: list[str] = []
    ordered = sorted(set(numbers))
    start = 0
    for i in range(1, len(ordered) + 1):
        if i == len(ordered) or ordered[i] != ordered[i - 1] + 1:
            first, last = ordered[start], ordered[i - 1]
            parts.append(str(first) if first == last else f"{first}-{last}")
            start = i
    return ",".join(parts)
