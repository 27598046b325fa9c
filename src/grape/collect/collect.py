"""The verb ``collect``: from a suite and a policy (or an expert) to a store of episodes."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from grape.collect.extending import check_extension, extend_record, recorded_extensions, stages_of
from grape.collect.launching import Launcher, open_launcher
from grape.collect.opening import check_unopened, chunk_contract, executed_actions, inputs_of
from grape.collect.plan import Group, added_groups, describe_plan, make_plan, next_round
from grape.collect.rollout import RolloutLog
from grape.collect.settings import CollectSettings
from grape.collect.sharding import groups_of_shard, parse_shard, shard_facts
from grape.core.errors import SimulatorError
from grape.core.events import SILENT, Reporter, append_event
from grape.core.runs import open_run, recorded_inputs
from grape.core.trajectories import EpisodeMeta
from grape.envs.base import SuiteBase
from grape.envs.external_python import suite_of
from grape.policies.base import Policy, PolicySpec
from grape.store import EpisodeFile, EpisodeStore, lost_episodes, note_planned

__all__ = ["plan_collect", "run_collect", "summarize", "summary_of"]

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
        ``mixed_episodes``, under ``mixed`` how many ``episodes`` further rounds added from how many ``states``; of a
        shard what it is part of, see :func:`grape.collect.sharding.shard_facts`; of an extended run, under
        ``extended``, the settings that grew as they were before.

    Raises:
        SettingsError: A setting names nothing.
        CompatibilityError: The policy does not fit the suite, or ``out`` belongs to another run.
        SimulatorError: A group of episodes failed twice; all others are in the store. Or the simulator never worked
            at all; then nothing more was tried.
    """
    if settings.dry_run:
        return plan_collect(settings, check_unopened(settings))
    suite = suite_of(settings.suite, settings.env_python)
    whole = make_plan(settings, suite)
    groups_of_shard(whole, parse_shard(settings.shard))  # refused before anything is opened
    extensions = check_extension(settings, suite) if settings.extend else recorded_extensions(settings)
    if launcher is not None:
        return _collect(settings, whole, extensions, launcher, reporter)
    with open_launcher(settings, reporter, policy, settings.out) as opened:
        summary = _collect(settings, whole, extensions, opened, reporter)
        opened.finished(settings.out)
        return summary


def _collect(
    settings: CollectSettings,
    whole: tuple[Group, ...],
    extensions: Sequence[Mapping[str, Any]],
    launcher: Launcher,
    reporter: Reporter,
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
    if settings.extend:
        extend_record(settings, inputs, extensions)
    if extensions:
        inputs["extended"] = list(extensions)
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
    for caution in (*suite.cautions(), *_about_long_chunks(whole, executed)):
        reporter.warn(caution)
    contract = {"action_space": asdict(suite.action_space), "versions": dict(suite.versions())}
    if spec is None and settings.execute > 1:
        contract["chunks"] = {"length": settings.execute, "support": "", "temperature": 0.0}
    contract |= chunk_contract(spec)
    store = EpisodeStore.create(settings.out / "store", suite.name, contract)
    log = RolloutLog()
    start_time = time.perf_counter()
    groups = _Collection(settings, launcher, store, log, reporter).play(whole, stages_of(settings, extensions), suite)
    append_event(settings.out, "collected", seconds=round(time.perf_counter() - start_time, 2), **asdict(log))
    if log.failures:
        raise SimulatorError(
            f"{len(log.failures)} groups of episodes failed twice; all others are kept. First: {log.failures[0]}",
            "Run 'grape doctor', then the same command again: it plays only what is missing.",
        )
    planned = {episode.episode_id for group in groups for episode in group.episodes}
    metas = [meta for meta in store.metas() if meta.episode_id in planned]
    summary = summary_of(settings, metas, inputs, shard_facts(whole, parse_shard(settings.shard)))
    run.finish({**summary, "store": "store"})  # as seen from the folder, which may be moved
    return summary


def summary_of(
    settings: CollectSettings, metas: Sequence[EpisodeMeta], inputs: Mapping[str, Any], shard: Mapping[str, Any]
) -> dict[str, Any]:
    """Summary of a whole collection, or of a shard.

    Args:
        settings: The collection's, resolved.
        metas: Facts of its episodes.
        inputs: Those of the run.
        shard: See :func:`grape.collect.sharding.shard_facts`.
    """
    summary = summarize(metas)
    if settings.mixed_episodes:
        added = [(meta.task, meta.initial_state) for meta in metas if meta.sample >= settings.samples]
        summary["mixed"] = {"episodes": len(added), "states": len(set(added))}
    recorded = json.loads(json.dumps(dict(inputs), sort_keys=True))  # a merge reads them so from the record
    return {**summary, "store": str(settings.out / "store"), "policy": settings.policy, **recorded, **shard}


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
    suite = suite_of(settings.suite, settings.env_python)
    whole = make_plan(settings, suite)
    shard = parse_shard(settings.shard)
    groups = groups_of_shard(whole, shard)
    facts: dict[str, Any] = shard_facts(whole, shard)
    if settings.extend:
        before = [make_plan(stage, suite) for stage in stages_of(settings, check_extension(settings, suite))[:-1]]
        kept = {episode.episode_id for plan in before for group in plan for episode in group.episodes}
        groups = added_groups(groups, [group for plan in before for group in plan], settings.lanes)
        facts = {"kept": len(kept)}
    if contract is not None and not settings.execute:
        settings = replace(settings, execute=contract.chunk)
    return {"dry_run": True, **describe_plan(groups, settings), **facts, "out": str(settings.out)}


@dataclass(frozen=True)
class _Collection:
    """Everything that playing episodes needs."""

    settings: CollectSettings
    launcher: Launcher
    store: EpisodeStore
    log: RolloutLog
    reporter: Reporter

    def play(self, whole: tuple[Group, ...], stages: Sequence[CollectSettings], suite: SuiteBase) -> tuple[Group, ...]:
        """Play the missing episodes of a run and of what was added to it later.

        Each stage is a first round and the rounds that its outcomes ask for.

        Args:
            whole: First round of today's settings; of all shards, where there are some.
            stages: Settings of the run from its beginning to today, see :func:`grape.collect.extending.stages_of`.
            suite: The suite.

        Returns:
            The groups of all rounds; those known so far where groups failed.
        """
        shard = parse_shard(self.settings.shard)
        own_groups = groups_of_shard(whole, shard)
        mixed = any(stage.mixed_episodes for stage in stages)
        episodes = sum(len(group.episodes) for group in own_groups)
        note_planned(self.settings.out, None if mixed else episodes, **shard_facts(whole, shard))
        planned: tuple[Group, ...] = ()
        for stage in stages:
            groups = own_groups if len(stages) == 1 else added_groups(make_plan(stage, suite), planned, stage.lanes)
            planned = self._play_rounds(stage, planned, groups, "added" if planned else "")
            if self.log.failures:
                break
        return planned

    def _play_rounds(
        self, stage: CollectSettings, planned: tuple[Group, ...], latest: tuple[Group, ...], what: str
    ) -> tuple[Group, ...]:
        """Play a stage's first round and those that its outcomes ask for; returns all groups planned by then."""
        number = 1
        planned += latest
        while latest or number == 1:
            missing = [
                group for group in latest if any(episode.episode_id not in self.store for episode in group.episodes)
            ]
            if missing:
                words = (self.settings.out.name, what, f"round {number}" if number > 1 else "")
                self._play_groups(missing, ", ".join(filter(None, words)), sum(len(group.episodes) for group in latest))
            if self.log.failures or not stage.mixed_episodes:
                break
            solved = {meta.episode_id: meta.success is True for meta in self.store.metas()}
            latest, number = next_round(stage, planned, solved), number + 1
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
