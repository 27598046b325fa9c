"""The texts that a model reads, from files of the package, with untrusted words kept apart from ours.

The version of the prompts is the hash of all texts and of the vocabulary they are filled with; it is recorded with
every specification.
"""

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from grape.costs.vocabulary import vocabulary_table

__all__ = ["data_block", "prompt", "prompts_hash", "repair_prompt", "system_prompt", "task_prompt"]

_NAMES = ("system.md", "task.md", "repair.md", "with_picture.md", "without_picture.md", "example.json")
_PLACE = re.compile(r"\{\{(\w+)\}\}")


@functools.cache
def _text(name: str) -> str:
    return (resources.files("grape.generation") / "prompts" / name).read_text(encoding="utf-8").strip()


def prompt(name: str, **values: str) -> str:
    """A prompt with its places filled; what is filled in is not looked at again.

    Args:
        name: File in the folder ``prompts``.
        values: Text for each place.
    """
    return _PLACE.sub(lambda match: values[match[1]], _text(name))


def prompts_hash() -> str:
    """SHA-256 over all prompts and the vocabulary, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for text in (*map(_text, _NAMES), vocabulary_table()):
        digest.update(len(text.encode()).to_bytes(8, "big") + text.encode())
    return digest.hexdigest()


def data_block(value: Any) -> str:
    """Untrusted words as JSON that cannot leave its place: plain ASCII, and no angle bracket to close a mark with."""
    text = json.dumps(value, indent=1, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def system_prompt() -> str:
    """What the model is told before any task."""
    return prompt("system.md", vocabulary=vocabulary_table(), example=_text("example.json"))


def task_prompt(task: Mapping[str, Any], has_image: bool) -> str:
    """The question about one task; everything of the task stands in a block of data."""
    image = _text("with_picture.md" if has_image else "without_picture.md")
    return prompt("task.md", task=data_block(task), picture=image)


def repair_prompt(findings: Sequence[str]) -> str:
    """What is wrong with an answer; findings may quote the answer and are data too."""
    return prompt("repair.md", findings=data_block(list(findings)))
