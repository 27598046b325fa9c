"""What a study will cost at most, from its settings alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from grape.collect import plan_collect
from grape.core.tasks import Task
from grape.loop.stages import Stages
from grape.study.arms import Arm
from grape.study.checks import loop_settings
from grape.study.settings import StudySettings

__all__ = ["format_plan", "plan_study"]


def plan_study(
    settings: StudySettings, arms: Mapping[str, Arm], tasks: Sequence[Task], chosen: Sequence[tuple[int, str]]
) -> Mapping[str, Any]:
    """Episodes and updates of the chosen cells, nothing of which needs to be there.

    Returns:
        ``rows`` (one mapping a kind of work: ``work``, ``times``, ``episodes``, ``updates``), totals of ``episodes``
        and ``updates`` at most, ``cells``, and ``cpu_hours`` where a rate was given.
    """
    stages = Stages(loop_settings(settings, None, settings.out, 0))
    measured = settings.test_states if settings.measured_on == "test" else settings.validation_states
    measured *= len(tasks) * settings.test_samples
    seeds = len({seed for seed, _ in chosen})
    training = [name for _, name in chosen if arms[name].trains]
    learning_seeds = len({seed for seed, name in chosen if arms[name].trains})
    collected = 0
    if training:
        plan = plan_collect(replace(settings.collect, **_anyone(settings)))
        collected = int(plan["episodes"] + plan.get("mixed_episodes_at_most", 0))
    rows: list[dict[str, Any]] = []
    if settings.diagnose:
        episodes = settings.validation_states * len(tasks) * settings.diagnosis_samples
        rows.append({"work": "fresh rollouts", "times": seeds, "episodes": episodes, "updates": 0})
        return _totals(settings, chosen, rows)
    if not settings.policy:
        plan = plan_collect(replace(stages.demonstrations(), dry_run=True))
        starts = 1 if settings.shared_start else seeds
        sft = settings.sft
        updates = sft.max_updates or sft.epochs * -(-int(plan["decisions_at_most"]) // sft.batch_size)
        rows.append({"work": "starting policies", "times": starts, "episodes": plan["episodes"], "updates": updates})
    rows.append({"work": "first rollouts", "times": learning_seeds, "episodes": collected, "updates": 0})
    rounds = len(training) * settings.iterations
    later = len(training) * (settings.iterations - 1)
    rows.append({"work": "later rollouts", "times": later, "episodes": collected, "updates": 0})
    rows.append({"work": "training", "times": rounds, "episodes": 0, "updates": settings.updates})
    measurements = rounds + len(chosen) - len(training)
    rows.append({"work": "measurements", "times": measurements, "episodes": measured, "updates": 0})
    return _totals(settings, chosen, [row for row in rows if row["times"]])


def _totals(
    settings: StudySettings, chosen: Sequence[tuple[int, str]], rows: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """A plan of these rows."""
    totals = {name: sum(row["times"] * row[name] for row in rows) for name in ("episodes", "updates")}
    plan: dict[str, Any] = {
        "dry_run": True,
        "cells": [f"{seed}-{name}" for seed, name in chosen],
        "rows": rows,
        **totals,
    }
    rates = (("episodes", settings.seconds_per_episode), ("updates", settings.seconds_per_update))
    if any(rate is not None for _, rate in rates):
        plan["cpu_hours"] = round(sum(totals[name] * (rate or 0.0) for name, rate in rates) / 3600, 2)
        plan["not_in_cpu_hours"] = [name for name, rate in rates if rate is None]
    return plan


def _anyone(settings: StudySettings) -> dict[str, Any]:
    """A collection that any policy would make: the plan needs no checkpoint, which may not exist yet."""
    last = settings.first_state + settings.states_per_iteration - 1
    return {
        "policy": "expert",
        "operators": "clean",
        "suite": settings.suite,
        "tasks": settings.tasks,
        "env_python": settings.env_python,
        "initial_states": f"{settings.first_state}-{last}",
        "dry_run": True,
    }


def format_plan(plan: Mapping[str, Any]) -> list[str]:
    """A plan as lines for people."""
    lines = [f"{len(plan['cells'])} cells: {', '.join(plan['cells'])}"]
    for row in plan["rows"]:
        what = [f"{row[name]:,} {name}" for name in ("episodes", "updates") if row[name]]
        lines.append(f"{row['work']:<18} {row['times']:>4} x {', '.join(what)}")
    lines.append(f"{'all':<18} {plan['episodes']:,} episodes, {plan['updates']:,} updates at most")
    if "cpu_hours" in plan:
        without = f" (without {' and '.join(plan['not_in_cpu_hours'])})" if plan["not_in_cpu_hours"] else ""
        lines.append(f"about {plan['cpu_hours']:g} CPU hours at the given rates{without}")
    else:
        lines.append("For CPU hours give --seconds-per-episode and --seconds-per-update.")
    return lines
