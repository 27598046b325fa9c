from pathlib import Path

import pytest

from grape.envs.registry import get_suite
from grape.store import EpisodeStore
from tests.costs.conftest import make_trajectory
from tests.costs.expert_recordings import record_all

__all__ = ["make_trajectory"]


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of the toy suite's experts at push-block, successes and failures."""
    suite = get_suite("toy")
    store = EpisodeStore.create(tmp_path_factory.mktemp("toy") / "store", "toy", {})
    for episode in record_all(suite, next(task for task in suite.tasks if task.name == "push-block"), range(8)):
        store.write(episode)
    return store.path
