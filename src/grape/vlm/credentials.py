"""Address and key of an endpoint, read from the environment only and never shown.

The key never becomes part of a settings object, a file, a log line or an error: it lives in a
:class:`~grape.core.secrets.Secret`, whose ``str`` is stars, and it is removed from every text of a server.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from grape.core.errors import SettingsError
from grape.core.files import content_hash
from grape.core.hosts import is_loopback
from grape.core.secrets import Secret

__all__ = ["Endpoint", "endpoint_from_environment"]

BASE_URL, API_KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
DEFAULT_BASE_URL = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Endpoint:
    """Where to send questions.

    Attributes:
        url: Address of the chat completions.
        key: Key of the account; empty for servers that ask for none.
    """

    url: str
    key: Secret = field(default_factory=lambda: Secret(""), compare=False)

    @property
    def hash(self) -> str:
        """SHA-256 of the address, which names it in records without telling it."""
        return content_hash(self.url)

    @property
    def parts(self) -> SplitResult:
        """The address taken apart."""
        return urlsplit(self.url)

    @property
    def local(self) -> bool:
        """Whether it is on this machine, so that nothing leaves it."""
        return is_loopback(self.parts.hostname or "")

    @property
    def is_unencrypted(self) -> bool:
        """Whether the connection is unencrypted, so that others could read a key."""
        return bool(self.key) and self.parts.scheme == "http" and not self.local


def endpoint_from_environment(environment: Mapping[str, str] | None = None) -> Endpoint:
    """The endpoint that ``OPENAI_BASE_URL`` names, with the key in ``OPENAI_API_KEY``.

    Args:
        environment: Where to look; None for the process's own.

    Raises:
        SettingsError: The address is no http(s) address, carries a password or a query, or the default endpoint
            is meant and there is no key.
    """
    variables = os.environ if environment is None else environment
    base, key = variables.get(BASE_URL, "").strip(), variables.get(API_KEY, "").strip()
    if not base and not key:
        raise SettingsError(
            f"No endpoint is known: neither {BASE_URL} nor {API_KEY} is set.",
            f"Set {BASE_URL} (e.g. http://127.0.0.1:8000/v1 for vLLM, http://127.0.0.1:11434/v1 for Ollama) and, "
            f"where it asks for one, {API_KEY}; or take --client local or --client replay.",
        )
    base = (base or DEFAULT_BASE_URL).rstrip("/")
    try:
        parts = urlsplit(base)
        is_fine = (parts.port is None or parts.port > 0) and base.isascii() and base.isprintable()
        is_fine = is_fine and " " not in base and bool((parts.hostname or "").encode("idna"))
    except ValueError:  # also of a host's name that none can have
        parts, is_fine = SplitResult("", "", "", "", ""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_fine:
        raise SettingsError(f"{BASE_URL} is no http or https address.", "For example http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError(f"{BASE_URL} carries a password or a query.", f"Put the key into {API_KEY} instead.")
    if not key.isprintable() or not key.isascii() or " " in key:
        raise SettingsError(f"{API_KEY} holds characters that no key has.", "Copy it once more.")
    return Endpoint(f"{base}/chat/completions", Secret(key))
