"""Text that is sent and never shown: keys of accounts, tokens of servers."""

import re

__all__ = ["Secret"]

_SHOWN = "[secret]"
_TOKEN = re.compile(r"(?i)\b(?:bearer\s+|(?:sk|pk|hf|gsk|xai)[-_])[A-Za-z0-9_\-.=]{8,}")


class Secret:
    """Text that is sent, and never shown."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself, for the one header that needs it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(***)" if self._value else "Secret('')"

    def __reduce__(self) -> tuple[type["Secret"], tuple[str]]:
        raise TypeError("a secret is not written anywhere")

    def cleanse(self, text: str) -> str:
        """The text without the secret, and without anything else that looks like a key."""
        if len(self._value) >= 4:  # shorter ones, like vLLM's "EMPTY"'s kin, would blank ordinary words
            text = text.replace(self._value, _SHOWN)
        return _TOKEN.sub(_SHOWN, text)
