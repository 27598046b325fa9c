"""Help pages, completion, recipes, and what all verbs share."""

import dataclasses
import importlib
import json
import shutil
import subprocess

import pytest

from grape.cli.help_page import describe_settings, help_page
from grape.cli.main import VERBS, main
from grape.cli.verb import VerbOfKinds
from grape.loop import DECIDED_BY_LOOP
from grape.training.settings import TrainSettings

MAX_LINES = 110


def verbs():
    for name in VERBS:
        verb = importlib.import_module(f"grape.cli.verbs.{name}").VERB
        yield from verb.kinds.values() if isinstance(verb, VerbOfKinds) else [verb]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("verb", list(verbs()), ids=lambda verb: verb.name)
def test_a_help_page_fits_two_screens_and_names_every_setting(verb, capsys):
    assert main([*verb.name.split(), "--help"]) == 0
    page = capsys.readouterr().out
    assert len(page.splitlines()) <= MAX_LINES
    assert max(map(len, page.splitlines())) <= 140  # examples are not wrapped
    hidden = {f"--{group}.{name.replace('_', '-')}" for group, names in verb.hidden.items() for name in names}
    for row in describe_settings(verb.settings, verb.hidden):
        assert row.text, f"{row.flag} is not documented"
        assert row.flag not in hidden
        assert row.flag in page or "." in row.flag
    assert main([*verb.name.split(), "--help-all"]) == 0
    everything = capsys.readouterr().out
    for row in describe_settings(verb.settings, verb.hidden):
        assert f"  {row.flag}" in everything


@pytest.mark.parametrize(
    "words",
    [["help", "pair"], ["pair", "help"], ["pair", "-h"], ["help", "costs", "show"], ["costs", "show", "--help"]],
)
def test_help_can_be_asked_for_in_any_usual_way(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("usage: grape ")


def test_what_a_loop_decides_is_not_offered(capsys):
    main(["loop", "--help-all"])
    page = capsys.readouterr().out
    assert "--train.beta" in page
    for group, names in DECIDED_BY_LOOP.items():
        for name in names:
            assert f"  --{group}.{name.replace('_', '-')} " not in page


def test_the_demo_shows_the_defaults_of_its_recipe(capsys):
    main(["demo", "--help"])
    page = " ".join(capsys.readouterr().out.split())
    assert "drawer-open,faucet-open" in page
    assert "(default: runs/demo)" in page


def test_a_subclass_has_the_last_word_on_a_setting():
    rows = {row.flag: row for row in describe_settings(TrainSettings)}
    assert rows["--epochs"].text == "How often every pair is used."
    assert (rows["--lr"].default, rows["--pairs"].default) == ("0.0003", None)


def test_a_page_is_made_of_the_class_alone():
    @dataclasses.dataclass
    class Settings:
        """Do it.

        Attributes:
            thing: What is
                done.
            often: Whether often.
        """

        thing: str
        often: bool = True

    page = help_page("do", Settings, everything=False, positionals=("thing",))
    assert page.startswith("usage: grape do THING [options]\n\nDo it.\n")
    assert "What is done. (required)" in page
    assert "Whether often. (default: yes; --no-often switches it off)" in page


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--verison"], "Did you mean '--version'"),
        (["pair", "--scores", "x", "--out", "y", "--mode", "bestworst"], "Did you mean 'best-worst'"),
        (["pair", "--scores", "x", "--out", "y", "--mode=bestworst"], "Did you mean 'best-worst'"),
        (["loop", "--recipe", "libero", "--out", "x"], "Did you mean 'libero-nano'"),
        (["completion", "bsh"], "Did you mean 'bash'"),
    ],
)
def test_near_misses_are_told(words, hint, capsys):
    assert main(words) == 2
    assert hint in capsys.readouterr().err


def test_a_recipe_goes_under_the_settings_file_and_the_flags(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("iterations: 1\nstates_per_iteration: 3\n")
    words = ["loop", "--recipe", "metaworld-nano", "--config", str(tmp_path / "mine.yaml"), "--iterations", "2"]
    assert main([*words, "--out", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    stages = [row["stage"] for row in json.loads(capsys.readouterr().out)["stages"]]
    assert "iteration 2: train" in stages
    assert "iteration 3: train" not in stages


COLLECT = ["collect", "--suite", "toy", "--tasks", "1,0", "--initial-states", "0-1", "--workers", "1"]


def test_a_finished_verb_says_so_and_shows_the_same_table(tmp_path, capsys):
    words = [*COLLECT, "--out", str(tmp_path / "run")]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "complete already" not in first
    assert main(words) == 0
    again = capsys.readouterr().out
    assert again.startswith(f"{tmp_path / 'run'} was complete already: nothing was done.\n")
    assert again.endswith(first)


def test_quiet_prints_the_result_alone(tmp_path, capsys):
    assert main([*COLLECT, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "reach-red" in said.out


def test_verbose_shows_log_records(tmp_path, capsys, monkeypatch):
    import logging

    from grape.cli.verbs import lint

    def run(settings, reporter):
        logging.getLogger("somewhere").debug("a detail")
        return {"kind": "none", "episodes": 0, "defects": []}

    monkeypatch.setattr(lint, "VERB", dataclasses.replace(lint.VERB, run=run, show=lambda summary, console: None))
    assert main(["lint", str(tmp_path), "--verbose"]) == 0
    assert "DEBUG somewhere: a detail" in capsys.readouterr().err
    assert main(["lint", str(tmp_path)]) == 0
    assert "a detail" not in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["grape", "tra"], {"train"}),
        (["grape", "costs", "val"], {"validate"}),
        (["grape", "train", "--lora-r"], {"--lora-rank"}),
        (["grape", "pair", "--scores", "x", "--no-req"], {"--no-require-mixed-outcomes"}),
        (["grape", "completion", "b"], {"bash"}),
        (["grape", "loop", "--train.b"], {"--train.beta"}),
    ],
)
def test_bash_completes_verbs_kinds_and_flags(line, expected, tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "grape.bash"
    script.write_text(capsys.readouterr().out)
    words = " ".join(f"'{word}'" for word in line)
    code = f'source {script}; COMP_WORDS=({words}); COMP_CWORD={len(line) - 1}; _grape; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_with_all_verbs(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(verb in script for verb in VERBS)
