"""Policies that decide on several actions at once: played open loop, recorded as decisions and control steps."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grape.collect import CollectSettings, open_policy, run_collect
from grape.core.errors import CompatibilityError, SettingsError
from grape.core.trajectories import Observation, Trajectory
from grape.envs.base import BlindEnvironment
from grape.envs.pool import WorkerPool
from grape.envs.registry import get_suite
from grape.envs.toy import ToySuite
from grape.evaluation import read_results, run_evaluate
from grape.evaluation.settings import EvaluateSettings
from grape.policies.base import ActionBatch, PolicySpec
from grape.policies.openvla_oft.nano import NANO_CONVENTIONS
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.policies.registry import read_checkpoint_info
from grape.policies.types import CheckpointInfo
from grape.store import EpisodeStore
from tests.collect.test_collect import store_bytes
from tests.openvla_oft.conftest import make_nano
from tests.reporters import Hearing

CHUNK = 4


class Pusher:
    """Moves right with a wobble that each chunk draws anew; solves ``push-block`` in a few steps."""

    def __init__(self, chunk: int = CHUNK, sampled: bool = True) -> None:
        self.sampled = sampled
        support = ("window", 1.6) if sampled else ("", 0.0)
        self.spec = PolicySpec(
            7, 64, "+1 closes", "toy", "policy", "preprocessing", chunk=chunk, support=support[0],
            logp_temperature=support[1],
        )  # fmt: skip
        self.observations: list[Observation] = []

    def prompt(self, instruction: str) -> str:
        return instruction

    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        self.observations += observations
        shape = (len(observations), self.spec.chunk, 7)
        actions = np.zeros(shape)
        actions[..., 0] = 1.0
        assert seeds is not None
        for row, seed in enumerate(seeds):
            actions[row, :, 1] = np.random.default_rng(seed).uniform(-0.2, 0.2, self.spec.chunk)
        tokens = np.arange(np.prod(shape)).reshape(shape).astype(np.int32)
        if not self.sampled:
            return ActionBatch(actions)
        return ActionBatch(actions, tokens, -tokens.astype(np.float32), "window", 1.6)


def settings(out: Path, **changes: Any) -> CollectSettings:
    given = {
        "suite": "toy", "tasks": "push-block", "initial_states": "0-5", "policy": "pusher", "temperature": 1.0,
        "lanes": 4, "workers": 2, "max_steps": 10,
    }  # fmt: skip
    return CollectSettings(out=out, **(given | changes))


def play(out: Path, policy: Pusher | None = None, **changes: Any) -> list[Trajectory]:
    run_collect(settings(out, **changes), policy=policy or Pusher())
    store = EpisodeStore.open(out / "store")
    return [store.read(name, display=True) for name in store.ids()]


@pytest.mark.parametrize("execute", [0, 1, 3])
def test_the_first_actions_of_a_chunk_are_executed_and_all_are_kept(tmp_path: Path, execute: int) -> None:
    for episode in play(tmp_path, execute=execute, until="last-step"):
        chunks = episode.chunks
        assert chunks is not None
        assert chunks.facts() == (CHUNK, "window", 1.6)
        count = execute or CHUNK
        whole, rest = divmod(10, count)
        assert chunks.executed.tolist() == [count] * whole + [rest] * (rest > 0)
        assert (episode.steps, len(episode.frames)) == (10, episode.decisions + 1)
        assert chunks.tokens is not None
        assert chunks.tokens.shape == (episode.decisions, CHUNK, 7)
        assert episode.display is not None
        assert len(episode.display) == len(episode.frames)


def test_an_episode_ends_at_success_inside_a_chunk(tmp_path: Path) -> None:
    episodes = play(tmp_path, max_steps=0, initial_states="0-11")
    solved = [episode for episode in episodes if episode.meta.success]
    assert len([episode for episode in solved if episode.chunks and episode.chunks.executed[-1] < CHUNK]) >= 2
    for episode in solved:
        assert np.flatnonzero(episode.signals["success"]).tolist() == [episode.steps]


def test_images_are_those_of_the_states_before_decisions_and_at_the_end(tmp_path: Path) -> None:
    """As an environment shows them that draws at every step: also after a success inside a chunk."""
    suite = get_suite("toy")
    for episode in play(tmp_path, max_steps=0):
        environment = suite.make_environment(suite.tasks[episode.meta.task_index])
        snapshots = [environment.reset(episode.meta.initial_state)]
        snapshots += [environment.step(action) for action in episode.actions]
        looked = [*episode.decision_starts.tolist(), episode.steps]
        assert np.array_equal(episode.frames, [snapshots[state].image for state in looked])
        assert np.array_equal(episode.proprio, [snapshot.proprio for snapshot in snapshots])
        assert [snapshot.success for snapshot in snapshots] == (episode.signals["success"] == 1).tolist()


def test_bytes_do_not_depend_on_workers_or_interruptions(tmp_path: Path) -> None:
    play(tmp_path / "one", workers=1)
    play(tmp_path / "two", workers=2)
    expected = store_bytes(tmp_path / "one")
    assert store_bytes(tmp_path / "two") == expected
    (tmp_path / "two" / "done.json").unlink()
    for name in list(expected)[::3]:
        (tmp_path / "two" / "store" / "episodes" / name).unlink()
    play(tmp_path / "two", workers=1)
    assert store_bytes(tmp_path / "two") == expected


@pytest.mark.parametrize("fault", ["crash", "error"])
def test_a_worker_that_fails_inside_a_chunk_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    play(tmp_path / "undisturbed")
    monkeypatch.setenv("GRAPE_FAULT", f"{fault}:push-block:1:2:{tmp_path / 'marker'}")
    play(tmp_path / "disturbed")
    assert (tmp_path / "marker").exists()
    assert store_bytes(tmp_path / "disturbed") == store_bytes(tmp_path / "undisturbed")


def test_a_policy_without_tokens_is_recorded_without(tmp_path: Path) -> None:
    for episode in play(tmp_path, Pusher(sampled=False)):
        assert episode.chunks is not None
        assert episode.chunks.tokens is None
        assert np.isnan(episode.logp)


def test_a_store_holds_chunks_of_one_kind(tmp_path: Path) -> None:
    play(tmp_path)
    (tmp_path / "done.json").unlink()
    with pytest.raises(CompatibilityError, match="differs in chunks"):
        run_collect(settings(tmp_path), policy=Pusher(chunk=2))
    contract = EpisodeStore.open(tmp_path / "store").contract
    assert contract["chunks"] == {"length": CHUNK, "support": "window", "temperature": 1.6}


def test_drawing_apart_from_moving_gives_the_same_snapshots() -> None:
    suite = get_suite("toy")
    both, apart = (suite.make_environment(suite.tasks[0]) for _ in range(2))
    assert isinstance(apart, BlindEnvironment)
    both.reset(0), apart.reset(0)
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 7)).astype(np.float32):
        moved = apart.advance(action)
        assert moved.image.size == 0
        assert moved.display is None
        expected, looked = both.step(action), apart.look(moved)
        assert np.array_equal(expected.image, looked.image)
        assert expected.signals == looked.signals == moved.signals


def test_lanes_at_rest_get_no_state() -> None:
    task = get_suite("toy").tasks[0]
    with WorkerPool("toy", 1, 2) as pool:
        pool.start(0, task, [0, 1])
        pool.wait()
        pool.play(0, np.zeros((2, 3, 7), np.float32), [0, 2], "last-step")
        (reply,) = pool.wait()
        assert [len(reply.states(lane)) for lane in range(2)] == [0, 2]
        assert [state.image.size > 0 for state in reply.states(1)] == [False, True]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oft") / "policy"
    save_oft_policy(make_nano(proprio_dim=4), folder)
    return folder


def test_a_nano_policy_of_chunks_collects_and_evaluates(tmp_path: Path, checkpoint: Path) -> None:
    given = {"suite": "toy", "tasks": "push-block", "workers": 1, "max_steps": 5, "policy": str(checkpoint)}
    run_collect(CollectSettings(out=tmp_path / "collected", initial_states="0-1", execute=2, **given))  # type: ignore[arg-type]
    for name in (store := EpisodeStore.open(tmp_path / "collected" / "store")).ids():
        episode = store.read(name)
        assert episode.chunks is not None
        assert episode.chunks.executed.tolist() == [2, 2, 1]
        assert episode.chunks.facts() == (3, "window", 1.0)
        assert episode.logp < 0
    evaluated = run_evaluate(EvaluateSettings(out=tmp_path / "evaluated", episodes=2, **given))  # type: ignore[arg-type]
    assert evaluated["episodes"] == 2
    again = run_evaluate(EvaluateSettings(out=tmp_path / "again", episodes=2, lanes=1, **given))  # type: ignore[arg-type]
    assert again["success_rate"] == evaluated["success_rate"]
    for execute in (2, 3):
        run_evaluate(EvaluateSettings(out=tmp_path / f"{execute}", episodes=1, execute=execute, **given))  # type: ignore[arg-type]
    assert [read_results(tmp_path / name).execute for name in ("2", "3", "again")] == [2, 0, 0]


def test_it_plays_in_a_physics_simulator_too(tmp_path: Path, checkpoint: Path) -> None:
    pytest.importorskip("metaworld")
    given = {"suite": "metaworld", "tasks": "0", "initial_states": "0", "workers": 1, "max_steps": 4, "lanes": 1}
    run_collect(CollectSettings(out=tmp_path, policy=str(checkpoint), **given))  # type: ignore[arg-type]
    store = EpisodeStore.open(tmp_path / "store")
    episode = store.read(store.ids()[0], display=True)
    assert episode.chunks is not None
    assert episode.chunks.executed.tolist() == [3, 1]
    suite = get_suite("metaworld")
    environment = suite.make_environment(suite.tasks[0])
    snapshots = [environment.reset(0), *(environment.step(action) for action in episode.actions)]
    assert np.array_equal(episode.frames, [snapshots[state].image for state in (0, 3, 4)])
    assert np.array_equal(episode.proprio, [snapshot.proprio for snapshot in snapshots])


def test_a_chunk_that_outlasts_the_episode_is_warned_of(tmp_path: Path) -> None:
    def warnings(chunk: int, **changes: object) -> list[str]:
        out = tmp_path / f"{chunk}-{len(changes)}"
        heard = Hearing()
        run_collect(settings(out, max_steps=3, **changes), heard, policy=Pusher(chunk))
        return heard.warnings

    [sentence] = warnings(4)
    assert "4 actions of each chunk are executed" in sentence
    assert "push-block ends after 3" in sentence
    assert not warnings(3)
    assert not warnings(4, execute=2)


def test_protocols_learn_crop_and_statistics_from_the_conventions(checkpoint: Path, tmp_path: Path) -> None:
    assert read_checkpoint_info(str(checkpoint)) == CheckpointInfo(("toy",), center_crop=False)
    cropped = dataclasses.replace(NANO_CONVENTIONS, center_crop=True)
    save_oft_policy(make_nano(conventions=cropped), tmp_path / "cropped")
    assert read_checkpoint_info(str(tmp_path / "cropped")).center_crop is True


def test_what_cannot_be_played_is_refused_before_the_first_rollout(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(SettingsError, match=r"--execute 4: .* decides on 3 actions at once") as caught:
        open_policy(settings(tmp_path, policy=str(checkpoint), execute=4))
    assert "at most 3" in caught.value.hint
    save_oft_policy(make_nano(cameras=("agentview", "wrist")), tmp_path / "wrist")
    with pytest.raises(CompatibilityError, match="the suite has no wrist"):
        open_policy(settings(tmp_path, policy=str(tmp_path / "wrist")))


def test_a_dry_run_finds_the_same_faults_by_the_configuration_alone(tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "unread"
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    assert run_collect(settings(tmp_path, policy=str(folder), execute=3, dry_run=True))["episodes"] == 6
    with pytest.raises(SettingsError, match=r"--execute 4: .* decides on 3 actions at once"):
        run_collect(settings(tmp_path, policy=str(folder), execute=4, dry_run=True))
    save_oft_policy(make_nano(cameras=("agentview", "wrist")), tmp_path / "wrist")
    with pytest.raises(CompatibilityError, match="the suite has no wrist"):
        run_collect(settings(tmp_path, policy=str(tmp_path / "wrist"), dry_run=True))
    assert not (tmp_path / "run.json").exists()


def test_a_suite_that_does_otherwise_than_the_policy_states_is_warned_of(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    reporter = SimpleNamespace(warn=warnings.append)
    chosen = settings(tmp_path, policy=str(checkpoint), center_crop="no")
    monkeypatch.setattr(ToySuite, "conventions", {"idle_steps": 10, "image_preprocessing": "jpeg-lanczos"})
    open_policy(chosen, reporter)
    assert warnings == []  # a nano policy states nothing
    stated = {"idle_steps": 15, "image_preprocessing": "jpeg-lanczos"}
    monkeypatch.setattr(OFTPolicy, "evaluation_conventions", stated)
    open_policy(chosen, reporter)
    assert [text.partition(": figures")[0] for text in warnings] == [
        f"{checkpoint} states idle_steps 15, the suite toy has 10"
    ]


def test_an_explicit_whole_chunk_is_the_same_run_as_none(tmp_path: Path) -> None:
    episodes = play(tmp_path, execute=0)
    again = play(tmp_path, execute=CHUNK)  # resumes
    assert [episode.meta for episode in again] == [episode.meta for episode in episodes]
    with pytest.raises(CompatibilityError):
        play(tmp_path, execute=1)


@pytest.mark.parametrize("until", ["success", "last-step"])
def test_an_expert_may_be_seen_every_few_control_steps_alone(tmp_path: Path, until: str) -> None:
    """What it does, and what an imitator learns from it, stays the same."""
    episodes: dict[int, dict[str, Trajectory]] = {}
    for execute in (0, 4):
        run_collect(
            settings(
                tmp_path / str(execute), suite="toy_fine_wrist", policy="expert", operators="held-noise",
                execute=execute, max_steps=26, until=until,
            )
        )  # fmt: skip
        store = EpisodeStore.open(tmp_path / str(execute) / "store")
        episodes[execute] = {name: store.read(name, display=True) for name in store.ids()}
    assert store.contract["chunks"] == {"length": 4, "support": "", "temperature": 0.0}
    assert any((one.actions != one.labels).any() for one in episodes[4].values())
    for name, every in episodes[0].items():
        seldom = episodes[4][name]
        for part in ("actions", "labels", "proprio", "action_tokens", "token_logps"):
            np.testing.assert_array_equal(getattr(seldom, part), getattr(every, part))
        for part, values in {**every.keypoints, **every.signals}.items():
            np.testing.assert_array_equal({**seldom.keypoints, **seldom.signals}[part], values)
        assert seldom.meta == every.meta
        assert every.chunks is None
        assert seldom.chunks is not None
        assert seldom.chunks.facts() == (4, "", 0.0)
        assert seldom.chunks.tokens is None
        seen = [*range(0, every.steps, 4), every.steps]
        np.testing.assert_array_equal(seldom.frames, every.frames[seen])
        np.testing.assert_array_equal(seldom.cameras["wrist"], every.cameras["wrist"][seen])
        assert seldom.display is not None
        assert len(seldom.display) == len(seen)


def test_a_policy_with_a_wrist_camera_acts_in_chunks(tmp_path: Path) -> None:
    save_oft_policy(make_nano(cameras=("agentview", "wrist"), proprio_dim=4), tmp_path / "policy")
    chosen = settings(tmp_path / "run", suite="toy_fine_wrist", policy=str(tmp_path / "policy"), max_steps=7)
    run_collect(chosen)
    store = EpisodeStore.open(tmp_path / "run" / "store")
    suite = get_suite("toy_fine_wrist")
    for episode in map(store.read, store.ids()):
        assert episode.chunks is not None
        assert episode.chunks.length == 3
        environment = suite.make_environment(suite.tasks[episode.meta.task_index])
        snapshots = [environment.reset(episode.meta.initial_state), *map(environment.step, episode.actions)]
        looked = [*episode.decision_starts.tolist(), episode.steps]
        np.testing.assert_array_equal(episode.cameras["wrist"], [snapshots[i].cameras["wrist"] for i in looked])
