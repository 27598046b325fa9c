"""One episode in a straight line is what the parallel collector stores, to the byte."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grape.collect import CollectSettings, open_policy, run_collect, run_episode
from grape.core.errors import CompatibilityError, PolicyError, SettingsError
from grape.envs.registry import get_suite
from grape.policies.base import ActionBatch, PolicySpec
from grape.policies.openvla import compute_norm_stats, create_nano, save_policy
from grape.store import EpisodeStore, save_trajectories
from tests.collect.test_chunks import Pusher, settings
from tests.collect.test_collect import store_bytes

TASK = "push-block"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"execute": 3, "until": "last-step"},
        {"execute": 1, "display": False, "seed": 7},
        {"max_steps": 0},  # ends inside a chunk
    ],
)
def test_it_is_what_the_collector_stores(tmp_path: Path, options: dict[str, Any]) -> None:
    given = settings(tmp_path / "run", samples=2, lanes=1, **options)  # Pusher names tokens by lane
    run_collect(given, policy=Pusher())
    collected = EpisodeStore.open(tmp_path / "run")
    suite = get_suite("toy")
    world = suite.make_environment(suite.tasks[collected.metas()[0].task_index])
    same = {"temperature": 1.0, **{"max_steps": given.max_steps}, **options}
    episodes = [
        run_episode(Pusher(), suite, TASK, state, sample=sample, environment=world, **same)
        for state in range(6)
        for sample in range(2)
    ]
    (tmp_path / "alone").mkdir()
    store = save_trajectories(tmp_path / "alone" / "store", episodes, action_space=suite.action_space)
    assert len(store) == len(collected) == 12
    assert store_bytes(tmp_path / "alone") == store_bytes(tmp_path / "run")


def test_a_nano_policy_plays_the_same_alone(tmp_path: Path) -> None:
    statistics = compute_norm_stats(np.random.default_rng(0).uniform(-1, 1, (50, 7)), tuple("abcdefg"))
    policy = create_nano(seed=0, norm_stats=statistics, gripper="+1 closes", instructions=("push the block",))
    save_policy(policy, tmp_path / "policy")
    given = CollectSettings(
        out=tmp_path / "run", suite="toy", tasks=TASK, initial_states="0,1", policy=str(tmp_path / "policy"),
        temperature=0.7, max_steps=4, lanes=1, workers=1,
    )  # fmt: skip
    run_collect(given)
    opened = open_policy(given)
    assert opened is not None
    episodes = [run_episode(opened, "toy", TASK, state, temperature=0.7, max_steps=4) for state in (0, 1)]
    assert "R_self" in repr(episodes[0])
    (tmp_path / "alone").mkdir()
    save_trajectories(tmp_path / "alone" / "store", episodes)
    assert store_bytes(tmp_path / "alone") == store_bytes(tmp_path / "run")


class Broken(Pusher):
    """Decides on nothing that can be executed."""

    def act(self, observations: Any, *, temperature: float = 0.0, seeds: Any = None) -> ActionBatch:
        batch = super().act(observations, temperature=temperature, seeds=seeds)
        return ActionBatch(batch.actions * np.nan, batch.tokens, batch.logps, batch.support, batch.temperature)


def test_what_cannot_be_played_is_refused() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'toy'"):
        run_episode(Pusher(), "tooy", TASK)
    with pytest.raises(SettingsError, match="Did you mean 'push-block'"):
        run_episode(Pusher(), "toy", "push-blok")
    with pytest.raises(SettingsError, match="names 2 tasks"):
        run_episode(Pusher(), "toy", "0-1")
    with pytest.raises(SettingsError, match="Initial state -1 of toy/push-block does not exist"):
        run_episode(Pusher(), "toy", TASK, -1)
    with pytest.raises(PolicyError, match="not finite in push-block-i000000-k00, decision 0"):
        run_episode(Broken(), "toy", TASK)
    other = Pusher()
    other.spec = PolicySpec(6, 64, "+1 closes", "toy", "policy", "preprocessing")
    with pytest.raises(CompatibilityError, match="The policy decides 6 dimensions, the suite takes 7"):
        run_episode(other, "toy", TASK)
