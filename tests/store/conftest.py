from pathlib import Path

import pytest

from grape.store import EpisodeStore


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return EpisodeStore.create(tmp_path / "store", "toy", {"action_dim": 7})
