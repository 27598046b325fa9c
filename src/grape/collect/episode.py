"""One episode in a straight line: one policy, one environment, no worker processes.

This is what the collector does for many episodes at once (:mod:`grape.collect.rollout`), and what it stores of each is
equal to what :func:`run_episode` gives, to the byte.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from grape.collect.plan import PlannedEpisode
from grape.collect.recorder import EpisodeRecorder
from grape.core.errors import PolicyError, SettingsError
from grape.core.seeds import derive_seed
from grape.core.tasks import ActionSpace, Task
from grape.core.trajectories import Trajectory
from grape.envs.base import Environment, SuiteBase
from grape.envs.registry import get_suite, missing_state_hint, select_tasks
from grape.policies.action_conventions import check_policy, to_env_action
from grape.policies.base import Policy, PolicySpec
from grape.policies.deciding import decide

__all__ = ["actions_to_execute", "policy_facts", "run_episode"]


def run_episode(
    policy: Policy,
    suite: SuiteBase | str,
    task: str | int,
    initial_state: int = 0,
    *,
    sample: int = 0,
    temperature: float = 0.0,
    seed: int = 0,
    execute: int = 0,
    max_steps: int = 0,
    until: str = "success",
    display: bool = True,
    environment: Environment | None = None,
) -> Trajectory:
    """Roll a policy out from one initial state.

    Args:
        policy: Who decides, e.g. from :func:`grape.load_policy`.
        suite: A suite, or its name.
        task: The task's name or index.
        initial_state: Index of the initial state.
        sample: Number of the rollout among those from the same initial state; another one draws other actions.
        temperature: Sampling temperature; 0 decodes greedily.
        seed: Seed of the collection.
        execute: Actions of a chunk that are executed before the policy looks again; 0 for all.
        max_steps: Control steps after which the episode ends; 0 for the task's own limit.
        until: ``"success"`` ends the episode at its first success, ``"last-step"`` only after its last control step.
        display: Whether to keep the larger images for people, where the suite has them.
        environment: One of the task, to play several episodes in; made and closed where it is not given.

    Raises:
        SettingsError: There is no such suite, task or initial state.
        CompatibilityError: The policy does not fit the suite.
        PolicyError: The policy raised an exception, or its decisions are not what its contract says.
        SimulatorError: The simulator cannot start, or gives numbers that are not finite.
    """
    suite = get_suite(suite) if isinstance(suite, str) else suite
    chosen = _task(suite, task, initial_state)
    chosen = replace(chosen, max_steps=max_steps or chosen.max_steps)
    spec, space = policy.spec, suite.action_space
    check_policy(spec, space, "The policy", cameras=suite.cameras, proprio_dim=suite.proprio_dim)
    world = suite.make_environment(chosen) if environment is None else environment
    try:
        episode = EpisodeRecorder(chosen, PlannedEpisode.of(chosen, initial_state, sample, seed), display, until)
        episode.record_state(world.reset(initial_state))
        while not episode.over:
            # Every decision draws from a seed of its own, so neither the batch nor the order of episodes matters.
            step_seed = derive_seed(episode.planned.seed, "step", episode.steps)
            where = f"decision {episode.decisions} of {episode.planned.episode_id}"
            decision = decide(
                policy, spec, [episode.observation], temperature=temperature, seeds=[step_seed], where=where
            )
            count = min(execute or spec.chunk, chosen.max_steps - episode.steps)
            actions = actions_to_execute(episode, decision.actions[0, :count].astype(np.float32), spec, space)
            episode.record_chunk(actions, decision.row(0))
            for action in actions:
                snapshot = world.step(action)
                episode.record_state(snapshot)
                if snapshot.success and until == "success":
                    break
        facts = policy_facts(spec, policy.prompt(chosen.instruction), temperature)
        return episode.trajectory(versions=suite.versions(), **facts)
    finally:
        if environment is None:
            world.close()


def actions_to_execute(
    episode: EpisodeRecorder, actions: npt.NDArray[np.float32], spec: PolicySpec, space: ActionSpace
) -> npt.NDArray[np.float32]:
    """A decision's actions ``(n, D)`` in the suite's convention.

    Raises:
        PolicyError: One is not finite.
    """
    if not np.isfinite(actions).all():
        raise PolicyError(
            f"The policy gave an action that is not finite in {episode.planned.episode_id}, "
            f"decision {episode.decisions}.",
            "Its weights are damaged or its training diverged; go back to an earlier checkpoint.",
        )
    return to_env_action(actions, spec, space)


def policy_facts(spec: PolicySpec, prompt: str, temperature: float) -> Mapping[str, str | float]:
    """Fields of an episode's metadata that describe the policy that acted."""
    return {
        "actor": "policy",
        "temperature": temperature,
        "policy_hash": spec.policy_hash,
        "preprocessing_hash": spec.preprocessing_hash,
        "prompt": prompt,
    }


def _task(suite: SuiteBase, task: str | int, initial_state: int) -> Task:
    """The task that a name or index means.

    Raises:
        SettingsError: It is none, or does not have the initial state.
    """
    tasks = select_tasks(suite, str(task))
    if len(tasks) != 1 or not str(task):
        raise SettingsError(f"{task!r} names {len(tasks)} tasks of suite '{suite.name}'.", "Name one of them.")
    if not 0 <= initial_state < suite.n_initial_states(tasks[0]):
        raise SettingsError(
            f"Initial state {initial_state} of {tasks[0].id} does not exist.", missing_state_hint(suite, tasks[0])
        )
    return tasks[0]
