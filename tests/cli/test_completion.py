"""Completion scripts: bash's runs and offers what the verbs take."""

import shutil
import subprocess
from pathlib import Path

import pytest

from grape.cli.main import VERBS, main


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "grape.bash"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as handle:
        patch.setattr("sys.stdout", handle)
        assert main(["completion", "bash"]) == 0
    return path


def offered(script: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words behind ``grape``."""
    code = (
        'source "$1"; shift; COMP_WORDS=(grape "$@"); COMP_CWORD=$#; compopt() { :; }; _grape; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code, "-", str(script), *words], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_offers_verbs_kinds_and_flags(script: Path) -> None:
    assert offered(script, "") >= {*VERBS, "help", "completion", "--version"}
    assert offered(script, "e") == {"evaluate", "export"}
    assert offered(script, "help", "tr") == {"train"}
    assert offered(script, "costs", "s") == {"show", "schema"}
    assert offered(script, "costs", "show", "--sto") == {"--store"}
    assert offered(script, "costs", "show", "some.yaml", "--sto") == {"--store"}
    assert offered(script, "train", "--out", "runs/x", "--micro") == {"--micro-batch"}
    assert offered(script, "loop", "--train.nll") == {"--train.nll-weight"}
    assert offered(script, "loop", "--train.pol") == set()  # the loop decides
    assert "--recipe" in offered(script, "loop", "--re")
    assert offered(script, "collect", "--ver") == {"--verbose"}
    assert offered(script, "completion", "z") == {"zsh"}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same_words(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "micro-batch" in text
    assert "keypoints" in text
    if shutil.which(shell):
        (tmp_path / "script").write_text(text)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.parametrize(("words", "message"), [(["bsh"], "Did you mean 'bash'"), ([], "needs a shell")])
def test_a_wrong_shell_is_a_usage_error(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", *words]) == 2
    assert message in capsys.readouterr().err
