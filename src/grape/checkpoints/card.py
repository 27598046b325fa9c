"""The model card of an export: what it is, what it was made from, how it is loaded.

Its header also says which export a folder holds, so that a repeated command recognizes finished work and no
other folder is ever replaced.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["CARD", "Card", "read_identity"]

CARD = "README.md"
_KEY = "grape_export"


@dataclass(frozen=True)
class Card:
    """Content of a model card.

    Attributes:
        title: First heading.
        identity: Hash of everything that decides the export's bytes.
        base_model: Name of the base on the hub; empty if it has none.
        description: What the folder holds and how it is loaded, in Markdown.
        command: The command that made it.
        versions: Releases that made it, by package.
        sources: SHA-256 by name of the files it was made from.
        written: SHA-256 by name of the weights that were written.
        statistics: Names of the normalization statistics.
        library: Library that loads the weights, by the hub's name.
    """

    title: str
    identity: str
    base_model: str
    description: str
    command: str
    versions: Mapping[str, str]
    sources: Mapping[str, str]
    written: Mapping[str, str]
    statistics: Sequence[str]
    library: str

    def markdown(self) -> str:
        """The card's text; equal content gives equal text, and no time of day is in it."""
        header: dict[str, Any] = {
            "library_name": self.library,
            "pipeline_tag": "robotics",
            "tags": ["vla", "openvla", "robotics"],
            **({"base_model": self.base_model} if self.base_model else {}),
            _KEY: self.identity,
        }
        versions = ", ".join(f"{name} {version}" for name, version in sorted(self.versions.items()))
        keys = ", ".join(f"`{name}`" for name in sorted(self.statistics))
        return "\n".join(
            [
                "---",
                yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip(),
                "---",
                "",
                f"# {self.title}",
                "",
                self.description,
                "",
                f"Normalization statistics (`unnorm_key`): {keys}.",
                "",
                "## Where it comes from",
                "",
                f"Made by `{self.command}` with {versions}.",
                "",
                *_table("made from", self.sources),
                "",
                *_table("weights here", self.written),
                "",
                "License, intended use and limits are those of the base checkpoint and of the data it was trained on. "
                "A policy moves a real machine: try it in simulation first.",
                "",
            ]
        )


def _table(title: str, hashes: Mapping[str, str]) -> list[str]:
    rows = [f"| `{name}` | `{digest}` |" for name, digest in sorted(hashes.items())]
    return [f"| {title} | SHA-256 |", "|---|---|", *rows]


def read_identity(folder: Path) -> str:
    """The identity recorded in a folder's model card; empty if the folder holds no export of GRAPE."""
    try:
        _, header, _ = (folder / CARD).read_text(encoding="utf-8").split("---\n", 2)
        data = yaml.safe_load(header)
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    value = data.get(_KEY) if isinstance(data, dict) else None
    return value if isinstance(value, str) else ""
