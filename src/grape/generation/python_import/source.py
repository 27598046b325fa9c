"""Parses a Python file from outside into a syntax tree; nothing of it is executed.

The parser of CPython recurses in C, so a small hostile text can exhaust its stack. The text is therefore measured with
the tokenizer first (which is plain Python): size, line length, tokens a statement, nesting. Only what passes is parsed,
and nothing is ever compiled.
"""

import ast
import io
import json
import tokenize
import unicodedata
import warnings
from pathlib import Path

from grape.core.errors import DataError
from grape.core.reading import parse_json, read_file

__all__ = ["parse_source", "read_source"]

MAX_BYTES = 131_072
MAX_LINE = 4_000
MAX_NESTING = 16
MAX_BLOCKS = 6
MAX_TOKENS = 400
"""Tokens in one statement: bounds the depth of its tree, whatever the operators are."""

MAX_DIGITS = 40
MAX_PARTS = 64
ALLOWED_IMPORTS = ("numpy", "math", "typing")

_HINT = "See docs/generation.md for what can be imported. Nothing of the file was executed."
_STRINGS = (tokenize.STRING, tokenize.COMMENT)


def read_source(path: Path) -> str:
    """Text of a file, or of a folder as ReKep leaves it: ``stageN_*_constraints.txt`` and ``metadata.json``.

    Raises:
        DataError: A file is missing, too large, or not UTF-8; a folder holds nothing of the kind.
    """
    if not path.is_dir():
        return _read_file(path)
    parts = sorted(path.glob("stage*_constraints.txt"), key=lambda part: (len(part.name), part.name))
    if not parts or len(parts) > MAX_PARTS:
        raise DataError(f"{path} holds {len(parts)} files named stageN_subgoal_constraints.txt and the like.", _HINT)
    texts = [_read_file(part, path) for part in parts]
    if (path / "metadata.json").exists():
        texts.append(_lists_of(path / "metadata.json"))
    return "\n".join(texts) + "\n"


def _lists_of(path: Path) -> str:
    """The lists that the functions' file would hold, from ReKep's metadata."""
    document = parse_json(_read_file(path, path.parent), str(path), hint=_HINT)
    lines = []
    for name in ("num_stages", "grasp_keypoints", "release_keypoints"):
        value = document.get(name) if isinstance(document, dict) else None
        numbers = value if isinstance(value, list) else [value]
        if all(type(item) is int for item in numbers):
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines)


def _read_file(path: Path, within: Path | None = None) -> str:
    data = read_file(path, max_bytes=MAX_BYTES, within=within)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}).", _HINT) from error


def parse_source(text: str, source: str) -> ast.Module:
    """Syntax tree of a harmless text.

    Args:
        text: Python.
        source: What messages call it.

    Raises:
        DataError: Not Python, or something that constraint functions never contain: control characters, names outside
            ASCII, deep nesting, huge statements or numbers, foreign imports, names with two leading underscores.
    """
    _check_characters(text, source)
    text = _inside_fences(text)
    _check_tokens(text, source)
    try:
        with warnings.catch_warnings():  # e.g. invalid escapes in a string: not the reader's business
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as error:
        raise _refusal(source, error.lineno or 1, f"not Python: {error.msg}") from error
    except (ValueError, MemoryError, RecursionError, OverflowError) as error:
        raise _refusal(source, 1, f"cannot be parsed ({type(error).__name__})") from error
    _check_names(tree, source)
    return tree


def _inside_fences(text: str) -> str:
    """The code of an answer that was kept as it came, with words around a fenced block; lines keep their numbers."""
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if line.startswith(("```", "def "))), None)
    if first is None or not lines[first].startswith("```"):
        return text
    inside, code_lines = False, []
    for line in lines:
        fence = line.startswith("```")
        inside = inside != fence
        code_lines.append(line if inside and not fence else "")
    return "\n".join(code_lines)


def _refusal(source: str, line: int, what: str) -> DataError:
    return DataError(f"{source}, line {line}: {what}.", _HINT)


def _check_characters(text: str, source: str) -> None:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise DataError(f"{source} is larger than {MAX_BYTES} bytes; constraint functions are far shorter.", _HINT)
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > MAX_LINE:
            raise _refusal(source, number, f"has {len(line)} characters; at most {MAX_LINE} are read")
        if line.isascii() and line.isprintable():
            continue
        for character in line.rstrip("\r"):
            # Cf holds the marks that turn the reading direction round, so that code looks like something else.
            if character != "\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
                raise _refusal(source, number, f"holds the control character U+{ord(character):04X}")


def _check_tokens(text: str, source: str) -> None:
    nesting = blocks = length = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            line = token.start[0]
            if token.type == tokenize.NEWLINE:
                length = 0
                continue
            length += token.type not in (tokenize.COMMENT, tokenize.NL)
            blocks += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
            if token.type == tokenize.OP:
                nesting += (token.string in "([{") - (token.string in ")]}")
            if nesting > MAX_NESTING or blocks > MAX_BLOCKS:
                raise _refusal(source, line, "is nested too deeply")
            if length > MAX_TOKENS:
                raise _refusal(source, line, f"is a statement of more than {MAX_TOKENS} tokens")
            if token.type == tokenize.NUMBER and len(token.string) > MAX_DIGITS:
                raise _refusal(source, line, f"holds a number of {len(token.string)} characters")
            if token.type not in _STRINGS and not token.string.isascii():
                raise _refusal(source, line, f"holds {token.string[:20]!r}; names and operators are ASCII")
            if token.type == tokenize.NAME and token.string in ("async", "await", "class", "global", "nonlocal"):
                raise _refusal(source, line, f"uses {token.string!r}, which constraint functions never do")
    except (tokenize.TokenError, SyntaxError, RecursionError) as error:
        place = error.args[1][0] if isinstance(error, tokenize.TokenError) else getattr(error, "lineno", None)
        raise _refusal(source, int(place or 1), f"not Python: {error.args[0]}") from error


def _check_names(tree: ast.Module, source: str) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."]
            for module in modules:
                if module.partition(".")[0] not in ALLOWED_IMPORTS:
                    raise _refusal(source, node.lineno, f"imports {module!r}; only numpy and math are understood")
        name = getattr(node, "id", getattr(node, "attr", getattr(node, "arg", getattr(node, "name", None))))
        if isinstance(name, str) and name.startswith("__"):
            raise _refusal(source, getattr(node, "lineno", 1), f"uses the reserved name {name[:40]!r}")
