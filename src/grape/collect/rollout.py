"""Rollouts of groups of episodes: workers simulate while one batched policy decides for the waiting groups."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from grape.collect.episode import actions_to_execute, policy_facts
from grape.collect.plan import Group
from grape.collect.recorder import EpisodeRecorder
from grape.core.errors import SimulatorError
from grape.core.seeds import derive_seed
from grape.core.tasks import ActionSpace, Task
from grape.core.trajectories import Trajectory
from grape.envs.pool import GroupReply, WorkerPool
from grape.policies.base import ActionBatch, Policy
from grape.policies.deciding import decide

__all__ = ["Actor", "ExpertActor", "GroupSource", "PlannedGroups", "PolicyActor", "RolloutLog", "play_groups"]

# A crash or hang costs the group one more try; what fails twice is reported, not tried for ever.
TRIES = 2
# What was lost with its node is no fault of the simulator; but one that takes its node along must come to an end.
MOST_LOSSES = 5


@dataclass
class RolloutLog:
    """Time and counts of a rollout, for the run's log.

    Attributes:
        decisions: Decisions recorded.
        policy_seconds: Wall time spent deciding, in this process.
        waiting_seconds: Wall time spent waiting for simulators.
        failures: Sentences about groups that failed twice.
        retries: Sentences about groups that failed once.
        losses: Sentences about groups whose worker was taken away, e.g. with its node.
    """

    decisions: int = 0
    policy_seconds: float = 0.0
    waiting_seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    def drain(self) -> dict[str, Any]:
        """All of it as JSON values; afterwards the log is empty."""
        values = asdict(self)
        for name, value in asdict(RolloutLog()).items():
            setattr(self, name, value)
        return values

    def add(self, values: Mapping[str, Any]) -> None:
        """Add what :meth:`drain` gave in another process."""
        for name, value in values.items():
            setattr(self, name, getattr(self, name) + value)


class GroupSource(Protocol):
    """Hands out groups one by one."""

    def take(self, *, wait: bool) -> Group | None:
        """The next group, or None where there is none.

        Args:
            wait: Whether to wait where groups may still come; None then means that none will.
        """


class PlannedGroups:
    """Groups that are all known."""

    def __init__(self, groups: Iterable[Group]) -> None:
        self._groups = deque(groups)

    def take(self, *, wait: bool) -> Group | None:
        """The next group, or None where there is none."""
        return self._groups.popleft() if self._groups else None


class Actor(Protocol):
    """Source of decisions: a policy in this process or experts inside the workers."""

    def start(self, pool: WorkerPool, group: Group) -> None:
        """Send the group to an idle worker."""

    def decide(self, pool: WorkerPool, group: Group, recorders: list[EpisodeRecorder]) -> None:
        """Send the next decision of every lane that is not over."""

    def take_executed(self, reply: GroupReply, recorders: list[EpisodeRecorder]) -> None:
        """Take the executed actions of a reply, before the states that followed are recorded."""

    def facts(self, task: Task) -> Mapping[str, str | float]:
        """Fields of the episode's metadata that describe the actor."""


class PolicyActor:
    """Decides with a policy, all lanes that are not over in one batch.

    Which lanes share a batch follows from the group's own history, so it is the same in every run.

    Args:
        policy: The policy.
        temperature: Sampling temperature.
        log: Receives the time that deciding took.
        space: What the suite takes.
        execute: Actions of a chunk that are executed before the policy looks again; 0 for all.
    """

    def __init__(
        self, policy: Policy, temperature: float, log: RolloutLog, space: ActionSpace, execute: int = 0
    ) -> None:
        self._policy = policy
        self._spec = policy.spec
        self._space = space
        self._temperature = temperature
        self._log = log
        self._execute = execute or self._spec.chunk

    def start(self, pool: WorkerPool, group: Group) -> None:
        """Send the group to an idle worker."""
        pool.start(group.number, group.task, [episode.initial_state for episode in group.episodes], None)

    def decide(self, pool: WorkerPool, group: Group, recorders: list[EpisodeRecorder]) -> None:
        """Decide for every lane that is not over and send the first actions of its chunk.

        Raises:
            PolicyError: The policy raised an exception, its decisions are not what the contract says, or an action is
                not finite.
        """
        active = [not recorder.over for recorder in recorders]
        lanes = np.flatnonzero(active)
        start_time = time.perf_counter()
        first = recorders[lanes[0]]
        batch = decide(
            self._policy,
            self._spec,
            [recorders[lane].observation for lane in lanes],
            temperature=self._temperature,
            seeds=[derive_seed(recorders[lane].planned.seed, "step", recorders[lane].steps) for lane in lanes],
            where=f"decision {first.decisions} of {first.planned.episode_id}",
        )
        self._log.policy_seconds += time.perf_counter() - start_time
        # No more actions than the task has control steps left.
        actions = np.zeros((len(recorders), self._execute, batch.actions.shape[2]), np.float32)
        counts = [0] * len(recorders)
        for row, lane in enumerate(lanes):
            recorder = recorders[lane]
            counts[lane] = count = min(self._execute, recorder.task.max_steps - recorder.steps)
            decided = batch.actions[row, :count].astype(np.float32)
            actions[lane, :count] = actions_to_execute(recorder, decided, self._spec, self._space)
            recorder.record_chunk(actions[lane, :count], batch.row(row))
        pool.play(group.number, actions, counts, recorders[0].until)

    def take_executed(self, reply: GroupReply, recorders: list[EpisodeRecorder]) -> None:
        """Do nothing: the decisions were made in this process."""

    def facts(self, task: Task) -> Mapping[str, str | float]:
        """Hashes, prompt and temperature."""
        return policy_facts(self._spec, self._policy.prompt(task.instruction), self._temperature)


class ExpertActor:
    """Lets scripted experts act; they run in the workers because they need privileged state.

    Args:
        execute: Control steps from one image to the next. Experts act at every control step all the same. With more
            than 1, an episode is recorded as decisions on so many actions, without tokens.
    """

    def __init__(self, execute: int = 1) -> None:
        self._execute = execute

    def start(self, pool: WorkerPool, group: Group) -> None:
        """Send the group and its operators to an idle worker."""
        pool.start(
            group.number,
            group.task,
            [episode.initial_state for episode in group.episodes],
            [(episode.operator, episode.seed) for episode in group.episodes],
        )

    def decide(self, pool: WorkerPool, group: Group, recorders: list[EpisodeRecorder]) -> None:
        """Let the lanes that are not over go on."""
        if self._execute == 1:
            pool.step(group.number, None, [not recorder.over for recorder in recorders])
            return
        counts = [
            0 if recorder.over else min(self._execute, recorder.task.max_steps - recorder.steps)
            for recorder in recorders
        ]
        pool.play(group.number, None, counts, recorders[0].until)

    def take_executed(self, reply: GroupReply, recorders: list[EpisodeRecorder]) -> None:
        """Record what the experts did and what they would have done without noise."""
        if reply.expert_actions is None:
            return
        executed, clean = reply.expert_actions
        dim = executed.shape[-1]
        for lane, recorder in enumerate(recorders):
            if reply.snapshots[lane] is None:
                continue
            if self._execute == 1:
                recorder.record_decision(
                    executed[lane], clean[lane], np.full(dim, -1, np.int32), np.full(dim, np.nan, np.float32)
                )
                continue
            # The last part of an episode may be shorter; the chunk length is the same in all.
            actions, labels = np.zeros((2, self._execute, dim), np.float32)
            actions[: executed.shape[1]], labels[: executed.shape[1]] = executed[lane], clean[lane]
            recorder.record_chunk(actions, ActionBatch(actions[None]), labels)

    def facts(self, task: Task) -> Mapping[str, str | float]:
        """No temperature and no prompt: an expert samples nothing."""
        return {"actor": "expert"}


def play_groups(
    source: GroupSource,
    pool: WorkerPool,
    actor: Actor,
    *,
    versions: Mapping[str, str],
    display: bool,
    log: RolloutLog,
    until: str = "success",
    finished: Callable[[Group, list[Trajectory]], None],
    abandoned: Callable[[Group], None] = lambda group: None,
) -> None:
    """Play every group to its end.

    Args:
        source: What to play.
        pool: Worker processes of the groups' suite.
        actor: Who decides.
        versions: Recorded with every episode.
        display: Whether to keep the larger images.
        log: Receives costs, retries and failures.
        until: When an episode ends, as for :class:`~grape.collect.recorder.EpisodeRecorder`.
        finished: Called with the trajectories of each group that came to its end, in order of completion.
        abandoned: Called with each group that failed twice.

    Raises:
        SimulatorError: A group failed twice before any group ever answered: the simulator does not work here, so
            the other groups would only fail one after the other.
    """
    waiting: deque[Group] = deque()
    playing: dict[int, tuple[Group, list[EpisodeRecorder]]] = {}
    tries: dict[int, int] = {}
    losses: dict[int, int] = {}
    has_answered = False

    def fill(*, wait: bool = False) -> None:
        # As long as nothing worked, another group is at hand to go before one that failed.
        while len(waiting) < (1 if has_answered else 2):
            group = source.take(wait=wait and not waiting)
            if group is None:
                break
            waiting.append(group)

    def failed(group: Group, reason: str, *, lost: bool = False) -> None:
        del playing[group.number]
        sentence = f"{group.task.name}, episodes {group.episodes[0].episode_id} and following: {reason}"
        if lost:
            losses[group.number] = losses.get(group.number, 0) + 1
            if losses[group.number] <= MOST_LOSSES:
                log.losses.append(sentence)
                waiting.insert(0, group)
                return
        tries[group.number] = tries.get(group.number, 0) + 1
        if tries[group.number] < TRIES:
            log.retries.append(sentence)
            fill()
            # As long as nothing worked, another group goes first: it tells a bad group from a bad simulator.
            waiting.insert(0 if has_answered else 1, group)
            return
        log.failures.append(sentence)
        if not has_answered:
            raise SimulatorError(
                f"The simulator gave no answer in any episode, so the collection stops. {sentence}",
                "Run 'grape doctor', then the same command again: what was finished before is kept.",
            )
        abandoned(group)

    while True:
        while pool.idle:
            fill(wait=not playing)
            if not waiting:
                break
            group = waiting.popleft()
            playing[group.number] = (
                group,
                [EpisodeRecorder(group.task, episode, display, until) for episode in group.episodes],
            )
            actor.start(pool, group)
        if not playing and pool.idle:
            break
        start_time = time.perf_counter()
        replies = pool.wait()
        log.waiting_seconds += time.perf_counter() - start_time
        for reply in replies:
            group, recorders = playing[reply.group_id]
            if reply.failure is not None:
                failed(group, reply.failure, lost=reply.lost)
                continue
            has_answered = True
            actor.take_executed(reply, recorders)
            try:
                for lane, recorder in enumerate(recorders):
                    for snapshot in reply.states(lane):
                        recorder.record_state(snapshot)
            except SimulatorError as error:
                pool.finish(group.number)
                failed(group, str(error))
                continue
            if all(recorder.over for recorder in recorders):
                del playing[group.number]
                pool.finish(group.number)
                facts = actor.facts(group.task)
                log.decisions += sum(recorder.decisions for recorder in recorders)
                finished(group, [recorder.trajectory(versions=versions, **facts) for recorder in recorders])
            else:
                actor.decide(pool, group, recorders)
