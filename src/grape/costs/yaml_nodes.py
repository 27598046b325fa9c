"""YAML read as marked nodes, so that every complaint names its line and field; nothing is ever constructed from tags.

Specifications may come from other people and from models. Anchors and aliases (which can blow a small file up), tags,
several documents, repeated keys and deep nesting are refused.
"""

from collections.abc import Collection
from typing import TypeAlias

import yaml

from grape.core.errors import DataError, did_you_mean

__all__ = ["NodeReader", "compose"]

MAX_CHARACTERS = 262_144
MAX_DEPTH = 24
MAX_ITEMS = 1024
"""Of a list: names are compared with each other, so that a longer one would only keep the machine busy."""

Node: TypeAlias = yaml.nodes.Node

_STRING, _NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def compose(text: str, source: str) -> Node:
    """Root node of the one YAML document in ``text``.

    Raises:
        DataError: Not YAML, empty, too large or deep, or using what is refused; the line is named.
    """
    hint = "See docs/costs.md for the language."
    if len(text) > MAX_CHARACTERS:
        raise DataError(f"{source} has {len(text)} characters; a specification has at most {MAX_CHARACTERS}.", hint)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark is not None else 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise DataError(f"{source}, line {line}: anchors and aliases are not accepted.", hint)
            if tag := getattr(event, "tag", None):
                raise DataError(f"{source}, line {line}: tags such as {tag!r} are not accepted.", hint)
            if any(map(_is_surrogate, getattr(event, "value", None) or "")):
                raise DataError(f"{source}, line {line}: not valid Unicode text (a lone surrogate).", hint)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise DataError(f"{source}, line {line}: nested deeper than {MAX_DEPTH} levels.", hint)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # OverflowError: an escape too large
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DataError(f"{source}{where}: not YAML: {what}.", hint) from error
    if root is None:
        raise DataError(f"{source} is empty.", hint)
    return root


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


class NodeReader:
    """Takes nodes apart and collects what is wrong with them instead of stopping at the first problem.

    Attributes:
        problems: Line, field and what is wrong.
    """

    def __init__(self) -> None:
        self.problems: list[tuple[int, str, str]] = []

    def problem(self, node: Node, where: str, message: str) -> None:
        """Note what is wrong with the field ``where``."""
        self.problems.append((node.start_mark.line + 1, where or "top level", message))

    def mapping(
        self, node: Node, where: str, required: Collection[str] = (), optional: Collection[str] = ()
    ) -> dict[str, Node]:
        """Fields of a mapping by name; unknown, repeated and missing ones are noted.

        An optional field that is ``null`` counts as absent: structured output of models must name every field.
        """
        fields = self.entries(node, where)
        known = [*required, *optional]
        for name in list(fields):
            if name not in known:
                self.problem(fields.pop(name), _join(where, name), f"unknown field. {did_you_mean(name, known)[:-1]}")
        for name in optional:
            if name in fields and fields[name].tag == _NULL and fields[name].value:
                fields.pop(name)
        for name in required:
            if name not in fields and isinstance(node, yaml.MappingNode):
                self.problem(node, where, f"field '{name}' is missing")
        return fields

    def entries(self, node: Node, where: str) -> dict[str, Node]:
        """Fields of a mapping by name, whatever the names."""
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, where, f"expected a mapping, found {_kind(node)}")
            return {}
        fields: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(key, where, "a field's name must be plain text")
            elif key.value in fields:
                self.problem(key, _join(where, key.value), "given twice")
            else:
                fields[key.value] = value
        return fields

    def sequence(self, node: Node, where: str) -> list[tuple[Node, str]]:
        """Items of a list with the name of each item's place."""
        if not isinstance(node, yaml.SequenceNode):
            self.problem(node, where, f"expected a list, found {_kind(node)}")
            return []
        if len(node.value) > MAX_ITEMS:
            self.problem(node, where, f"has {len(node.value)} items; a list has at most {MAX_ITEMS}")
        return [(item, f"{where}[{number}]") for number, item in enumerate(node.value[:MAX_ITEMS])]

    def text(self, node: Node, where: str) -> str:
        """A string; empty with a problem noted where it is none."""
        if isinstance(node, yaml.ScalarNode) and node.tag == _STRING and node.value:
            return str(node.value)
        self.problem(node, where, f"expected text, found {_kind(node)}")
        return ""

    def number_or_text(self, node: Node, where: str) -> str:
        """The characters of a number or a string, for quantities; empty with a problem noted otherwise."""
        if isinstance(node, yaml.ScalarNode) and node.tag in (_STRING, *_NUMBERS) and node.value:
            return str(node.value)
        self.problem(node, where, f"expected a number or a quantity, found {_kind(node)}")
        return ""


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _kind(node: Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if node.tag == _NULL or not node.value:
        return "nothing"
    return f"{node.value!r}" + (" (put it in quotes)" if node.tag not in (_STRING, *_NUMBERS) else "")
