"""Scoring in shards: killed runs go on, bytes stay, and memory does not grow with the episodes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from grape.core.errors import CompatibilityError
from grape.preferences import ScoreSettings, pricing, run_score, score_trajectories
from grape.preferences.curves import CURVES_FILE
from grape.preferences.records import SCORES_FILE, score_to_row
from grape.store import EpisodeStore
from tests.preferences.rollouts import in_chunks, make_store

FILES = (SCORES_FILE, CURVES_FILE, "calibration.json", "done.json")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("recorded") / "store").path


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "EPISODES_PER_SHARD", 12)


class Killed(BaseException):
    pass


def counting(monkeypatch: pytest.MonkeyPatch, most: int = 1000) -> list[str]:
    """Ids of the episodes that are priced from now on; beyond ``most`` the run is killed."""
    priced: list[str] = []

    def price(self, trajectory, own: Callable = pricing.Pricing.price):
        if len(priced) == most:
            raise Killed
        priced.append(trajectory.meta.episode_id)
        return own(self, trajectory)

    monkeypatch.setattr(pricing.Pricing, "price", price)
    return priced


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("damaged", [False, True])
def test_a_killed_run_goes_on_where_it_was(
    recorded: Path, tmp_path: Path, damaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ScoreSettings(store=recorded, out=tmp_path / "whole")
    settings = ScoreSettings(store=recorded, out=tmp_path / "out")
    run_score(whole)
    with monkeypatch.context() as patch:
        counting(patch, most=30)
        with pytest.raises(Killed):
            run_score(settings)
    assert len(list((tmp_path / "out" / "priced").glob("*.parquet"))) == 2
    if damaged:
        (tmp_path / "out" / "priced" / "000000.parquet").write_bytes(b"PAR1")
    priced = counting(monkeypatch)
    run_score(settings)
    names = EpisodeStore.open(recorded).ids()
    assert priced == [*(names[:12] if damaged else ()), *names[24:]]
    assert not (tmp_path / "out" / "priced").exists()
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    run_score(settings)
    assert len(priced) == (28 if damaged else 16)


@pytest.mark.usefixtures("small_shards")
def test_processes_that_share_the_episodes_write_the_same_bytes(recorded: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        run_score(ScoreSettings(store=recorded, out=tmp_path / str(workers), workers=workers))
    for name in FILES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    mixed = EpisodeStore.create(tmp_path / "mixed", "metaworld", {})
    for name in EpisodeStore.open(recorded).ids()[:26]:
        trajectory = EpisodeStore.open(recorded).read(name)
        mixed.write(trajectory if name < "drawer-open-0003" else in_chunks(trajectory, 4, 4))
    messages = set()
    for workers in (1, 2):
        with pytest.raises(CompatibilityError, match="that do not compare") as raised:
            run_score(ScoreSettings(store=mixed.path, out=tmp_path / f"mixed-{workers}", workers=workers))
        messages.add(str(raised.value))
    assert len(messages) == 1


@pytest.mark.usefixtures("small_shards")
def test_shards_and_memory_give_the_same_scores(recorded: Path, tmp_path: Path) -> None:
    summary = run_score(ScoreSettings(store=recorded, out=tmp_path / "out", objectives={"safety": 2.0}))
    scored = score_trajectories(EpisodeStore.open(recorded), objectives={"safety": 2.0})
    rows = [json.loads(line) for line in (tmp_path / "out" / SCORES_FILE).read_text().splitlines()]
    assert rows == [json.loads(json.dumps(score_to_row(score))) for score in scored]
    assert {name: summary[name] for name in scored.summary} == scored.summary
