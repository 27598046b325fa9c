"""Every command that the README and the pages show is understood: its flags exist, its values are ones they take."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from grape.cli import verb as verbs
from grape.cli.main import SPECIAL, main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"^(?:    |\$ )?grape ([a-z].*)$", re.MULTILINE)


def commands(page: Path) -> Iterator[str]:
    """Commands of code blocks, joined where they go on; not those that leave something out."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"(?:^(?: {4}.*|)\n)+|^```.*?^```", text, re.MULTILINE | re.DOTALL):
        for command in COMMAND.findall(block):
            if "..." not in command and command.split()[0] not in SPECIAL:
                yield command


def words(command: str) -> list[str]:
    """Without what the shell takes, or a settings file that the reader is to write."""
    given = shlex.split(command.replace("$READ", "").partition(" > ")[0], comments=True)
    if "--config" in given and not (ROOT / given[given.index("--config") + 1]).exists():
        del given[(place := given.index("--config")) : place + 2]
    return given


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands(page))], ids=lambda page: page.stem)
def test_commands_are_understood(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    parsed = []
    monkeypatch.setattr(verbs, "_run", lambda verb, settings, flags: parsed.append(settings) or 0)
    for command in commands(page):
        assert main(words(command)) == 0, f"grape {command}\n{capsys.readouterr().err}"
    assert parsed


def test_a_flag_that_does_not_exist_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("score --store runs/rollouts --out runs/scores --objective safety:4")) == 2
    assert "--objectives" in capsys.readouterr().err
