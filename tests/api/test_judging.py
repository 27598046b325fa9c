"""A judge's trial and the agreement of scorers, for programs."""

from pathlib import Path

import pytest

import grape
from tests.preferences.rollouts import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "store"
    make_store(folder)
    return folder


def test_a_trial_says_whether_to_trust(store: Path) -> None:
    trial = grape.validate_judge(judge="success", store=str(store))
    assert trial.folder is None
    assert (trial.accepted, trial.reasons) == (trial.summary["verdict"] == "accept", tuple(trial.summary["reasons"]))
    assert {check["code"] for check in trial.checks} >= {"answers", "outcomes", "position", "consistency"}
    assert grape.validate_judge(judge="success", store=(store,)).to_dict() == trial.to_dict()
    chance = grape.validate_judge(judge="random", store=(store,), repeats=0)
    assert not chance.accepted
    assert chance.reasons


def test_agreement_is_a_matrix(store: Path, tmp_path: Path) -> None:
    grape.score(store=store, out=tmp_path / "scores", scorer=("success",))
    result = grape.agree(run=str(tmp_path / "scores"), page=False)
    assert result.figures == tmp_path / "scores" / "agreement" / "agreement.json"
    assert result.page is None
    same = next(row for row in result.matrix if (row["source"], row["reference"]) == ("R_GCPG", "success"))
    assert same["concordance"] == 1.0  # R_GCPG contains success
    with pytest.raises(grape.DataError):
        grape.agree(run=tmp_path / "nothing")
