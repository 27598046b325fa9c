"""Values, judgments and votes that somebody damaged: refused with a message, or without effect; never a traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from grape.core.errors import GrapeError
from grape.preferences import PairSettings, run_pair
from grape.report import AgreeSettings, run_agree
from tests.agreement.test_agree import run
from tests.hostile.cases import as_rows, changed_rows
from tests.hostile.documents import BAD_JSON
from tests.hostile.hostile_files import SPECIAL

__all__ = ["run"]

FILES = ("scores/scorers/costs.jsonl", "pairs-opposite/judgments.jsonl", "votes/anna.jsonl")
SPOILS: dict[str, Callable[[Path], object]] = {**SPECIAL, **as_rows(BAD_JSON), **changed_rows(24)}


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_refused_or_without_effect(file: str, run: Path, tmp_path: Path) -> None:
    refusals: list[GrapeError] = []
    for number, (what, spoil) in enumerate(SPOILS.items()):
        if what not in SPECIAL and (number + len(file)) % 6:
            continue
        place = tmp_path / str(number) / "run"
        shutil.copytree(run, place)
        spoil(place / file)
        votes = place / "votes"
        for work in (
            lambda place=place, votes=votes: run_agree(AgreeSettings(run=place / "scores", votes=votes, page=False)),
            lambda place=place, votes=votes: run_pair(
                PairSettings(
                    scores=place / "scores",
                    out=place / "new",
                    judge=f"votes:{votes}" if file.startswith("votes") else "score:costs",
                    mode="random",
                )
            ),
        ):
            try:
                work()
            except GrapeError as error:
                refusals.append(error)
        shutil.rmtree(tmp_path / str(number))
    assert len(refusals) > len(SPECIAL)
    assert {error.exit_code for error in refusals} == {2}
