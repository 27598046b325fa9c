"""Hostile JSON and YAML: whole documents that no field survives, and sound documents with one value exchanged."""

import copy
import itertools
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

ESCAPES = "\x1b[2J\x1b]0;owned\x07name"

BAD_JSON: dict[str, bytes] = {
    "lists 100,000 deep": b"[" * 100_000,
    "closed lists 90,000 deep": b"[" * 90_000 + b"]" * 90_000,
    "objects 50,000 deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "900 deep": b"[" * 900 + b"]" * 900,
    "integer of 5,000 digits": b"9" * 5000,
    "1e999": b"1e999",
    "NaN": b"NaN",
    "null": b"null",
    "list": b"[]",
    "list of objects": b'[{"a": 1}]',
    "object": b"{}",
    "text": b'"text"',
    "text with escapes": json.dumps(ESCAPES).encode(),
    "true": b"true",
    "lone surrogate": b'{"\\ud800": "\\udfff"}',
    "NUL bytes": b"\x00" * 100,
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "invalid UTF-8": b'{"a": "\xff\xfe"}',
    "raw escapes": b"\x1b[31m{",
    "repeated key": b'{"a": 1, "a": 2}',
    "several values": b"{}{}",
    "half a million lines": b"{}\n" * 500_000,
}
"""Besides JSON, what its readers should refuse in a sentence."""

BAD_YAML: dict[str, bytes] = {
    "aliases": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(f"{n}: &{n} [{','.join([f'*{m}'] * 9)}]\n".encode() for m, n in itertools.pairwise("abcdefghij")),
    "list in itself": b"a: &a [*a]\n",
    "mapping in itself": b"&a {a: *a}\n",
    "merged keys": b"a: &a {b: 1}\nc:\n  <<: *a\n",
    "!!int foo": b"a: !!int foo\n",
    "!!bool foo": b"a: !!bool foo\n",
    "!!float x": b"a: !!float x\n",
    "!!timestamp x": b"a: !!timestamp x\n",
    "!!binary x": b"a: !!binary '\xc3\xa9'\n",
    "!!set": b"a: !!set {b, c}\n",
    "!!omap": b"a: !!omap [b]\n",
    "!!pairs": b"a: !!pairs 1\n",
    "python object": b"a: !!python/object/apply:os.system ['touch /tmp/owned']\n",
    "own tag": b"!something {a: 1}\n",
    "impossible date": b"a: 2024-02-31\n",
    "date": b"2024-02-28: 2024-02-28 10:00:00\n",
    "0x_": b"a: 0x_\n",
    "base 60": b"a: 190:20:30\n",
    "integer of 5,000 digits": b"a: " + b"9" * 5000 + b"\n",
    "hexadecimal of 5,000 digits": b"a: 0x" + b"f" * 5000 + b"\n",
    "1e999": b"a: 1.0e+999\n",
    "lists 20,000 deep": b"[" * 20_000,
    "closed lists 2,000 deep": b"[" * 2_000 + b"]" * 2_000,
    "block lists 500 deep": b"- " * 500 + b"x\n",
    "lone surrogate": b'a: "\\ud800"\n',
    "key that is a list": b"? [a, b]\n: c\n",
    "key that is a mapping": b"? {a: b}\n: c\n",
    "key that is null": b"~: c\n",
    "repeated key": b"a: 1\na: 2\n",
    "several documents": b"a: 1\n---\na: 2\n",
    "tabs": b"a:\n\t- b\n",
    "NUL bytes": b"a: \x00\n",
    "invalid UTF-8": b"a: \xff\xfe\n",
    "UTF-16": "a: 1\n".encode("utf-16"),
    "raw escapes": b"a: \x1b[31m\n",
    "escapes in a key": b'"\\e[2J\\e]0;owned\\a": 1\n',
    "unclosed": b"a: [1, {b: 2\n",
    "list": b"- a\n",
    "number": b"17\n",
    "text": b"text\n",
    "null": b"~\n",
}

SUBSTITUTES: tuple[Any, ...] = (
    None, True, 0, -1, 2, 1 << 31, 10**15, 1 << 64, 1.5, 1e308, float("nan"), float("inf"), "", "text", ESCAPES, "a\0b",
    "../../../escaped", "/etc/passwd", "x" * 10_000, "\ud800", [], {}, [[]], [None], {"a": {}}, [ESCAPES], ["\ud800"],
    [1, 2, 3], "2024-02-31", 10**400,
)  # fmt: skip
"""What a value is exchanged for."""

_ABSENT = object()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of the values in a document; of long lists only the first, second and last."""
    yield path
    if isinstance(value, Mapping):
        for key in value:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            yield from _paths(value[index], (*path, index))


def _changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(document)
    place = changed
    for step in path[:-1]:
        place = place[step]
    if value is _ABSENT:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


def _renamed(document: Any, path: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(document)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[ESCAPES] = place.pop(path[-1])
    return changed


def changes(document: Any, count: int, seed: int = 0) -> Iterator[tuple[str, Any]]:
    """``count`` documents that differ from ``document`` in one value, with what was done; no path twice before all."""
    choice = random.Random(seed)
    paths = [path for path in _paths(document) if path]
    if not paths:
        return
    rounds = []
    while len(rounds) < count:
        choice.shuffle(paths)
        rounds += paths
    for path in rounds[:count]:
        where = ".".join(map(str, path))
        kind = choice.randrange(10)
        if kind == 0:
            yield f"{where} absent", _changed(document, path, _ABSENT)
        elif kind == 1 and isinstance(path[-1], str):
            yield f"{where} renamed", _renamed(document, path)
        else:
            value = choice.choice(SUBSTITUTES)
            yield f"{where} = {str(ascii(value))[:24]}", _changed(document, path, value)


def to_json(document: Any) -> str:
    """JSON that may hold what JSON does not allow (NaN, lone surrogates as escapes)."""
    return json.dumps(document)
