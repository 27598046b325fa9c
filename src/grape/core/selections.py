"""Numbers chosen in words: ``"10,11-20"``."""

from grape.core.errors import SettingsError

__all__ = ["format_numbers", "parse_numbers"]


def parse_numbers(text: str, what: str) -> tuple[int, ...]:
    """Numbers named by a list of numbers and inclusive ranges, in the order given and without repetition.

    Args:
        text: For example ``"10,11-20"``.
        what: What is counted, for messages, e.g. ``"initial states"``.

    Raises:
        SettingsError: The text is empty or not of this form, or a range runs backwards.
    """
    numbers: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise SettingsError(
                f"'{text}' names no {what}: {part.strip()!r} is not understood.",
                "Write numbers and inclusive ranges, e.g. 10,11-20.",
            )
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise SettingsError(f"'{part.strip()}' in the {what} runs backwards.", f"Write {high}-{low}.")
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
