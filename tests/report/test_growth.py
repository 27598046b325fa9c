"""Memory of the verbs on recorded episodes does not grow with their number beyond an index."""

import gc
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from grape.costs import CostsValidateSettings, run_costs_validate
from grape.preferences import PairSettings, ScoreSettings, pricing, run_pair, run_score
from grape.report.report import ReportSettings, run_report
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_rollout

FEW, MANY = 32, 80
LIMIT = 4096
"""Bytes an episode."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A folder with a store of few and of many episodes, four of each initial state."""
    root = tmp_path_factory.mktemp("growth")
    folders = {count: root / str(count) for count in (FEW, MANY)}
    for folder in folders.values():
        EpisodeStore.create(folder / "store", "metaworld", {})
        (folder / "store" / "episodes").mkdir()
    store = EpisodeStore.open(folders[MANY] / "store")
    for number in range(MANY):
        state, sample = divmod(number, 4)
        rollout = make_rollout("drawer-open", state, sample, sample % 2 == 0, steps=16)
        store.write(rollout)
        if number < FEW:
            name = f"episodes/{rollout.meta.episode_id}.parquet"
            os.link(store.path / name, folders[FEW] / "store" / name)
    return folders


def score(folder: Path) -> None:
    run_score(ScoreSettings(store=folder / "store", out=folder / "score"))


def pair(folder: Path) -> None:
    run_pair(PairSettings(scores=folder / "score", out=folder / "pair"))


def report(folder: Path) -> None:
    run_report(ReportSettings(run=folder, pairs_shown=1))


def validate(folder: Path) -> None:
    run_costs_validate(
        CostsValidateSettings(target="metaworld/drawer-open", store=(folder / "store",), noise=(0.01,), draws=1)
    )


@pytest.mark.slow
def test_memory_is_an_index(runs: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "EPISODES_PER_SHARD", 16)
    verbs: list[Callable[[Path], None]] = [score, pair, report, validate]
    for folder in runs.values():  # what is imported and cached once, and the store's index, belong to nobody's episodes
        for verb in verbs[:2]:
            verb(folder)
        for verb in verbs[:2]:
            (folder / verb.__name__ / "done.json").unlink()
    for verb in verbs:
        peaks = {count: peak_of(verb, folder) for count, folder in runs.items()}
        growth = (peaks[MANY] - peaks[FEW]) / (MANY - FEW)
        assert growth < LIMIT, f"{verb.__name__}: {growth:,.0f} bytes an episode"


def peak_of(verb: Callable[[Path], None], folder: Path) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        verb(folder)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
