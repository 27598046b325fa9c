"""``tokenizer.json``: checked before the tokenizers library sees it.

The library runs whatever pipeline the file describes: regular expressions that never end, replacements that multiply a
text, padding to billions of tokens; and on contents that contradict each other it aborts. So only the parts that
tokenizers of Llama (and of whole words, for small networks) have are accepted, within limits.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from grape.core.errors import DataError
from grape.core.reading import parse_json

__all__ = ["read_tokenizer"]

_HINT = "Fetch the checkpoint again, or take tokenizer.json from the checkpoint that this one was trained from."
_NORMALIZERS = ("Sequence", "Prepend", "Replace", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip")
_PRE_TOKENIZERS = ("Sequence", "Metaspace", "ByteLevel", "Whitespace", "WhitespaceSplit", "Digits", "Punctuation")
_DECODERS = ("Sequence", "Replace", "ByteFallback", "Fuse", "Strip", "ByteLevel", "Metaspace")
_MODELS = ("BPE", "WordLevel", "Unigram")
_MOST_STEPS = 16
_MOST_GROWTH = 16
"""Times that normalizers may lengthen a text."""


def read_tokenizer(data: bytes, vocabulary: int) -> Tokenizer:
    """The tokenizer that a ``tokenizer.json`` describes, without the padding and truncation it was saved with.

    Args:
        data: Content of the file.
        vocabulary: Number of ids that the network knows.

    Raises:
        DataError: It is malformed, contradicts itself, or has parts that tokenizers of Llama do not have.
    """
    document = parse_json(data, "tokenizer.json", hint=_HINT)
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise DataError("tokenizer.json describes no tokenizer.", _HINT)
    document = {**document, "padding": None, "truncation": None}
    _check_model(document["model"], vocabulary)
    _check_added(document.get("added_tokens"), vocabulary)
    _check_steps(document.get("normalizer"), "normalizer", _NORMALIZERS)
    _check_steps(document.get("pre_tokenizer"), "pre_tokenizer", _PRE_TOKENIZERS)
    _check_steps(document.get("decoder"), "decoder", _DECODERS)
    _check_post_processor(document.get("post_processor"), vocabulary)
    try:
        return Tokenizer.from_str(json.dumps(document))
    except Exception as error:  # the library raises bare Exception for a malformed file
        raise DataError(f"tokenizer.json cannot be read: {str(error)[:200]}.", _HINT) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the library's own, which is no Exception
            raise
        raise DataError(f"tokenizer.json contradicts itself: {str(error)[:200]}.", _HINT) from error


def _check_model(model: Mapping[str, Any], vocabulary: int) -> None:
    kind = model.get("type", "BPE")
    _require(kind in _MODELS, f"its model is {str(kind)[:40]!r}, not one of {', '.join(_MODELS)}")
    pieces = model.get("vocab")
    if kind in ("BPE", "WordLevel"):
        _require(isinstance(pieces, dict) and bool(pieces), "it has no vocabulary")
        assert isinstance(pieces, dict)
        _require(all(_is_id(number, vocabulary) for number in pieces.values()), _beyond(vocabulary))
        unknown = model.get("unk_token")
        _require(
            unknown is None or (isinstance(unknown, str) and unknown in pieces),
            "its unknown token is not in its vocabulary",
        )
    else:
        _require(isinstance(pieces, list) and bool(pieces), "it has no vocabulary")
        assert isinstance(pieces, list)
        _require(len(pieces) <= vocabulary, _beyond(vocabulary))
        _require(
            all(_is_piece(piece) for piece in pieces), "its vocabulary holds something else than pieces and scores"
        )
        unknown = model.get("unk_id")
        _require(unknown is None or _is_id(unknown, len(pieces)), "its unknown token is not in its vocabulary")


def _check_added(tokens: Any, vocabulary: int) -> None:
    _require(tokens is None or isinstance(tokens, list), "its added tokens are no list")
    for token in tokens or ():
        sound = isinstance(token, dict) and isinstance(token.get("content"), str) and bool(token["content"])
        _require(sound, "an added token has no content")
        _require(_is_id(token.get("id"), vocabulary), _beyond(vocabulary))


def _check_steps(part: Any, name: str, known: tuple[str, ...]) -> None:
    """A normalizer, pre-tokenizer or decoder: known steps, no regular expressions, bounded growth."""
    steps = _flat(part, name)
    _require(len(steps) <= _MOST_STEPS, f"its {name} has more than {_MOST_STEPS} steps")
    growth = 1.0
    for step in steps:
        kind = step.get("type")
        _require(kind in known, f"its {name} has a step {str(kind)[:40]!r}, which tokenizers of Llama do not have")
        if kind == "Replace":
            pattern, content = step.get("pattern"), step.get("content")
            literal = pattern.get("String") if isinstance(pattern, dict) else None
            _require(isinstance(literal, str) and bool(literal), f"its {name} replaces by a regular expression")
            _require(isinstance(content, str), f"its {name} replaces by something that is no text")
            assert isinstance(literal, str)
            assert isinstance(content, str)
            growth *= max(1.0, len(content) / len(literal))
        elif kind == "Prepend":
            _require(len(str(step.get("prepend"))) <= _MOST_GROWTH, f"its {name} prepends a long text")
    _require(growth <= _MOST_GROWTH, f"its {name} makes a text more than {_MOST_GROWTH} times as long")


def _flat(part: Any, name: str) -> list[Mapping[str, Any]]:
    """Steps of a sequence, which may hold sequences; nesting is bounded by the reader."""
    if part is None:
        return []
    _require(isinstance(part, dict), f"its {name} is no mapping")
    if part.get("type") != "Sequence":
        return [part]
    inner = part.get(f"{name}s")
    inner = part.get("pretokenizers") if inner is None else inner
    _require(isinstance(inner, list) and len(inner) <= _MOST_STEPS, f"its {name} has more than {_MOST_STEPS} steps")
    return [step for item in inner for step in _flat(item, name)]


def _check_post_processor(part: Any, vocabulary: int) -> None:
    """Only templates that put known tokens around a text; what else there is puts none."""
    if part is None:
        return
    _require(isinstance(part, dict), "its post-processor is no mapping")
    if part.get("type") == "ByteLevel":
        return
    _require(part.get("type") == "TemplateProcessing", "its post-processor is no template")
    tokens = part.get("special_tokens")
    _require(isinstance(tokens, dict), "its post-processor names no tokens")
    for token in tokens.values():
        ids = token.get("ids") if isinstance(token, dict) else None
        _require(isinstance(ids, list) and all(_is_id(number, vocabulary) for number in ids), _beyond(vocabulary))
    for template in (part.get("single"), part.get("pair")):
        _require(isinstance(template, list) and len(template) <= _MOST_STEPS, "its post-processor is too long")
        for item in template:
            special = item.get("SpecialToken") if isinstance(item, dict) else None
            name = special.get("id") if isinstance(special, dict) else None
            known = special is None or (isinstance(name, str) and name in tokens)
            _require(known, "its post-processor adds a token that it does not know")


def _is_id(number: Any, vocabulary: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < vocabulary


def _is_piece(piece: Any) -> bool:
    if not isinstance(piece, list) or len(piece) != 2 or not isinstance(piece[0], str):
        return False
    return isinstance(piece[1], int | float) and not isinstance(piece[1], bool) and math.isfinite(piece[1])


def _beyond(vocabulary: int) -> str:
    return f"it has ids beyond the {vocabulary:,} that the network knows"


def _require(sound: bool, problem: str) -> None:
    if not sound:
        raise DataError(f"tokenizer.json cannot be used: {problem}.", _HINT)
