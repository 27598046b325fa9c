"""Text from outside, made safe to print: control characters appear escaped and do nothing."""

import re

__all__ = ["printable", "shortened"]

_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # direction, separators, invisible marks
    "\ud800-\udfff\U000e0000-\U000e007f]"  # lone surrogates, tags
)


def printable(text: str) -> str:
    r"""The text with everything escaped that would move the cursor, change colors, or hide or reorder characters.

    Tabs and newlines stay. An escape character becomes ``\x1b``, a right-to-left override ``\u202e``; what a terminal
    would execute is thus shown.
    """
    return text if text.isprintable() else _ACTIVE.sub(_escaped, text)


def shortened(text: str, most: int = 8000) -> str:
    """The text; of a longer one its beginning and its end, and how much is missing between them."""
    if len(text) <= most:
        return text
    head, tail = most * 3 // 4, most // 4
    return f"{text[:head]} [... {len(text) - head - tail:,} characters left out ...] {text[-tail:]}"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
