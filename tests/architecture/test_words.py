"""One vocabulary: words of our own, British spellings and names after acts stay out of what a reader sees."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
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
    r"beginnings": "initial policies, starts",
    r"pre-processing": "preprocessing",
    r"behind the last": "half-open range [start, stop)",
    r"elsewhere": "where: in another program, in other places",
    r"(?<!behavior )cloning": "filtered behavior cloning (filtered BC)",
    r"clones|cloned": "filtered behavior cloning (filtered BC)",
}
AMERICAN = {
    "(?<!m)analys(?=e[sd]?$|ing)": "analyz",
    "artefact": "artifact",
    "behaviour": "behavior",
    "binaris": "binariz",
    "catalogue": "catalog",
    "centre(?!d)": "center",
    "centred": "centered",
    "colour": "color",
    "favour": "favor",
    "flavour": "flavor",
    "generalis": "generaliz",
    "grey": "gray",
    "initialis": "initializ",
    "labell(?!edby)": "label",
    "licence": "license",
    "maximis": "maximiz",
    "metre": "meter",
    "minimis": "minimiz",
    "modelling": "modeling",
    "neighbour": "neighbor",
    "normalis": "normaliz",
    "optimis(?!t)": "optimiz",
    "organis": "organiz",
    "picture": "image",
    "quantis": "quantiz",
    "recognis": "recogniz",
    "serialis": "serializ",
    "standardis": "standardiz",
    "summaris": "summariz",
    "tokenis": "tokeniz",
    "vectoris": "vectoriz",
}
#: Names that recorded runs, files of others, and command lines already hold.
KEPT = {
    "flavour",
    "length_normalised",
    "normalisation",
    "normalised",
    "picture",
    "picture_cache_gb",
    "pictures",
    "pictures_after_action",
}
#: Texts that recorded stores and files hold and that are compared with today's.
RECORDED = (
    "the gripper is binarised at 0.5",
    "translation in metres along the axes of the robot's base",
    "Un-normalised; gripper 1 = open, 0 = closed.",
    "fully gently glass grasp green grey gripper",
)
#: Names that tell an act (somebody found, wanted or said it) and not what they hold.
ACTS = {"asked", "found", "home", "mine", "said", "told", "wanted"}
#: An attribute of the summary's rows, and so a key of ``grape doctor --json``.
KEPT_ACTS = {("src/grape/doctor/findings.py", "found")}


def compiled(words: Mapping[str, str], boundary: str = "") -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(f"{boundary}(?:{word}){boundary}", re.IGNORECASE), instead) for word, instead in words.items()]


PROSE, BRITISH = compiled(SAY_INSTEAD, r"\b"), compiled(AMERICAN)
ANY_BRITISH = re.compile("|".join(AMERICAN), re.IGNORECASE)
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted(
    path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)
)
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "src").rglob("*.j2")),
    *sorted((ROOT / "examples").rglob("*.ipynb")),
]


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, comment and sentence in a source file; keys and other single words are data."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        body = token.string.lstrip("rbfuRBFU").strip("\"'")
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in body.strip()):
            yield token.start[0], token.string


def without_code(text: str) -> str:
    """Prose alone: no `code`, "keys" in quotes, links, ``--flags VALUE``, or names that a docstring's section lists."""
    for recorded in RECORDED:
        text = text.replace(recorded, " ")
    text = re.sub(r"(?m)^ {8,}\w+:", " ", text)
    return re.sub(
        r"```.*?```|``.*?``|`[^`]*`|\"\w+\"|'\w+'|\]\([^)]*\)|--[\w-]+( [a-z][a-z-]*)?|\{[^{}]*\}",
        " ",
        text,
        flags=re.DOTALL,
    )


def misspelled(word: str) -> list[str]:
    if not ANY_BRITISH.search(word):
        return []
    return [f"{word!r} (say: ...{american}...)" for british, american in BRITISH if british.search(word)]


def problems(text: str) -> list[str]:
    """Words and spellings to replace."""
    prose = without_code(text)
    reports = [f"{match[0]!r} (say: {instead})" for pattern, instead in PROSE for match in pattern.finditer(prose)]
    return reports + [report for word in re.findall(r"[A-Za-z]+", prose) for report in misspelled(word)]


def names_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every variable, parameter, attribute, function and class that a file introduces."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.alias(asname=str(name)):
                yield node.lineno, name
            case _:
                pass


@pytest.mark.parametrize(
    "text",
    [
        "The picture is torn.",
        "To be mended",
        "Row behind the last",
        "filtered cloning",
        "The colour's centre",
        "metres",
    ],
)
def test_the_words_are_found(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize(
    "text",
    [
        "`picture`",
        "--pictures-after-action",
        "--features colour",
        "--normalisation state-standardised",
        'the key "picture"',
        "tornado",
        "behavior cloning",
        "a centered diameter",
    ],
)
def test_names_of_keys_and_flags_are_not(text: str) -> None:
    assert not problems(text)


def test_names_of_every_kind_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import a as b\n\n\nclass C:\n    d: int = 1\n\n    def e(self, f, *g, **h):\n        self.i = [j for j in g]\n"
        "        with open(f) as k:\n            for m, (n, _) in k:\n                if (o := m):\n"
        "                    pass\n"
        "        try:\n            pass\n        except OSError as p:\n            pass\n"
    )
    assert {name for _, name in names_of(path)} == {*"bCdefghijkmnop", "self", "_"}


def test_source_uses_the_vocabulary() -> None:
    reports = [
        f"{path.relative_to(ROOT)}:{line}: {problem}"
        for path in SOURCES
        for line, text in texts(path)
        for problem in problems(text)
    ]
    assert not reports, "\n".join(reports)


def test_tests_use_the_vocabulary() -> None:
    """Their docstrings, comments, and the words that their own names are made of; other strings are data."""
    reports = []
    for path in TESTS:
        source = path.read_text(encoding="utf-8")
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        prose = [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                prose.append((node.lineno, node.name.replace("_", " ")))
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                prose.append((getattr(node, "lineno", 1), ast.get_docstring(node) or ""))
        reports += [f"{path.relative_to(ROOT)}:{line}: {problem}" for line, text in prose for problem in problems(text)]
    assert not reports, "\n".join(reports)


def test_pages_use_the_vocabulary() -> None:
    reports = [
        f"{page.relative_to(ROOT)}: {problem}"
        for page in PAGES
        for problem in problems(page.read_text(encoding="utf-8"))
    ]
    assert not reports, "\n".join(reports)


def test_names_are_american() -> None:
    reports = []
    for path in [*SOURCES, *TESTS]:
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
            if token.type == tokenize.NAME and token.string not in KEPT:
                reports += [
                    f"{path.relative_to(ROOT)}:{token.start[0]}: {problem}" for problem in misspelled(token.string)
                ]
    assert not reports, "\n".join(reports)


def test_names_tell_what_they_hold() -> None:
    reports = [
        f"{path.relative_to(ROOT)}:{line}: {name} (name it after what it holds)"
        for path in [*SOURCES, *TESTS]
        for line, name in names_of(path)
        if name.lstrip("_") in ACTS and (str(path.relative_to(ROOT)), name) not in KEPT_ACTS
    ]
    assert not reports, "\n".join(reports)
