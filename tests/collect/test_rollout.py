"""What playing groups does with failures and odd episodes; a scripted pool stands in for simulators."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from grape.collect import CollectSettings, run_collect
from grape.collect.plan import Group, make_plan
from grape.collect.rollout import MOST_LOSSES, ExpertActor, PlannedGroups, RolloutLog, play_groups
from grape.core.errors import SimulatorError
from grape.core.tasks import Task
from grape.core.trajectories import Trajectory
from grape.envs.base import Snapshot
from grape.envs.pool import GroupReply
from grape.envs.registry import get_suite
from grape.store import EpisodeStore

# Whether a group's n-th start fails, and what its first state looks like.
Script = Callable[[int, int], "str | Snapshot"]


def snapshot(*, success: bool = False, x: float = 0.0) -> Snapshot:
    return Snapshot(
        image=np.zeros((8, 8, 3), np.uint8),
        proprio=np.zeros(4, np.float32),
        keypoints={"gripper": np.array([x, 0, 0], np.float32)},
        signals={},
        success=success,
    )


class ScriptedPool:
    """One worker; every episode is solved by its first decision."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._reply: GroupReply | None = None
        self.running: int | None = None
        self.lanes = 0
        self.starts: list[int] = []

    @property
    def idle(self) -> int:
        return int(self.running is None)

    def start(self, group_id: int, task: Task, states: Sequence[int], experts: object) -> None:
        assert self.running is None
        self.starts.append(group_id)
        self.running, self.lanes = group_id, len(states)
        answer = self._script(group_id, self.starts.count(group_id))
        failed = isinstance(answer, str)
        lost = failed and answer.startswith("lost")  # type: ignore[union-attr]
        self._reply = GroupReply(group_id, () if failed else (answer,) * self.lanes, answer if failed else None, lost)  # type: ignore[arg-type]

    def step(self, group_id: int, actions: None, active: Sequence[bool]) -> None:
        assert all(active)
        acted = np.zeros((self.lanes, 7), np.float32)
        self._reply = GroupReply(group_id, (snapshot(success=True),) * self.lanes, expert_actions=(acted, acted))

    def wait(self) -> list[GroupReply]:
        assert self._reply is not None
        if self._reply.failure is not None:
            self.running = None
        return [self._reply]

    def finish(self, group_id: int) -> None:
        assert self.running == group_id
        self.running = None


def play(script: Script) -> tuple[ScriptedPool, RolloutLog, dict[int, list[Trajectory]]]:
    suite = get_suite("toy")
    groups = make_plan(CollectSettings(out=Path(), suite="toy", tasks="0", initial_states="0-7", lanes=2), suite)
    pool, log = ScriptedPool(script), RolloutLog()
    done: dict[int, list[Trajectory]] = {}

    def finished(group: Group, trajectories: list[Trajectory]) -> None:
        done[group.number] = trajectories

    play_groups(PlannedGroups(groups), pool, ExpertActor(), versions={}, display=False, log=log, finished=finished)  # type: ignore[arg-type]
    return pool, log, done


def test_a_simulator_that_never_answers_is_given_up_early() -> None:
    starts: list[int] = []

    def script(group: int, attempt: int) -> str:
        starts.append(group)
        return "no libEGL"

    with pytest.raises(SimulatorError, match="no libEGL") as stop:
        play(script)
    assert "grape doctor" in stop.value.hint
    assert starts == [0, 1, 0]


def test_one_bad_group_does_not_stop_the_others() -> None:
    pool, log, done = play(lambda group, attempt: "broken" if group == 0 else snapshot())
    assert sorted(done) == [1, 2, 3]
    assert len(log.failures) == 1
    assert pool.starts.count(0) == 2


@pytest.mark.parametrize(("losses", "starts"), [(MOST_LOSSES, MOST_LOSSES + 1), (1000, MOST_LOSSES + 2)])
def test_a_worker_that_is_taken_away_counts_as_no_try_unless_it_always_is(losses: int, starts: int) -> None:
    def script(group: int, attempt: int) -> str | Snapshot:
        return "lost with its node" if group == 1 and attempt <= losses else snapshot()

    pool, log, done = play(script)
    assert pool.starts.count(1) == starts
    assert len(log.losses) == MOST_LOSSES
    assert (len(log.failures), sorted(done)) == ((0, [0, 1, 2, 3]) if losses == MOST_LOSSES else (1, [0, 2, 3]))


@pytest.mark.parametrize("mended", [True, False])
def test_a_keypoint_that_is_not_finite_is_a_failure_of_its_group(mended: bool) -> None:
    def script(group: int, attempt: int) -> Snapshot:
        return snapshot(x=float("nan") if group == 1 and not (mended and attempt == 2) else 0.0)

    _, log, done = play(script)
    assert sorted(done) == ([0, 1, 2, 3] if mended else [0, 2, 3])
    assert len(log.retries) == 1
    assert "not finite" in log.retries[0]
    assert len(log.failures) == (not mended)


def test_an_episode_solved_at_its_reset_has_one_decision() -> None:
    _, _, done = play(lambda group, attempt: snapshot(success=True))
    assert {trajectory.steps for group in done.values() for trajectory in group} == {1}
    assert all(trajectory.meta.success for group in done.values() for trajectory in group)


def test_a_suite_that_cannot_start_ends_the_collection_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPE_FAULT", "error:reach-red:0:0")
    settings = CollectSettings(out=tmp_path / "run", suite="toy", tasks="0", initial_states="0", workers=1)
    with pytest.raises(SimulatorError, match="gave no answer in any episode") as stop:
        run_collect(settings)
    assert "asked for by GRAPE_FAULT" in str(stop.value)
    monkeypatch.delenv("GRAPE_FAULT")
    run_collect(settings)
    assert len(EpisodeStore.open(tmp_path / "run" / "store").ids()) == 1
