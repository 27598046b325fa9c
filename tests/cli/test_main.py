import json
import subprocess
import sys

import pytest

from grape.cli.main import VERBS, main


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("costs", "judges", "import", "export")])
def test_help_of_every_verb_is_a_page_to_work_from(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"grape {verb}" in text
    assert "Examples:" in text
    assert "--json" in text


@pytest.mark.parametrize(
    ("verb", "kinds"),
    [
        ("export", {"rlds": "--pairs", "merged": "--policy", "adapter": "--policy"}),
        ("costs", {"list": "--suite", "show": "--target", "check": "--store", "schema": "--strict"}),
        ("costs", {"generate": "--repairs", "import": "--keypoints"}),
        ("judges", {"list": "--json", "validate": "--min-accuracy"}),
        ("import", {"grape-rlds": "--chosen", "grape-npy": "--flavour"}),
    ],
)
def test_verbs_of_kinds_list_them_and_each_has_a_page(
    verb: str, kinds: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--help"]) == 0
    listed = capsys.readouterr().out
    for kind, flag in kinds.items():
        assert f"  {kind} " in listed
        assert main([verb, kind, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"grape {verb} {kind}" in text
        assert flag in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["colect"], "Did you mean 'collect'"),
        (["import"], "needs a kind first"),
        (["import", "grape-rlsd"], "Did you mean 'grape-rlds'"),
        (["export"], "needs a kind first"),
        (["export", "mergd"], "Did you mean 'merged'"),
        (["collect", "--out", "x", "--suite", "metawrld"], "Did you mean 'metaworld'"),
        (["collect", "--out", "x", "--suite", "toy", "--tasks", "raech"], "Known:"),
        (["collect", "--out", "x", "--suite", "toy", "--policy", "nowhere"], "no such checkpoint folder"),
        (["collect", "--out", "x", "--suite", "toy", "--operators", "clan"], "Did you mean 'clean'"),
        (["collect", "--out", "x", "--suite", "toy", "--initial-states", "5-1"], "backwards"),
        (["collect", "--out", "x", "--config", "nowhere.yaml"], "does not exist"),
        (["collect", "--out", "x", "--suite", "toy", "--initial-states", "0-99999999999"], "more than 10000000"),
        (["collect", "--out", "x", "--suite", "toy", "--samples", "99999999"], "more than 1000000 episodes"),
        (["collect", "--out", "x", "--suite", "toy", "--workers", "-1"], "--workers is -1"),
        (["collect", "--out", "x", "--suite", "toy", "--timeout", "-1"], "--timeout is -1"),
        (["collect", "--out", "x", "--suite", "toy", "--timeout", "0"], "--timeout is 0"),
        (["collect", "--out", "x", "--suite", "toy", "--timeout", "nan"], "--timeout is nan"),
        (["collect", "--out", "x", "--suite", "toy", "--timeout", "inf"], "--timeout is inf"),
        (["collect", "--out", "x", "--suite", "toy", "--temperature", "nan"], "--temperature is nan"),
        (["collect", "--out", "x", "--suite", "toy", "--temperature", "inf"], "--temperature is inf"),
        (["loop", "--out", "x", "--suite", "toy", "--gate-margin", "2"], "--gate-margin is 2.0"),
        (["loop", "--out", "x", "--suite", "toy", "--gate.margin", "2"], "--gate-margin is 2.0"),
        (["loop", "--out", "x", "--suite", "toy", "--gate.alpha=0.7"], "--gate-alpha is 0.7"),
        (["loop", "--out", "x", "--suite", "toy", "--gate.margn", "2"], "Unknown flag '--gate.margn'"),
        (["evaluate", "--policy", "expert", "--suite", "toy", "--temperature", "nan"], "--temperature is nan"),
        (["evaluate", "--policy", "expert", "--suite", "toy", "--workers", "-2"], "--workers is -2"),
        (["evaluate", "--policy", "expert", "--suite", "toy", "--episodes", "99999999999"], "--episodes is"),
    ],
)
def test_mistakes_end_with_a_sentence_and_code_two(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err.replace("\n", " ")
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_flag_suggests_the_right_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "grape", "collect", "--out", "x", "--sampels", "3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--samples" in done.stdout + done.stderr


def test_json_is_alone_on_standard_output_and_yaml_gives_defaults(tmp_path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("suite: toy\ninitial_states: 0-3\nsamples: 7\n")
    words = ["collect", "--config", str(settings), "--out", str(tmp_path / "out"), "--samples", "1", "--tasks", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "grape", *words, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    summary = json.loads(done.stdout)
    assert summary["episodes"] == 4
    assert (tmp_path / "out" / "settings.yaml").read_text().count("toy") == 1


def test_overview_and_version_need_no_heavy_imports() -> None:
    code = "import sys; from grape.cli.main import main; main([]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_an_output_that_is_a_file_is_told_without_traceback(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["collect", "--suite", "toy", "--out", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_other_errors_of_the_system_become_a_sentence(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(name: str, arguments: list[str]) -> int:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr("grape.cli.main._dispatch", refuse)
    assert main(["collect"]) == 1
    assert "/somewhere: Permission denied" in capsys.readouterr().err
