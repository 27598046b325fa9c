"""The verb ``collect``: from a suite and a policy (or an expert) to a store of episodes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from grape.collect.launching import Launcher, open_launcher
from grape.collect.opening import check_unopened, chunk_contract, executed_actions, inputs_of
from grape.collect.plan import Group, describe_plan, make_plan, next_round
from grape.collect.rollout import RolloutLog
from grape.collect.settings import CollectSettings
from grape.core.errors import SimulatorError
from grape.core.events import SILENT, Reporter, append_event
from grape.core.runs import open_run, recorded_inputs
from grape.core.trajectories import EpisodeMeta
from grape.envs.external_python import suite_of
from grape.policies.base import Policy, PolicySpec
from grape.store import EpisodeFile, EpisodeStore, lost_episodes, note_planned

__all__ = ["plan_collect", "run_collect", "summarize"]

_SAMPLER = "action bins, SplitMix64"
"""How policies draw samples from a seed; an input of sampled collections. Those of release 0.1 have none."""


def run_collect(
    settings: CollectSettings,
    reporter: Reporter = SILENT,
    *,
    policy: Policy | None = None,
    launcher: Launcher | None = None,
) -> Mapping[str, Any]:
    """Collect the episodes that the settings name into ``out/store``.

    Groups of episodes that are complete in the store are not played again, so a killed run resumes; the bytes do not
    depend on interruptions or on the number of workers.

    Args:
        settings: What to collect.
        reporter: Hears of the progress.
        policy: What :func:`~grape.collect.open_policy` gave for these settings; opened here where absent.
        launcher: What :func:`~grape.collect.open_launcher` gave for these settings; opened here where absent.

    Returns:
        Summary: episodes, successes, success rate, mean decisions, the same a task, and the store's path; with
        ``mixed_episodes``, under ``mixed`` how many ``episodes`` further rounds added from how many ``states``.

    Raises:
        SettingsError: A setting names nothing.
        CompatibilityError: The policy does not fit the suite, or ``out`` belongs to another run.
        SimulatorError: A group of episodes failed twice; all others are in the store. Or the simulator never worked
            at all; then nothing more was tried.
    """
    if settings.dry_run:
        return plan_collect(settings, check_unopened(settings))
    groups = make_plan(settings, suite_of(settings.suite, settings.env_python))
    if launcher is not None:
        return _collect(settings, groups, launcher, reporter)
    with open_launcher(settings, reporter, policy) as opened:
        return _collect(settings, groups, opened, reporter)


def _collect(
    settings: CollectSettings, groups: tuple[Group, ...], launcher: Launcher, reporter: Reporter
) -> Mapping[str, Any]:
    suite, spec = suite_of(settings.suite, settings.env_python), launcher.spec
    if spec is None:
        settings = replace(settings, temperature=0.0)
    settings = replace(settings, execute=executed_actions(settings, spec))
    inputs = inputs_of(spec, settings)
    recorded = recorded_inputs(settings.out, "collect")
    other_sampler = settings.temperature > 0 and recorded is not None and "sampler" not in recorded
    if settings.temperature > 0 and not other_sampler:
        inputs["sampler"] = _SAMPLER
    place = {"store": str(settings.out / "store"), "policy": settings.policy}
    run = open_run(settings.out, "collect", settings, inputs)
    if run.done is not None:
        gone = lost_episodes(settings.out / "store")
        if not gone:
            return {**run.done, **place}
        reporter.warn(f"{gone} of {run.done['episodes']} episodes are gone from {settings.out}. They are played again.")
    if other_sampler:
        reporter.warn(
            f"{settings.out} was begun by an earlier release, which drew other samples from equal seeds. The episodes "
            "that it recorded stay; those that are left are sampled as of now."
        )
    executed = settings.execute or (1 if spec is None else spec.chunk)
    for caution in (*suite.cautions(), *_about_long_chunks(groups, executed)):
        reporter.warn(caution)
    contract = {"action_space": asdict(suite.action_space), "versions": dict(suite.versions())}
    if spec is None and settings.execute > 1:
        contract["chunks"] = {"length": settings.execute, "support": "", "temperature": 0.0}
    contract |= chunk_contract(spec)
    store = EpisodeStore.create(settings.out / "store", suite.name, contract)
    log = RolloutLog()
    start_time = time.perf_counter()
    groups = _Collection(settings, launcher, store, log, reporter).play(groups)
    append_event(settings.out, "collected", seconds=round(time.perf_counter() - start_time, 2), **asdict(log))
    if log.failures:
        raise SimulatorError(
            f"{len(log.failures)} groups of episodes failed twice; all others are kept. First: {log.failures[0]}",
            "Run 'grape doctor', then the same command again: it plays only what is missing.",
        )
    episodes = [(group.task, episode) for group in groups for episode in group.episodes]
    planned = {episode.episode_id for _, episode in episodes}
    summary = summarize([meta for meta in store.metas() if meta.episode_id in planned])
    if settings.mixed_episodes:
        added = [(task, episode.initial_state) for task, episode in episodes if episode.sample >= settings.samples]
        summary["mixed"] = {"episodes": len(added), "states": len(set(added))}
    summary |= place | inputs
    run.finish(summary)
    return summary


def _about_long_chunks(groups: Sequence[Group], executed: int) -> tuple[str, ...]:
    """A sentence where a chunk outlasts a whole episode, so that the policy looks once and never again."""
    short = {group.task.name: group.task.max_steps for group in groups if group.task.max_steps < executed}
    if not short:
        return ()
    limits = ", ".join(f"{name} ends after {steps}" for name, steps in short.items())
    return (
        f"{executed} actions of each chunk are executed, more than an episode has control steps ({limits}): there the "
        "policy decides once, on the first image. Give a smaller --execute, or a larger --max-steps.",
    )


def plan_collect(settings: CollectSettings, contract: PolicySpec | None = None) -> Mapping[str, Any]:
    """What a collection would play, from its settings and the suite alone.

    Args:
        settings: What to collect.
        contract: The policy's, where it is known: its chunk says how many actions a decision executes by default.

    Raises:
        SettingsError: A setting names nothing.
    """
    groups = make_plan(settings, suite_of(settings.suite, settings.env_python))
    if contract is not None and not settings.execute:
        settings = replace(settings, execute=contract.chunk)
    return {"dry_run": True, **describe_plan(groups, settings), "out": str(settings.out)}


@dataclass(frozen=True)
class _Collection:
    """Everything that playing episodes needs."""

    settings: CollectSettings
    launcher: Launcher
    store: EpisodeStore
    log: RolloutLog
    reporter: Reporter

    def play(self, first: tuple[Group, ...]) -> tuple[Group, ...]:
        """Play the missing episodes of the first round, then of each round that its outcomes ask for.

        Returns:
            The groups of all rounds; those known so far where groups failed.
        """
        settings, planned, latest, number = self.settings, first, first, 1
        whole = None if settings.mixed_episodes else sum(len(group.episodes) for group in planned)
        note_planned(settings.out, whole)
        while latest:
            missing = [
                group for group in latest if any(episode.episode_id not in self.store for episode in group.episodes)
            ]
            if missing:
                name = settings.out.name if number == 1 else f"{settings.out.name}, round {number}"
                self._play_groups(missing, name, sum(len(group.episodes) for group in latest))
            if self.log.failures or not settings.mixed_episodes:
                break
            solved = {meta.episode_id: meta.success is True for meta in self.store.metas()}
            latest, number = next_round(settings, planned, solved), number + 1
            planned += latest
        return planned

    def _play_groups(self, groups: Sequence[Group], name: str, total: int) -> None:
        """Play the groups and write each episode as soon as its group is over."""
        retried, lost = len(self.log.retries), len(self.log.losses)
        todo = sum(len(group.episodes) for group in groups)
        with self.reporter.progress(name, total, total - todo) as bar:
            successes = episodes = 0

            def commit(group: Group, file: EpisodeFile) -> None:
                nonlocal successes, episodes
                if file.meta.episode_id not in self.store:
                    self.store.write_file(file)
                successes += file.meta.success is True
                episodes += 1
                bar.advance(1, f"{group.task.name}  success so far {successes / episodes:.0%}")

            self.launcher.play(groups, self.settings, self.log, commit)
        for sentence in self.log.retries[retried:]:
            self.reporter.warn(f"A worker failed and was replaced; its episodes were played again. {sentence}")
        for sentence in self.log.losses[lost:]:
            self.reporter.warn(f"Lost on the way, and played again: {sentence}")


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
