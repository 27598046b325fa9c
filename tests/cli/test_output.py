"""What is printed where: plans once, results again, quiet, verbose, and what goes to logging."""

import json
import logging
import os
from pathlib import Path

import pytest
from rich.table import Table

from grape.cli.console import ConsoleReporter, SafeConsole
from grape.cli.main import main
from grape.core.events import LoggingReporter, Reporter
from grape.core.runs import RunFolder

COLLECT = ["collect", "--suite", "toy", "--initial-states", "0-1", "--max-steps", "3", "--workers", "1"]


def test_neither_lines_nor_tables_break_names_in_pipes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "put_the_" + "very_" * 20 + "long_name"
    table = Table()
    table.add_column("task")
    table.add_row(name)
    SafeConsole().print(table)
    reporter = ConsoleReporter(SafeConsole(stderr=True))
    reporter.info(f"{name} {name} {name}")
    with reporter.progress(name, 1) as progress:
        progress.advance(note=f"{name} {name}")
    out, err = capsys.readouterr()
    assert name in out
    assert len(err.splitlines()) == 2


def test_a_plan_is_printed_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [*COLLECT, "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "decisions at most" in out
    assert "{" not in out
    assert "decisions" not in err
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["dry_run"] is True
    assert "decisions" not in err


def test_a_loops_plan_is_one_table_or_one_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["loop", "--suite", "toy", "--out", str(tmp_path / "out"), "--iterations", "1", "--dry-run"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out.count("iteration 1: train") == 1
    assert "iteration 1" not in err
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert [row["stage"] for row in json.loads(out)["stages"]].count("iteration 1: train") == 1
    assert "iteration 1" not in err


def test_a_complete_run_says_so_and_shows_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [*COLLECT, "--out", str(tmp_path / "out")]
    assert main(words) == 0
    first = capsys.readouterr()
    assert "already complete" not in first.err
    assert main(words) == 0
    second = capsys.readouterr()
    assert "already complete: nothing was done" in second.err
    assert second.out == first.out
    assert first.out.index("reach-red") < first.out.index("push-block")  # the suite's order
    assert main([*words, "--quiet"]) == 0
    third = capsys.readouterr()
    assert third.err == ""
    assert third.out == first.out
    assert main([*words, "--quiet", "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_an_evaluation_in_the_folder_of_its_name_says_so_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "--suite", "toy", "--policy", "expert", "--tasks", "0", "--episodes", "2", "--workers", "1"]
    assert main(words) == 0
    assert "already complete" not in capsys.readouterr().err
    (done,) = tmp_path.rglob("evaluate/*/done.json")
    os.utime(done, (1_000_000_000, 1_000_000_000))
    assert main(words) == 0
    assert "already complete" in capsys.readouterr().err


def test_summaries_keep_their_order(tmp_path: Path) -> None:
    RunFolder(tmp_path, "collect").finish({"tasks": {"b": 1, "a": 2}})
    done = RunFolder(tmp_path, "collect").done
    assert done is not None
    assert list(done["tasks"]) == ["b", "a"]


def test_verbose_adds_log_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*COLLECT, "--out", str(tmp_path / "out"), "--verbose"]) == 0
    err = capsys.readouterr().err
    assert "DEBUG grape: settings of collect" in err
    assert "DEBUG grape: collect took" in err
    assert logging.getLogger("grape").handlers == []
    assert main([*COLLECT, "--out", str(tmp_path / "out"), "--verbose", "--quiet"]) == 2


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--verison"], ["Did you mean '--version'"]),
        (["--hlep"], ["Did you mean '--help'"]),
        (["--json", "collect"], ["comes before the verb"]),
        (["hlep"], ["Did you mean 'help'"]),
        (["completoin"], ["Did you mean 'completion'"]),
        (["collect", "--out", "x", "--cofnig", "y"], ["Unknown flag '--cofnig'", "'--config'"]),
        (["collect", "--out", "x", "--verbos"], ["Unknown flag '--verbos'", "'--verbose'"]),
        (["loop", "--out", "x", "--recpie", "y"], ["'--recipe'"]),
        (["pair", "--scores", "x", "--out", "y", "--mode", "bestworst"], ["--mode is 'bestworst'", "'best-worst'"]),
        (["pair", "--scores", "x", "--out", "y", "--mode=bestworst"], ["--mode is 'bestworst'", "'best-worst'"]),
        (["train", "--pairs", "x", "--policy", "y", "--out", "z", "--report-to", "wnadb"], ["'wandb'"]),
    ],
)
def test_near_misses_are_answered_with_what_was_meant(
    words: list[str], messages: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert all(message in err for message in messages)
    assert "\u2502" not in err


def test_a_choice_in_yaml_is_suggested(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "pair.yaml").write_text("scores: x\nout: y\nmode: bestworst\n")
    assert main(["pair", "--config", str(tmp_path / "pair.yaml")]) == 2
    assert "Did you mean 'best-worst'" in capsys.readouterr().err


def test_programs_get_messages_through_logging(caplog: pytest.LogCaptureFixture) -> None:
    reporter: Reporter = LoggingReporter()
    with caplog.at_level(logging.DEBUG, "grape"), reporter.progress("Work", 2) as progress:
        reporter.info("100 % done")
        reporter.warn("careful")
        progress.advance(2, "well")
    messages = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert (logging.INFO, "100 % done") in messages
    assert (logging.WARNING, "careful") in messages
    assert (logging.DEBUG, "Work: 2/2 well") in messages
    assert {record.name for record in caplog.records} == {"grape"}


def test_the_console_sends_its_messages_to_logging_as_well(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "grape"):
        ConsoleReporter(SafeConsole(stderr=True)).info("something")
    assert [record.getMessage() for record in caplog.records] == ["something"]
