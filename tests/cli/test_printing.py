"""What comes from outside is shown, never obeyed: control characters, markup, bytes that are no text."""

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from grape.cli.console import ConsoleReporter, SafeConsole
from grape.cli.main import guarded, main
from grape.cli.show import show_evaluation, show_fields
from grape.core.errors import DataError
from tests.cli.summaries import evaluation_named

EVIL = "x\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r[bold]y[/] :smile:"
SHOWN = "x\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202e\\x0d[bold]y[/] :smile:"


def harmless(text: str) -> bool:
    return not set(text) & set("\x1b\x07\x9b\u202e\r")


def test_consoles_and_reporters_show_escapes(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    console = SafeConsole()
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL)
    show_fields({"policy": EVIL}, console, "policy")
    show_evaluation(evaluation_named(EVIL), console)
    reporter = ConsoleReporter(SafeConsole(stderr=True))
    reporter.info(EVIL)
    reporter.warn(EVIL)
    with reporter.progress(EVIL, 1) as progress:
        progress.advance(note=EVIL)
    out, err = capsys.readouterr()
    assert harmless(out + err)
    assert out.count(SHOWN) >= 5
    assert err.count(SHOWN) == 4


def test_bars_on_a_terminal_show_escapes(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("FORCE_COLOR", "1")
    reporter = ConsoleReporter(SafeConsole(stderr=True))
    with reporter.progress(EVIL, 1) as progress:
        progress.advance(note=EVIL)
    err = capsys.readouterr().err
    assert "owned\x07" not in err
    assert err.count(SHOWN) >= 2


@pytest.mark.parametrize(
    "words",
    [
        [EVIL],
        ["costs", EVIL],
        ["collect", "--out", "x", EVIL],
        ["collect", "--out", "x", "--samples", EVIL],
        ["collect", "--out", "x", f"--{EVIL}"],
        ["collect", "--out", "x", "--suite", EVIL],
        ["collect", "--out", "x", "--config", EVIL],
        ["score", "--store", EVIL, "--out", "x"],
        ["compare", EVIL, EVIL],
        ["costs", "check", EVIL],
        ["report", EVIL],
        ["predict", "--policy", EVIL, "--image", EVIL, "--instruction", EVIL],
    ],
)
def test_arguments_are_echoed_escaped(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--json"]) == 2
    out, err = capsys.readouterr()
    assert harmless(err)
    answer = json.loads(out)
    assert set(answer) == {"error", "hint"}
    assert answer["error"]
    assert harmless(out)


def test_errors_and_warnings_are_printed_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        sys.stderr.write(warnings.formatwarning(EVIL, UserWarning, f"{EVIL}.py", 1))
        logger = logging.getLogger("somebody")
        logger.addHandler(logging.StreamHandler(sys.stderr))
        logger.warning("reading %s", EVIL)
        raise DataError(f"{EVIL} cannot be read.", EVIL)

    assert guarded([], work, whole_process=False) == 2
    err = capsys.readouterr().err
    assert harmless(err)
    assert err.count(SHOWN) >= 5


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["collect", "--samples", "3"], "--out"),
        (["collect", "--out", "x", "--sampels", "3"], "--sampels"),
        (["collect", "--out", "x", "--samples", "many"], "many"),
        (["colect"], "Unknown verb"),
        (["costs"], "needs a kind"),
        (["collect", "--config="], "--config needs"),
    ],
)
def test_errors_of_the_command_line_are_json_where_that_is_asked_for(
    words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json"]) == 2
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert error in answer["error"]
    assert "\u2502" not in answer["error"]
    assert answer["hint"]
    assert error in err


@pytest.mark.parametrize(
    ("word", "message"),
    [(b"x\xff", "Argument 3 ('x\\udcff') holds bytes that are no text"), (b"\xed\xa0\x80", "Argument 3")],
)
def test_bytes_that_are_no_text_are_refused(word: bytes, message: str) -> None:
    words = [sys.executable, "-m", "grape", "collect", "--out", word, "--suite", "toy", "--json"]
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr.decode()
    assert message in json.loads(done.stdout)["error"]


def test_nul_characters_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--out", "a\0b", "--suite", "toy"]) == 2
    assert "Argument 3 ('a\\x00b') holds a NUL" in capsys.readouterr().err
    settings = tmp_path / "settings.yaml"
    for line in ('out: "a\\0b"', 'suite: "a\\0b"', 'tasks: "\\0"'):
        settings.write_text(line + "\n")
        assert main(["collect", "--config", str(settings)]) == 2
        assert "NUL" in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), OverflowError("big"), UnicodeError("\udcff")])
def test_what_nobody_foresaw_is_called_a_defect(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> int:
        raise error

    monkeypatch.delenv("GRAPE_TRACEBACK", raising=False)
    assert guarded(["--json"], work, whole_process=False) == 1
    out, err = capsys.readouterr()
    assert "defect of GRAPE" in json.loads(out)["error"]
    assert f"{type(error).__name__}" in err
    assert "GRAPE_TRACEBACK=1" in err
    monkeypatch.setenv("GRAPE_TRACEBACK", "1")
    with pytest.raises(type(error)):
        guarded([], work, whole_process=False)


def test_rank_silences_no_verb_outside_of_a_launcher(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert main(["costs", "list", "toy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
