"""Specifications as files: plain YAML without anchors, under a comment that states their origin."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from grape.core.errors import DataError, SettingsError
from grape.core.files import sweep_beside, write_text
from grape.core.reading import read_file

__all__ = ["document_text", "write_new"]


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out: the language refuses anchors."""
        return True


def document_text(document: Mapping[str, Any], remarks: Sequence[str] = ()) -> str:
    """A specification's document as YAML.

    Args:
        document: JSON values.
        remarks: Lines of a comment at the top.
    """
    head = "".join(f"# {' '.join(line.split())}\n" for line in remarks)
    return head + yaml.dump(
        dict(document), Dumper=_PlainDumper, sort_keys=False, width=110, default_flow_style=None, allow_unicode=True
    )


def write_new(path: Path, text: str) -> None:
    """Write a file atomically that is not there yet, or holds the same already.

    Raises:
        SettingsError: Something else stands under ``path``.
    """
    if path.exists() and not _holds(path, text.encode()):
        raise SettingsError(f"--out {path} exists and holds something else.", "Choose another --out, or remove it.")
    sweep_beside(path)
    write_text(path, text)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_file(path, max_bytes=len(data)) == data
    except DataError:  # a folder, a device, something larger
        return False
