"""A hostile input: which sound files are copied, what is done to them, and which commands read the result."""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.baseline import Baseline, copy_part
from tests.hostile.documents import changes, to_json
from tests.hostile.driver import Driver, problems, snapshot
from tests.hostile.hostile_files import replace

EVERY = int(os.environ.get("HOSTILE_EVERY", "20"))
"""One in so many of the generated inputs is tried for each file; HOSTILE_EVERY=1 tries all, in twenty minutes."""
ALWAYS = ("named pipe", "link to /dev/zero", "20 GB sparse tail")

Spoil = Callable[[Path], str | None]
"""Changes a sound file; may say what it did."""
Words = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        file: The file that is hostile, below the folder where the commands run.
        what: What is hostile about it.
        parts: Parts of the baseline that are copied.
        spoil: Makes the file hostile.
        commands: Words after ``grape``; each runs by itself, and ``OUT`` stands for a folder of its own. Variables such
            as ``HOME=x`` may stand before them, and ``-m MODULE`` in place of a verb.
        out: A part that is copied to the folder of the first command's ``OUT``.
    """

    file: str
    what: str
    parts: tuple[str, ...]
    spoil: Spoil
    commands: tuple[Words, ...]
    out: str = ""

    def __str__(self) -> str:
        return f"{self.file}-{self.what}"


def cases_of(
    file: str,
    parts: Sequence[str],
    commands: Sequence[str],
    spoils: Mapping[str, Spoil],
    *,
    each: int = 1,
    sampled: bool = True,
    out: str = "",
) -> list[Case]:
    """A case for each of ``spoils``, or for a sample of them.

    Args:
        file: The file to spoil.
        parts: Parts of the baseline to copy.
        commands: Command lines.
        spoils: What to do, by name.
        each: How many of the commands a case runs, in turn.
        sampled: Take one in ``EVERY`` of ``spoils`` (other ones for other files) and those in ``ALWAYS``.
        out: A part that is what a command finds in its ``OUT``.
    """
    lines = [tuple(command.split()) for command in commands]
    offset = zlib.crc32(file.encode())
    cases = []
    for number, (what, spoil) in enumerate(spoils.items()):
        if sampled and what not in ALWAYS and (number + offset) % EVERY:
            continue
        first = number + offset
        chosen = tuple(lines[(first + shift) % len(lines)] for shift in range(min(each, len(lines))))
        cases.append(Case(file, what, tuple(parts), spoil, chosen, out))
    return cases


def contents(documents: Mapping[str, bytes]) -> dict[str, Spoil]:
    """Whole documents in the file's place."""
    return {name: lambda path, data=data: replace(path, data) for name, data in documents.items()}  # type: ignore[misc]


def changed_json(count: int, seed: int = 0) -> dict[str, Spoil]:
    """The sound JSON (or YAML) document with one value exchanged."""
    return {f"change {number}": _change(number, seed) for number in range(count)}


def _change(number: int, seed: int) -> Spoil:
    def spoil(path: Path) -> str:
        document = read_document(path)
        *_, (what, changed) = changes(document, number + 1, seed)
        replace(path, to_json(changed))
        return what

    return spoil


def changed_rows(count: int, seed: int = 0) -> dict[str, Spoil]:
    """The sound JSONL file with one value of its last row exchanged."""
    return {f"change {number}": _change_row(number, seed) for number in range(count)}


def _change_row(number: int, seed: int) -> Spoil:
    def spoil(path: Path) -> str:
        *rows, last = path.read_text(encoding="utf-8").splitlines()
        *_, (what, changed) = changes(json.loads(last), number + 1, seed)
        replace(path, "\n".join([*rows, to_json(changed)]) + "\n")
        return what

    return spoil


def as_rows(documents: Mapping[str, bytes]) -> dict[str, Spoil]:
    """The sound JSONL file with a bad document as its second line."""

    def insert(path: Path, data: bytes) -> None:
        first, *others = path.read_bytes().splitlines(keepends=True)
        replace(path, b"".join([first, data.replace(b"\n", b" "), b"\n", *others]))

    return {f"line: {name}": lambda path, data=data: insert(path, data) for name, data in documents.items()}  # type: ignore[misc]


def read_document(path: Path) -> object:
    """A sound JSON or YAML file."""
    import yaml

    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def check(case: Case, baseline: Baseline, driver: Driver, place: Path) -> None:
    """Run a case's commands; fail with everything that must not have happened."""
    for part in case.parts:
        copy_part(baseline.part(part), place / "work" / part)
    if case.out:
        shutil.copytree(baseline.part(case.out), place / "out" / "0")  # no links: commands append to files there
    did = case.spoil(place / ("out/0" if case.out else "work") / case.file)
    failures = []
    for number, words in enumerate(case.commands):
        before = snapshot(place)
        line = [word.replace("OUT", f"../out/{number}") for word in words]
        ending = driver.run(line, place)
        for problem in problems(ending, before, snapshot(place)):
            failures.append(f"grape {' '.join(line)}: {problem}")
    assert not failures, "\n".join([f"{case.file}: {case.what}{f' ({did})' if did else ''}", *failures])
