"""Extraction of a specification from a model's answer: located, bounded, and given the task's header.

Any text becomes either data of the constraint language or a finding.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from grape.core.errors import DataError
from grape.core.reading import parse_json, parse_yaml
from grape.costs.yaml_nodes import MAX_CHARACTERS, MAX_DEPTH
from grape.generation.briefs import TaskBrief, plain_words

__all__ = ["answer_part", "document_of"]

_NAMES = r"(?P<name>(?:[a-z_]+:)?(?:[a-z_]*(?:think|thought|reason)[a-z_]*|analysis|scratchpad|reflection|details))"
_MARK = re.compile(
    rf"<\|?(?P<slash>/?){_NAMES}(?:\s[^<>]{{0,200}})?\|?>"
    r"|\[(?P<bracket>/?)think(?:ing)?\]"
    r"|\u25c1(?P<triangle>/?)think(?:ing)?\u25b7"
    r"|(?P<opened><unused94>|<\|channel>)|(?P<closed><unused95>|<channel\|>)",
    re.IGNORECASE,
)
"""Opening and closing marks: ``<think>``, ``<seed:think>``, ``<|begin_of_thought|>``, ``<|END_THINKING|>``,
``<details type="reasoning">``, ``[THINK]``, and those of Kimi-VL and Gemma."""

_CHANNEL = re.compile(r"<\|channel\|>\s*([a-z]+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>", re.IGNORECASE)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>", re.IGNORECASE)


def answer_part(text: str) -> str:
    """The part of a model's text that is its answer.

    Args:
        text: What the model wrote, with its marks: a pair of tags, a closing tag alone (the opening one stood in the
            prompt), or channels.

    Returns:
        What follows the last thinking part; empty where thinking is not closed or nothing follows it.
    """
    if "<|channel|>" in text.lower():
        return _final_channel(text)
    marks = list(_MARK.finditer(text))
    closing = [_closes(mark) for mark in marks]
    if not marks:
        return text
    if not closing[-1]:
        return ""  # it went on thinking, so that even what stands before is no last word
    return text[marks[-1].end() :]


def _closes(mark: re.Match[str]) -> bool:
    named = (mark["name"] or "").lower()
    return bool(mark["slash"] or mark["bracket"] or mark["triangle"] or mark["closed"]) or named.startswith("end_")


def _final_channel(text: str) -> str:
    """The text of the last channel where that is the final one."""
    channels = list(_CHANNEL.finditer(text))
    if not channels or channels[-1][1].lower() != "final":
        return ""
    body = text[channels[-1].end() :]
    end = _CHANNEL_END.search(body)
    return body if end is None else body[: end.start()]


FIELDS = ("description", "keypoints", "signals", "stages", "every_stage", "outcome")
"""What is taken from an answer; version, suite, task, limit and rate are ours."""

MAX_DESCRIPTION = 240

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)

_OBJECT = re.compile(r'\{\s*["}]')
MAX_STARTS = 2000
"""Braces that are tried as the start of an object."""

_STAGES = re.compile(r"""["']stages["']\s*:|^[ \t]*stages:[ \t]*(?:\[.*)?\r?$""", re.MULTILINE)
"""What only a specification, or a part of one, says."""


def document_of(text: str, brief: TaskBrief, truncated: bool = False) -> dict[str, Any]:
    """The specification that an answer holds.

    Args:
        text: The answer: JSON, or YAML, possibly between fences and with words around it.
        brief: The task that was asked about.
        truncated: Whether the text was cut off: then a specification with more text behind it may be a draft.

    Raises:
        DataError: There is no such thing in it; the message says what to answer instead.
    """
    mapping = _mapping(text, truncated)
    if not isinstance(mapping.get("stages"), list):
        raise DataError("The answer holds no list 'stages'.")
    document = brief.header()
    for name in FIELDS:
        if mapping.get(name) is not None:
            document[name] = _bounded(mapping[name], 0)
    for name in ("keypoints", "signals"):
        document.setdefault(name, [])
    if isinstance(document["keypoints"], list):
        document["keypoints"] = [_declared(item, brief) for item in document["keypoints"]]
    return document


def _declared(item: Any, brief: TaskBrief) -> Any:
    """A keypoint's name, or where it comes from if that is a point on the image."""
    if isinstance(item, str) and item in brief.numbered:
        return {"name": item, "picture": brief.numbered[item]}
    return item


def _mapping(text: str, truncated: bool) -> dict[str, Any]:
    """The one specification in an answer.

    Drafts that are not complete may stand before it. Where several complete ones differ, or one that is not complete
    follows, which one is meant is for the model to say.
    """
    if len(text) > MAX_CHARACTERS:
        raise DataError(f"The answer has {len(text)} characters; at most {MAX_CHARACTERS} are read.")
    answer = answer_part(text)
    if text.strip() and not answer.strip():
        raise DataError("The answer is no JSON object, only thinking; answer with one after it.")
    objects = _objects(answer)
    documents = sorted(
        [item for item in objects if "stages" in item[2]] + _yaml_blocks(answer), key=lambda item: item[0]
    )
    if not documents:
        return objects[0][2] if objects and not _STAGES.search(answer) else _whole(answer)
    if any(document != documents[0][2] for _, _, document in documents):
        raise DataError(
            f"The answer holds {len(documents)} different specifications; answer with one and nothing else."
        )
    behind = answer[documents[-1][1] :]
    if truncated and behind.strip(" \r\n`"):
        raise DataError("The answer is no JSON object alone.")
    if _STAGES.search(behind):
        raise DataError(
            f"The answer holds one specification and, behind it, one that is no complete JSON object "
            f"({_place(behind)}); answer with one and nothing else."
        )
    return documents[-1][2]


def _objects(text: str) -> list[tuple[int, int, dict[str, Any]]]:
    """Complete JSON objects that are not part of another: where they start and end, and their values."""
    decoder = json.JSONDecoder()
    documents: list[tuple[int, int, dict[str, Any]]] = []
    place = tries = 0
    for match in _OBJECT.finditer(text):
        start = match.start()
        if start < place:
            continue
        tries += 1
        if tries > MAX_STARTS:
            raise DataError(
                "The answer holds too many braces to be read; answer with one JSON object and nothing else."
            )
        try:
            _, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            place = error.pos  # parts of a broken object are no objects of their own
            continue
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; nesting
            raise DataError(f"The answer is no complete JSON object ({_place(text[start:])}).") from error
        documents.append((start, end, parse_json(text[start:end], "The answer")))
        place = end
    return documents


def _yaml_blocks(text: str) -> list[tuple[int, int, dict[str, Any]]]:
    """Specifications in YAML between fences: where they start and end, and their values."""
    documents = []
    for fence in _FENCE.finditer(text):
        body = fence[1].strip()
        if not body.startswith("{") and _STAGES.search(body):
            documents.append((fence.start(), fence.end(), _from_yaml(fence[1])))
    return documents


def _whole(text: str) -> dict[str, Any]:
    """An answer without a complete JSON object, as YAML."""
    fenced = _FENCE.search(text)
    return _from_yaml(fenced[1] if fenced else text)


def _from_yaml(text: str) -> dict[str, Any]:
    try:
        document = parse_yaml(text, "The answer")
    except DataError as error:
        raise DataError(f"The answer is no complete JSON object ({_place(text)}).") from error
    if not isinstance(document, dict):
        raise DataError("The answer is no JSON object; answer with one and nothing else.")
    return document


def _place(text: str) -> str:
    """Line and column at which its JSON becomes invalid."""
    try:
        json.loads(text[text.find("{") :] if "{" in text else text)
    except RecursionError:
        return "nested too deeply"
    except ValueError as error:
        return plain_words(str(error), 120)
    return "it does not start with one"


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
    return plain_words(str(value), MAX_DESCRIPTION)
