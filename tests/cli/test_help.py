"""Help pages: short enough to be read, the same however they are asked for, and what they say is what is taken."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grape.cli.help_page import describe_settings
from grape.cli.main import VERBS, main
from grape.cli.verb import Verb, VerbOfKinds
from grape.loop.settings import DECIDED_BY_LOOP


def every_verb() -> Iterator[Verb]:
    for name in VERBS:
        verb = importlib.import_module(f"grape.cli.verbs.{name}").VERB
        yield from verb.kinds.values() if isinstance(verb, VerbOfKinds) else (verb,)


EVERY_VERB = {verb.name: verb for verb in every_verb()}


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def page(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("name", EVERY_VERB)
def test_pages_fit_two_screens(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = page([*name.split(), "--help"], capsys).splitlines()
    assert len(lines) <= 110
    assert all(len(line) <= 80 for line in lines[: lines.index("Examples:")])


@pytest.mark.parametrize("name", EVERY_VERB)
def test_the_long_page_explains_every_setting(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = page([*name.split(), "--help-all"], capsys)
    rows = describe_settings(EVERY_VERB[name].settings, EVERY_VERB[name].hidden)
    assert all(f"{row.flag} " in text or f"{row.flag}," in text or f"{row.flag}\n" in text for row in rows)
    assert all(row.text for row in rows)


@pytest.mark.parametrize("words", [["help", "train"], ["train", "help"], ["train", "-h"], ["--help", "train"]])
def test_all_ways_to_ask_give_one_page(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert page(words, capsys) == page(["train", "--help"], capsys)


@pytest.mark.parametrize("words", [["help", "costs", "show"], ["costs", "help", "show"], ["costs", "show", "help"]])
def test_kinds_have_pages_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = page(words, capsys)
    assert text.startswith("usage: grape costs show [TARGET] [options]\n")
    assert "  TARGET or --target TEXT" in text


def test_required_positionals_stand_in_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert page(["compare", "--help"], capsys).startswith("usage: grape compare A B")


@pytest.mark.parametrize("verb", ["loop", "demo"])
def test_a_loop_does_not_offer_what_it_decides(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = page([verb, "--help-all"], capsys)
    for stage, names in DECIDED_BY_LOOP.items():
        assert f"--{stage}." in text
        assert not [name for name in names if f"--{stage}.{name.replace('_', '-')} " in text]


def test_pages_show_the_defaults_that_hold(capsys: pytest.CaptureFixture[str]) -> None:
    demo, loop = page(["demo", "--help"], capsys), page(["loop", "--help"], capsys)
    assert "(default: drawer-open,faucet-open)" in demo
    assert "(default: runs/demo)" in demo
    assert "(default: drawer-open,faucet-open)" not in loop
    assert "(default: simpler_widowx_nano)" in page(["loop", "--recipe", "simpler-nano", "--help"], capsys)


def test_switches_that_are_on_name_the_flag_that_turns_them_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--gate, --no-gate" in page(["loop", "--help-all"], capsys)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from grape.cli.main import main, VERBS\n"
        "for name in VERBS: main([name, '--help'])\n"
        "main(['completion', 'bash']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_recipes_are_listed_and_chosen_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "  libero-nano " in page(["loop", "--help"], capsys)
    assert "  libero-nano " in page(["loop", "--recipe", "help"], capsys)
    for recipe, what in {"libero-nano": "Did you mean 'libero-nano'", "": "--recipe needs a name"}.items():
        assert main(["loop", "--recipe", recipe[:-2] or "--json", "--dry-run"]) == 2
        assert what in capsys.readouterr().err
    assert main(["collect", "--out", str(tmp_path), "--recipe", "libero-nano"]) == 2
    assert "Unknown flag '--recipe'" in capsys.readouterr().err


def test_files_win_over_recipes_and_flags_over_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("suite: toy\ntasks: '0'\niterations: 3\ntrain: {max_updates: 5}\n")
    words = ["loop", "--recipe", "metaworld-nano", "--config", str(tmp_path / "mine.yaml"), "--iterations", "1"]
    text = page([*words, "--dry-run"], capsys)
    assert "iteration 1: train" in text
    assert "iteration 2" not in text
    assert "filtered BC: train" in text  # the recipe's
    assert "LoopSettings" not in text
