"""One vocabulary: words of our own, and British spellings in names, stay out of what a reader of the project sees."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.allowed_imports import ROOT

SAY_INSTEAD = {
    r"pictures?": "image",
    r"mend(s|ed|ing)?": "fix, repair",
    r"torn": "truncated",
    r"blotted out": "redacted",
    r"last words": "the end of its output",
    r"rehears(al|e|es|ed)": "memory profile",
    r"metrics journal": "metrics logger",
    r"arrows? between": "allowed imports",
    r"roads?": "preprocessing, path",
    r"workshops?": "temporary folder, atomic folder",
    r"strangers?": "from outside",
    r"over there": "in that interpreter",
    r"pre-processing": "preprocessing",
    r"behind the last": "half-open range [start, stop)",
}
AMERICAN = {
    "normalis": "normaliz",
    "quantis": "quantiz",
    "standardis": "standardiz",
    "initialis": "initializ",
    "tokenis": "tokeniz",
    "serialis": "serializ",
    "colour": "color",
    "centre": "center",
    "picture": "image",
}
#: Names that recorded runs, files of others, and command lines already hold.
KEPT = {
    "length_normalised",
    "normalisation",
    "normalised",
    "picture",
    "picture_cache_gb",
    "pictures",
    "pictures_after_action",
}
PROSE = [(re.compile(rf"\b{pattern}\b", re.IGNORECASE), instead) for pattern, instead in SAY_INSTEAD.items()]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, comment and sentence in a source file; keys and other single words are data."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        body = token.string.lstrip("rbfuRBFU").strip("\"'")
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in body.strip()):
            yield token.start[0], token.string


def without_code(text: str) -> str:
    """Prose alone: no `code`, "keys" in quotes, links, ``--flags``, or names that a docstring's section describes."""
    text = re.sub(r"(?m)^ {8,}\w+:", " ", text)
    return re.sub(r"```.*?```|`[^`]*`|\"\w+\"|\]\([^)]*\)|--[\w-]+|\{[^{}]*\}", " ", text, flags=re.DOTALL)


def problems(text: str) -> list[str]:
    return [
        f"{match[0]!r} (say: {instead})" for pattern, instead in PROSE for match in pattern.finditer(without_code(text))
    ]


@pytest.mark.parametrize("text", ["The picture is torn.", "To be mended", "Row behind the last"])
def test_the_words_are_found(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize("text", ["`picture`", "--pictures-after-action", 'the key "picture"', "tornado"])
def test_names_of_keys_and_flags_are_not(text: str) -> None:
    assert not problems(text)


def test_source_uses_the_vocabulary() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {problem}"
        for path in SOURCES
        for line, text in texts(path)
        for problem in problems(text)
    ]
    assert not found, "\n".join(found)


def test_pages_use_the_vocabulary() -> None:
    found = [
        f"{page.relative_to(ROOT)}: {problem}"
        for page in PAGES
        for problem in problems(page.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_names_are_american() -> None:
    found = []
    for path in SOURCES:
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
            if token.type != tokenize.NAME or token.string in KEPT:
                continue
            found += [
                f"{path.relative_to(ROOT)}:{token.start[0]}: {token.string} (say: {american})"
                for british, american in AMERICAN.items()
                if british in token.string.lower()
            ]
    assert not found, "\n".join(found)
