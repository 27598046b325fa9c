"""Tokens of a policy that speaks of roll, pitch and yaw, from actions recorded as axis-angles."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from grape.core.errors import CompatibilityError, DataError
from grape.core.files import write_jsonl
from grape.core.preferences import PreferencePair
from grape.core.runs import open_run
from grape.core.tasks import ActionSpace
from grape.envs.registry import get_suite
from grape.exchange import ImportGrapeRldsSettings, RldsExportSettings, run_export_rlds, run_import_grape_rlds
from grape.exchange.tokens import PolicyReader, open_reader
from grape.policies.action_conventions import to_env_action
from grape.policies.base import PolicySpec
from grape.policies.openvla import OpenVLAPolicy, create_nano, save_policy
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.preferences import read_pairs
from grape.preferences.records import pair_to_row
from grape.store import EpisodeStore
from tests.openvla_oft.conftest import make_nano
from tests.store.episodes import make_episode
from tests.training.recordings import SHAPE

WIDOWX = get_suite("simpler_widowx").action_space
HIGH = np.array([0.028, 0.041, 0.04, 0.082, 0.078, 0.21, 1.0])  # as wide as BridgeData's
LOW = np.array([-0.029, -0.042, -0.026, -0.081, -0.093, -0.207, 0.0])


def make_policy(key: str = "bridge_orig") -> OpenVLAPolicy:
    statistics = {"action": {"q01": LOW.tolist(), "q99": HIGH.tolist(), "mask": [True] * 6 + [False]}}
    shape = dataclasses.replace(SHAPE, action_bins=256)
    return create_nano(
        seed=0, norm_stats={key: statistics}, gripper="1 opens, 0 closes", instructions=["open"], shape=shape
    )


def sampled(policy: OpenVLAPolicy, count: int, seed: int = 0) -> np.ndarray:
    """Tokens of random decisions, the gripper between closed and open."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1, 1, (count, 7))
    values[:, 6] = rng.uniform(0.01, 1, count)
    return policy.action_tokens(np.concatenate([policy.norm.unnormalize(values)[:, :6], values[:, 6:]], axis=1))


def executed(policy: OpenVLAPolicy, tokens: np.ndarray, space: ActionSpace = WIDOWX) -> np.ndarray:
    """The actions of tokens as they are executed and recorded."""
    spec = PolicySpec(7, 16, policy.config.gripper, policy.unnorm_key, "", "", rotation=policy.rotation)
    return np.stack([to_env_action(action, spec, space) for action in policy.decode_tokens(tokens)])


def test_recorded_axis_angles_give_the_tokens_that_were_sampled():
    policy = make_policy()
    tokens = sampled(policy, 3000)
    recorded = executed(policy, tokens)
    np.testing.assert_array_equal(PolicyReader(policy, "axis-angle").action_tokens(recorded), tokens)
    others = (PolicyReader(policy).action_tokens(recorded) != tokens).any(axis=1)
    assert others.mean() > 0.9, "the two ways to say a rotation must differ here"


def test_words_that_are_the_policys_own_are_left():
    policy = make_policy()
    tokens = sampled(policy, 500)
    np.testing.assert_array_equal(PolicyReader(policy).action_tokens(policy.decode_tokens(tokens)), tokens)
    native = make_policy("simpler_widowx")  # learned from demonstrations of the suite: axis-angles from the start
    reader = PolicyReader(native, "axis-angle")
    np.testing.assert_array_equal(reader.action_tokens(executed(native, tokens)), tokens)


@pytest.fixture
def recorded(tmp_path):
    """A policy, a store of pairs that it sampled and the export of them."""
    policy = make_policy()
    save_policy(policy, tmp_path / "policy")
    store = EpisodeStore.create(tmp_path / "store", "toy", {"action_space": dataclasses.asdict(WIDOWX)})
    pairs = []
    for state in range(4):
        for sample in range(2):
            episode = make_episode(f"a-{state}-{sample}", initial_state=state, sample=sample, success=not sample)
            tokens = sampled(policy, episode.steps, seed=2 * state + sample)
            actions = executed(policy, tokens)
            store.write(dataclasses.replace(episode, actions=actions, labels=actions, action_tokens=tokens))
        pairs.append(
            PreferencePair(f"p{state}", "drawer-open", state, f"a-{state}-0", f"a-{state}-1", 1.0, "best-worst", "")
        )
    made = open_run(tmp_path / "pairs", "pair", {"made": "by hand"})
    write_jsonl(tmp_path / "pairs" / "pairs.jsonl", map(pair_to_row, pairs))
    made.finish({"pairs": len(pairs), "store": "../store"})
    run_export_rlds(RldsExportSettings(tmp_path / "rlds", pairs=tmp_path / "pairs"))
    return tmp_path


def unchanged(folder, out: str) -> list[bool]:
    """Import with the policy: for each episode whether its tokens are those that were sampled."""
    sides = {side: folder / "rlds" / side / "rlds_np_rollout" for side in ("chosen", "rejected")}
    settings = ImportGrapeRldsSettings(
        **sides, out=folder / out, split="all", policy=folder / "policy", unnorm_key="bridge_orig"
    )
    assert run_import_grape_rlds(settings)["unnorm_key"] == "bridge_orig"
    before = {pair.pair_id: pair for pair in read_pairs(folder / "pairs")}
    store, back = EpisodeStore.open(folder / "store"), EpisodeStore.open(folder / out / "store")
    return [
        np.array_equal(
            back.read(getattr(pair, side)).action_tokens, store.read(getattr(before[pair.pair_id], side)).action_tokens
        )
        for pair in read_pairs(folder / out / "pairs")
        for side in ("chosen", "rejected")
    ]


def forget_rotation(folder, side: str) -> None:
    """Make one side such as other software writes, whose descriptions do not say how rotations are said."""
    path = folder / "rlds" / side / "rlds_np_rollout" / "1.0.0" / "features.json"
    text = path.read_text(encoding="utf-8")
    assert text.count(" Rotation: axis-angle.") == 1
    path.write_text(text.replace(" Rotation: axis-angle.", ""), encoding="utf-8")


def test_exported_pairs_come_back_with_the_tokens_that_were_sampled(recorded):
    assert all(unchanged(recorded, "back"))
    assert EpisodeStore.open(recorded / "back" / "store").contract["action_space"]["rotation"] == "axis-angle"


def test_pairs_that_do_not_say_it_are_taken_in_the_policys_words(recorded):
    forget_rotation(recorded, "chosen")
    with pytest.raises(DataError, match=r"as unknown, those of .* as axis-angle"):
        unchanged(recorded, "torn")
    forget_rotation(recorded, "rejected")
    assert not any(unchanged(recorded, "foreign"))
    assert "rotation" not in EpisodeStore.open(recorded / "foreign" / "store").contract["action_space"]


def test_policies_that_take_no_statistics_of_the_data_give_it_no_tokens(tmp_path: Path) -> None:
    save_oft_policy(make_nano(chunk=1), tmp_path)  # one action at a time, but normalized by its own statistics
    with pytest.raises(CompatibilityError, match="gives no tokens to single actions"):
        open_reader(tmp_path, "", "auto", {"data": {}})
