"""From what a model wrote to a specification's document: found, bounded, and put under our own header.

Whatever the text tries, it can become data of the language or a finding, nothing else.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from grape.core.errors import DataError
from grape.costs.yaml_nodes import MAX_CHARACTERS, MAX_DEPTH, compose
from grape.generation.briefs import TaskBrief, plain_words

__all__ = ["document_of"]

FIELDS = ("description", "keypoints", "signals", "stages", "every_stage", "outcome")
"""What is taken from an answer; version, suite, task, limit and rate are ours."""

MAX_DESCRIPTION = 240

_FENCE = re.compile(r"```[A-Za-z]*\n(.*?)(?:```|\Z)", re.DOTALL)


def document_of(text: str, brief: TaskBrief) -> dict[str, Any]:
    """The specification that an answer holds.

    Args:
        text: The answer: JSON, or YAML, possibly between fences and with words around it.
        brief: The task that was asked about.

    Raises:
        DataError: There is no such thing in it; the message says what to answer instead.
    """
    found = _mapping(text)
    if not isinstance(found.get("stages"), list):
        raise DataError("The answer holds no list 'stages'.")
    document = brief.header()
    for name in FIELDS:
        if found.get(name) is not None:
            document[name] = _bounded(found[name], 0)
    for name in ("keypoints", "signals"):
        document.setdefault(name, [])
    if isinstance(document["keypoints"], list):
        document["keypoints"] = [_declared(item, brief) for item in document["keypoints"]]
    return document


def _declared(item: Any, brief: TaskBrief) -> Any:
    """A keypoint's name, or where it comes from if that is a point on the picture."""
    if isinstance(item, str) and item in brief.numbered:
        return {"name": item, "picture": brief.numbered[item]}
    return item


def _mapping(text: str) -> dict[str, Any]:
    if len(text) > MAX_CHARACTERS:
        raise DataError(f"The answer has {len(text)} characters; at most {MAX_CHARACTERS} are read.")
    fenced = _FENCE.search(text)
    beside: dict[str, Any] | None = None
    for candidate in (fenced[1] if fenced else "", text[text.find("{") :] if "{" in text else "", text):
        if not candidate.strip():
            continue
        try:
            found, _ = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(candidate.strip())
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and "stages" in found:
            return found
        beside = beside or (found if isinstance(found, dict) else None)
    try:
        return _from_yaml(fenced[1] if fenced else text)
    except DataError:
        if beside is None:
            raise
        return beside


def _from_yaml(text: str) -> dict[str, Any]:
    try:
        compose(text, "The answer")  # refuses anchors, tags, depth
        found = yaml.safe_load(text)
    except (DataError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"The answer is no complete JSON object ({_place(text)}).") from error
    if not isinstance(found, dict):
        raise DataError("The answer is no JSON object; answer with one and nothing else.")
    return {str(key): value for key, value in found.items()}


def _place(text: str) -> str:
    """Where its JSON stops making sense."""
    try:
        json.loads(text[text.find("{") :] if "{" in text else text)
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return plain_words(str(error), 120)
    return "it does not start with one"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _bounded(value: Any, depth: int) -> Any:
    """The same values, with free text as one short visible line and nothing nested beyond the language's depth."""
    if depth > MAX_DEPTH:
        raise DataError(f"The answer is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, Mapping):
        return {
            plain_words(str(key), 128): plain_words(inner, MAX_DESCRIPTION)
            if key == "description" and isinstance(inner, str)
            else _bounded(inner, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_bounded(inner, depth + 1) for inner in value]
    if isinstance(value, str):
        return plain_words(value, MAX_DESCRIPTION)
    if isinstance(value, bool | int | float) or value is None:
        return value
    return plain_words(str(value), MAX_DESCRIPTION)  # a date, say: YAML makes them out of plain words
