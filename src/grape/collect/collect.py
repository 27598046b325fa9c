"""The verb ``collect``: from a suite and a policy (or an expert) to a store of episodes."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from grape.collect.opening import inputs_of, open_policy
from grape.collect.plan import Group, describe_plan, make_plan
from grape.collect.rollout import ExpertActor, PolicyActor, RolloutLog, play_groups
from grape.collect.settings import CollectSettings
from grape.core.errors import SimulatorError
from grape.core.events import SILENT, Reporter, append_event
from grape.core.runs import open_run
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.envs.external_python import suite_of
from grape.envs.pool import WorkerPool
from grape.policies.base import Policy
from grape.store import EpisodeStore

__all__ = ["run_collect", "summarize"]


def run_collect(
    settings: CollectSettings, reporter: Reporter = SILENT, *, policy: Policy | None = None
) -> Mapping[str, Any]:
    """Collect the episodes that the settings name into ``out/store``.

    Groups of episodes that are complete in the store are not played again, so a killed run resumes; the bytes do not
    depend on interruptions or on the number of workers.

    Args:
        settings: What to collect.
        reporter: Hears of the progress.
        policy: What :func:`~grape.collect.open_policy` gave for these settings; opened here where absent.

    Returns:
        Summary: episodes, successes, success rate, mean decisions, the same a task, and the store's path.

    Raises:
        SettingsError: A setting names nothing.
        CompatibilityError: The policy does not fit the suite, or ``out`` belongs to another run.
        SimulatorError: A group of episodes failed twice; all others are in the store. Or the simulator never worked
            at all; then nothing more was tried.
    """
    suite = suite_of(settings.suite, settings.env_python)
    groups = make_plan(settings, suite)
    if settings.dry_run:
        return {"dry_run": True, **describe_plan(groups, settings.until), "out": str(settings.out)}
    if policy is None:
        policy = open_policy(settings, reporter)
    if policy is None:
        settings = replace(settings, temperature=0.0)
    inputs = inputs_of(policy, settings)
    place = {"store": str(settings.out / "store"), "policy": settings.policy}
    run = open_run(settings.out, "collect", settings, inputs)
    if run.done is not None:
        return {**run.done, **place}
    for caution in suite.cautions():
        reporter.warn(caution)
    contract = {"action_space": asdict(suite.action_space), "versions": dict(suite.versions())}
    store = EpisodeStore.create(settings.out / "store", suite.name, contract)
    missing = [group for group in groups if any(episode.episode_id not in store for episode in group.episodes)]
    log = RolloutLog()
    began = time.perf_counter()
    if missing:
        suite.check()
        actor = ExpertActor() if policy is None else PolicyActor(policy, settings.temperature, log, suite.action_space)
        workers = min(settings.workers or os.cpu_count() or 1, len(missing))
        total = _episodes(groups)
        with (
            reporter.progress(settings.out.name, total, total - _episodes(missing)) as bar,
            WorkerPool(suite.name, workers, settings.lanes, settings.timeout, settings.env_python) as pool,
        ):
            successes = episodes = 0

            def finished(group: Group, trajectories: list[Trajectory]) -> None:
                nonlocal successes, episodes
                for trajectory in trajectories:
                    if trajectory.meta.episode_id not in store:
                        store.write(trajectory)
                    successes += trajectory.meta.success is True
                    episodes += 1
                bar.advance(len(trajectories), f"{group.task.name}  success so far {successes / episodes:.0%}")

            play_groups(
                missing,
                pool,
                actor,
                versions=suite.versions(),
                display=settings.display,
                log=log,
                until=settings.until,
                finished=finished,
            )
        for sentence in log.retries:
            reporter.warn(f"A worker failed and was replaced; its episodes were played again. {sentence}")
    append_event(settings.out, "collected", seconds=round(time.perf_counter() - began, 2), **asdict(log))
    if log.failures:
        raise SimulatorError(
            f"{len(log.failures)} groups of episodes failed twice; all others are kept. First: {log.failures[0]}",
            "Run 'grape doctor', then the same command again: it plays only what is missing.",
        )
    planned = {episode.episode_id for group in groups for episode in group.episodes}
    summary = summarize([meta for meta in store.metas() if meta.episode_id in planned]) | place | inputs
    run.finish(summary)
    return summary


def _episodes(groups: Sequence[Group]) -> int:
    return sum(len(group.episodes) for group in groups)


def summarize(metas: Sequence[EpisodeMeta]) -> dict[str, Any]:
    """Counts, success rate and mean decisions, overall and a task."""

    def counts(selected: Sequence[EpisodeMeta]) -> dict[str, Any]:
        successes = sum(meta.success is True for meta in selected)
        return {
            "episodes": len(selected),
            "successes": successes,
            "success_rate": successes / len(selected) if selected else 0.0,
            "mean_steps": sum(meta.steps for meta in selected) / len(selected) if selected else 0.0,
        }

    tasks = sorted({(meta.task_index, meta.task) for meta in metas})
    return counts(metas) | {"tasks": {name: counts([m for m in metas if m.task == name]) for _, name in tasks}}
