"""What a loop will cost at most, from its settings alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from grape.collect import plan_collect
from grape.core.tasks import Task
from grape.loop.filtered_bc import LABEL
from grape.loop.settings import LoopSettings
from grape.loop.stages import Stages
from grape.preferences import PairSettings
from grape.training.process_group import plan_processes
from grape.training.settings import TrainSettings

__all__ = ["format_plan", "plan_loop"]

Row = dict[str, Any]

# Key in the plan, and its column for people. All are upper bounds: episodes end early, initial states give no pairs.
_COLUMNS = {
    "episodes": "episodes",
    "decisions_at_most": "control steps",
    "episodes_to_score": "scored",
    "pairs_at_most": "pairs",
    "updates_at_most": "updates",
    "frames_at_most": "frames",
}


def plan_loop(settings: LoopSettings, tasks: Sequence[Task]) -> Mapping[str, Any]:
    """The stages in order and their cost, without touching the disk.

    Returns:
        ``stages``, one mapping each with ``stage`` and what applies to it of ``episodes`` (simulated),
        ``decisions_at_most`` (control steps in the simulator), ``episodes_to_score``, ``pairs_at_most``,
        ``updates_at_most`` and ``frames_at_most`` (steps through the network with a gradient, over all epochs); the
        same keys at the top are the totals; ``processes`` where several processes train.
    """
    rows = _rows(settings, Stages(settings), tasks)
    totals = {key: sum(row.get(key, 0) for row in rows) for key in _COLUMNS}
    return {"dry_run": True, "stages": rows, **totals, **_processes(settings)}


def _processes(settings: LoopSettings) -> dict[str, Any]:
    """Where episodes are played and policies trained; nothing where that is one process."""
    stages = Stages(settings)
    training = plan_processes(stages.train(1, settings.out))
    if not training:
        return {}
    replicas = stages.collect(1, settings.out).replicas
    rollouts = "one copy of the policy, in the main process"
    if stages.uses_ray:
        rollouts = f"{replicas or 'a'} cop{'ies' if replicas > 1 else 'y'} of the policy, by Ray"
        rollouts += "" if replicas else " on each GPU of its nodes"
    others = "the main process; its workers score" + (", by Ray" if stages.score(1).launcher == "ray" else "")
    return {"processes": {"rollouts": rollouts, "other_stages": others, "training": training["processes"]}}


def format_plan(plan: Mapping[str, Any]) -> list[str]:
    """A plan as lines for people: one aligned line a stage, the totals, and what the numbers are."""
    table = [("", *_COLUMNS.values())]
    table += [(row["stage"], *(_number(row.get(key)) for key in _COLUMNS)) for row in plan["stages"]]
    table += [("all", *(_number(plan[key]) for key in _COLUMNS))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])]) for name, *numbers in table]
    explained = "Each is the most it can be; a frame is one decision that the network learns from once."
    return [*(line.rstrip() for line in lines), explained, *_process_lines(plan.get("processes"))]


def _process_lines(processes: Mapping[str, Any] | None) -> list[str]:
    if processes is None:
        return []
    training = processes["training"]
    machines = f"{training['machines']} machine{'s' if training['machines'] > 1 else ''}"
    return [
        f"Training: {training['count']} processes ({training['started_by']}), {training['on_each_machine']} on each of "
        f"{machines}, {training['device_of_each']} for each; parameters {training['parameters']}.",
        f"Rollouts: {processes['rollouts']}. Everything else: {processes['other_stages']}.",
    ]


def _rows(settings: LoopSettings, stages: Stages, tasks: Sequence[Task]) -> list[Row]:
    longest = max(task.max_steps for task in tasks)

    def evaluation(stage: str, states: range) -> Row:
        episodes = len(states) * settings.evaluation_samples
        decisions = episodes * sum(task.max_steps for task in tasks)
        return {"stage": stage, "episodes": episodes * len(tasks), "decisions_at_most": decisions}

    rows: list[Row] = []
    if not settings.policy:
        plan = plan_collect(replace(stages.demonstrations(), dry_run=True))
        rows.append(_collection("demonstrations", plan))
        rows.append(_sft(settings, plan["decisions_at_most"]))
    rows.append(evaluation("validation of the first policy", stages.validation_states))
    states = settings.states_per_iteration * len(tasks)
    pairs = _pairs(settings.pair, settings.collect.most_samples, states)
    for number in range(1, settings.iterations + 1):
        # Any policy has the same plan; "expert" needs no checkpoint, which may not exist yet.
        plan = plan_collect(replace(stages.collect(number, Path("expert")), operators="clean", dry_run=True))
        rows.append(_collection(f"iteration {number}: collect", plan))
        rows.append({"stage": f"iteration {number}: score", "episodes_to_score": _episodes(plan)})
        rounds = min(number, settings.replay + 1)
        if settings.train.unpaired:
            rows.append(_unpaired(f"iteration {number}: train", settings.train, rounds * _episodes(plan), longest))
        else:
            rows.append({"stage": f"iteration {number}: pair", "pairs_at_most": pairs})
            rows.append(_training(f"iteration {number}: train", settings.train, rounds * pairs, longest))
        rows.append(evaluation(f"iteration {number}: validation", stages.validation_states))
    rows.append(evaluation("test of the first policy", stages.test_states))
    rows.append(evaluation("test of the result", stages.test_states))
    if settings.compare_cloning and settings.train.method != "filtered-bc":
        train = stages.filtered_bc_train(Path(settings.policy or settings.out))
        rows.append({"stage": f"{LABEL}: pair", "pairs_at_most": pairs})
        rows.append(_training(f"{LABEL}: train", train, pairs, longest))
        rows.append(evaluation(f"{LABEL}: validation", stages.validation_states))
        rows.append(evaluation(f"{LABEL}: test", stages.test_states))
        if settings.iterations > 1:
            rows.append(evaluation("test of iteration 1's policy", stages.test_states))
    return rows


def _collection(stage: str, plan: Mapping[str, Any]) -> Row:
    return {"stage": stage, "episodes": _episodes(plan), "decisions_at_most": plan["control_steps_at_most"]}


def _episodes(plan: Mapping[str, Any]) -> int:
    """Episodes of a collection, those from states of mixed outcome included."""
    return int(plan["episodes"] + plan.get("mixed_episodes_at_most", 0))


def _sft(settings: LoopSettings, decisions: int) -> Row:
    """Every image of the demonstrations, every epoch."""
    sft = settings.sft
    updates = sft.max_updates or sft.epochs * math.ceil(decisions / sft.batch_size)
    frames = updates * sft.batch_size if sft.max_updates else sft.epochs * decisions
    return {"stage": "supervised fine-tuning", "updates_at_most": updates, "frames_at_most": frames}


def _pairs(settings: PairSettings, samples: int, states: int) -> int:
    """Pairs from ``states`` initial states with ``samples`` rollouts each at most."""
    each = {"best-worst": 1, "every-success": samples}.get(settings.mode, min(settings.m, samples // 2))
    if settings.max_pairs_per_state is not None:
        each = min(each, settings.max_pairs_per_state)
    return each * states if settings.max_pairs is None else min(each * states, settings.max_pairs)


def _training(stage: str, settings: TrainSettings, pairs: int, longest: int) -> Row:
    """Both sides of every pair, every epoch; filtered BC sees the chosen side alone."""
    # Methods that cut pairs into steps round the steps an update holds, by at most half a pair.
    per_update = settings.pairs_per_update - (0 if settings.method == "tpo" else 0.5)
    updates = settings.epochs * math.ceil(pairs / per_update)
    if settings.max_updates:
        updates = min(updates, settings.max_updates)
    sides = 1 if settings.method == "filtered-bc" else 2
    compared = min(pairs * settings.epochs, updates * settings.pairs_per_update)
    return {"stage": stage, "updates_at_most": updates, "frames_at_most": compared * sides * longest}


def _unpaired(stage: str, settings: TrainSettings, episodes: int, longest: int) -> Row:
    """Every episode, every epoch; an update takes as many as its pairs would hold."""
    per_update = 2 * settings.pairs_per_update
    updates = settings.epochs * math.ceil(episodes / per_update)
    if settings.max_updates:
        updates = min(updates, settings.max_updates)
    seen = min(episodes * settings.epochs, updates * per_update)
    return {"stage": stage, "updates_at_most": updates, "frames_at_most": seen * longest}


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
