import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from grape.core.tasks import Task
from grape.envs.base import Snapshot
from grape.envs.pool import GroupReply, WorkerPool
from grape.envs.registry import get_suite
from tests.envs.snapshots import assert_same

TOY = get_suite("toy")
RED = TOY.tasks[0]


def run_groups(
    groups: dict[int, tuple[Task, list[int], list[tuple[str, int]]]], workers: int, suite: str = "toy", steps: int = 4
) -> dict[int, list[GroupReply]]:
    """Run groups of experts for a number of decisions, starting each as soon as a worker is idle."""
    waiting, answers = list(groups), {group_id: [] for group_id in groups}
    with WorkerPool(suite, workers=workers, lanes=4, timeout=600) as pool:
        while waiting or pool.idle < workers:
            while waiting and pool.idle:
                group_id = waiting.pop(0)
                task, states, experts = groups[group_id]
                pool.start(group_id, task, states, experts)
            for reply in pool.wait():
                assert reply.failure is None
                answers[reply.group_id].append(reply)
                if len(answers[reply.group_id]) > steps:
                    pool.finish(reply.group_id)
                else:
                    pool.step(reply.group_id, None, [True] * len(reply.snapshots))
    return answers


def in_this_process(
    suite_name: str, task: Task, state: int, operator: str, seed: int, steps: int
) -> tuple[list[Snapshot], list[tuple[np.ndarray, np.ndarray]]]:
    suite = get_suite(suite_name)
    environment, expert = suite.make_environment(task), suite.make_expert(task, operator, seed)
    snapshots, actions = [environment.reset(state)], []
    for _ in range(steps):
        actions.append(expert.act(snapshots[-1]))
        snapshots.append(environment.step(actions[-1][0]))
    return snapshots, actions


def assert_equals_this_process(
    suite: str, answers: list[GroupReply], task: Task, states: list[int], experts: list[tuple[str, int]]
) -> None:
    for lane, (state, (operator, seed)) in enumerate(zip(states, experts, strict=True)):
        snapshots, actions = in_this_process(suite, task, state, operator, seed, len(answers) - 1)
        for reply, snapshot in zip(answers, snapshots, strict=True):
            assert_same(reply.snapshots[lane], snapshot)
            assert reply.snapshots[lane].privileged == {}
        for reply, (executed, clean) in zip(answers[1:], actions, strict=True):
            assert reply.expert_actions is not None
            np.testing.assert_array_equal(reply.expert_actions[0][lane], executed)
            np.testing.assert_array_equal(reply.expert_actions[1][lane], clean)


def test_groups_equal_this_process_whatever_the_number_of_workers() -> None:
    groups = {
        number: (TOY.tasks[number % 3], [number, number + 1], [("noisy", number), ("sloppy", number + 1)])
        for number in range(5)
    }
    for workers in (1, 2):
        for number, answers in run_groups(groups, workers).items():
            assert_equals_this_process("toy", answers, *groups[number])


def test_metaworld_equals_this_process() -> None:
    task = get_suite("metaworld").tasks[0]
    group = (task, [0, 3], [("clean", 0), ("noisy", 5)])
    assert_equals_this_process("metaworld", run_groups({0: group}, 1, "metaworld", steps=3)[0], *group)


def test_given_actions_move_active_lanes_only() -> None:
    with WorkerPool("toy", workers=1, lanes=2) as pool:
        pool.start(4, RED, [0, 1], None)
        (start,) = pool.wait()
        assert start.expert_actions is None
        actions = np.zeros((2, 7), dtype=np.float32)
        actions[:, 1] = 1.0
        pool.step(4, actions, [False, True])
        (reply,) = pool.wait()
        assert reply.snapshots[0] is None
        moved = reply.snapshots[1].keypoints["gripper"] - start.snapshots[1].keypoints["gripper"]
        np.testing.assert_allclose(moved, [0, 0.08, 0], atol=1e-6)
        pool.step(4, actions, [True, False])
        (reply,) = pool.wait()
        assert reply.snapshots[0].keypoints["gripper"][1] > start.snapshots[0].keypoints["gripper"][1]


def test_expert_actions_of_lanes_at_rest_are_zero() -> None:
    with WorkerPool("toy", workers=1, lanes=2) as pool:
        pool.start(0, RED, [0, 1], [("clean", 0), ("clean", 1)])
        pool.wait()
        pool.step(0, None, [True, False])
        (reply,) = pool.wait()
        executed, clean = reply.expert_actions
        assert executed.shape == clean.shape == (2, 7)
        assert np.abs(executed[0]).max() > 0
        assert np.abs(executed[1]).max() == 0


@pytest.mark.parametrize(("fault", "text"), [("crash", "killed by signal 9"), ("error", "fault 'error' asked for")])
@pytest.mark.parametrize("decision", [0, 2])
def test_crash_is_told_and_the_retry_equals_an_undisturbed_run(
    fault: str, text: str, decision: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPE_FAULT", f"{fault}:{RED.name}:7:{decision}:{tmp_path / 'struck'}")
    with WorkerPool("toy", workers=1, lanes=2) as pool:
        failures, answers = [], []
        while len(answers) < 5:
            if not answers:
                pool.start(1, RED, [7, 8], [("clean", 7), ("clean", 8)])
            else:
                pool.step(1, None, [True, True])
            (reply,) = pool.wait()
            if reply.failure is None:
                answers.append(reply)
            else:
                failures.append(reply.failure)
                assert reply.snapshots == ()
                assert pool.idle == 1
                answers.clear()
    assert len(failures) == 1
    assert text in failures[0]
    assert "toy/reach-red, initial states 7, 8" in failures[0]
    monkeypatch.delenv("GRAPE_FAULT")
    assert_equals_this_process("toy", answers, RED, [7, 8], [("clean", 7), ("clean", 8)])


def test_hung_worker_is_replaced_while_the_others_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPE_FAULT", f"hang:{RED.name}:7:1:{tmp_path / 'struck'}")
    passed = 0.0
    monkeypatch.setattr("grape.envs.pool.time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed))
    with WorkerPool("toy", workers=2, lanes=1, timeout=3000) as pool:
        pool.start(0, RED, [7], [("clean", 0)])
        pool.start(1, RED, [8], [("clean", 0)])
        hangs, answers, idle = False, 0, False
        while not (hangs and idle):
            for reply in pool.wait():
                assert reply.failure is None
                hangs |= reply.group_id == 0
                answers += reply.group_id == 1
                idle = reply.group_id == 1 and hangs and answers > 3
                if not idle:
                    pool.step(reply.group_id, None, [True])
        passed = 4000.0  # none but the worker that hangs owes an answer now
        (reply,) = pool.wait()
        assert reply.group_id == 0
        assert "no sign of life for 3000 s" in (reply.failure or "")
        pool.start(2, RED, [7], [("clean", 0)])
        retried: list[str | None] = []
        while not retried:
            for reply in pool.wait():
                if reply.group_id == 2:
                    retried.append(reply.failure)
        assert retried == [None]


def test_a_chunk_may_take_as_long_as_its_control_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPE_FAULT", f"hang:{RED.name}:7:2:{tmp_path / 'struck'}")
    passed = 0.0
    monkeypatch.setattr("grape.envs.pool.time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed))
    with WorkerPool("toy", workers=1, lanes=2, timeout=3000) as pool:
        pool.start(0, RED, [7, 8], None)
        assert pool.wait()[0].failure is None
        pool.play(0, np.zeros((2, 4, 7), np.float32), [4, 2], "last-step")
        passed = 13000.0
        (reply,) = pool.wait()
        assert "no sign of life for 12000 s" in (reply.failure or "")


def test_settings_error_in_a_worker_keeps_its_words() -> None:
    with WorkerPool("toy", workers=1, lanes=1) as pool:
        pool.start(0, RED, [10**6], None)
        (reply,) = pool.wait()
        assert "has no initial state 1000000" in (reply.failure or "")


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        WorkerPool("toy", workers=0, lanes=1)
    with WorkerPool("toy", workers=1, lanes=2) as pool:
        with pytest.raises(RuntimeError, match="no answer is due"):
            pool.wait()
        with pytest.raises(ValueError, match="1 to 2 initial states"):
            pool.start(0, RED, [1, 2, 3], None)
        pool.start(0, RED, [1], None)
        with pytest.raises(RuntimeError, match="no worker is idle"):
            pool.start(1, RED, [1], None)
        with pytest.raises(RuntimeError, match="not answered yet"):
            pool.step(0, None, [True])
        pool.wait()
        pool.finish(0)
        pool.finish(0)
        with pytest.raises(KeyError, match="not running"):
            pool.step(0, None, [True])


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_workers_end_with_a_parent_killed_by_surprise() -> None:
    code = (
        "from grape.envs.pool import WorkerPool; from grape.envs.registry import get_suite; task = get_suite('toy')"
        ".tasks[0]; pool = WorkerPool('toy', 2, 1); pool.start(0, task, [1], None); pool.start(1, task, [2], None); "
        "done = 0\nwhile done < 2: done += len(pool.wait())\n"
        "pool.step(0, __import__('numpy').zeros((1, 7), 'float32'), [True]); print('ready', flush=True); "
        "__import__('time').sleep(3000)"
    )
    environment = os.environ | {"GRAPE_FAULT": "hang:reach-red:1:1"}  # one worker hangs, the other waits for work
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() == "ready"
        workers = children_of(parent.pid)
        assert len(workers) == 2
        assert all(map(is_alive, workers))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 600
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_closing_the_pool_ends_its_workers() -> None:
    before = set(children_of(os.getpid()))
    with WorkerPool("toy", workers=2, lanes=1):
        assert len(set(children_of(os.getpid())) - before) == 2
    assert set(children_of(os.getpid())) == before
