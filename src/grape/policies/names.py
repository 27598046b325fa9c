"""What a policy may be called: a folder on this machine, or a name on the Hugging Face hub. No torch, no network."""

import re
from dataclasses import dataclass
from pathlib import Path

from grape.core.errors import SettingsError

__all__ = ["HubName", "check_policy_name", "parse_hub_name"]

_PATTERN = re.compile(
    r"^(?:(?P<forced>hf):/{1,2})?"
    r"(?P<repository>[A-Za-z0-9](?:[\w.-]*\w)?/[A-Za-z0-9](?:[\w.-]*\w)?)"
    r"(?:@(?P<revision>[\w./-]+))?$",
    re.ASCII,
)


@dataclass(frozen=True)
class HubName:
    """A checkpoint on the hub.

    Attributes:
        repository: ``organisation/name``.
        revision: Branch, tag or commit; None for the newest.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


def parse_hub_name(policy: Path | str) -> HubName | None:
    """The hub's name behind what a user wrote, or None where only a folder can be meant.

    ``organisation/name`` and ``organisation/name@revision`` are names, unless there is a folder ``organisation`` here:
    then it is a path, mistyped perhaps, and ``hf://organisation/name`` says otherwise.

    Args:
        policy: What the user wrote.
    """
    match = _PATTERN.match(str(policy))
    if match is None or ".." in match["repository"]:
        return None
    if not match["forced"] and (Path(policy).exists() or Path(policy).parent.exists()):
        return None
    return HubName(match["repository"], match["revision"])


def check_policy_name(policy: Path | str, flag: str = "--policy") -> None:
    """Refuse what is neither a folder nor could be a name on the hub; nothing is opened.

    Args:
        policy: What the user wrote.
        flag: How it was given, for the message.

    Raises:
        SettingsError: There is no such folder.
    """
    path = Path(policy)
    if path.is_dir() or parse_hub_name(policy) is not None:
        return
    if path.exists():
        raise SettingsError(f"{flag} {policy} is a file.", "Give the checkpoint's folder.")
    hint = "Give a folder made by 'grape sft' or 'grape train' (its policy/ folder), or a published checkpoint's."
    named = _PATTERN.match(str(policy))
    if named is not None:
        hint += f" For the hub, write hf://{named['repository']}: there is a folder {path.parent} here."
    raise SettingsError(f"{flag} {policy}: no such checkpoint folder.", hint)
