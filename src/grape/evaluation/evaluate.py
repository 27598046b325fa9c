"""The verb ``evaluate``: a policy on fixed initial states held out from training."""

import glob
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grape.collect.settings import RolloutSettings
from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash
from grape.core.runs import identity_of, open_run
from grape.core.selections import MOST_NUMBERS, format_numbers, parse_numbers
from grape.evaluation.outcomes import measure
from grape.evaluation.protocols import Protocol, apply_protocol, fit_checkpoint, tasks_left_out
from grape.evaluation.results import RESULTS_NAME, EvaluationResults, write_results
from grape.evaluation.settings import EVALUATION_STATES_START, EvaluateSettings

if TYPE_CHECKING:
    from grape.collect import CollectSettings, Policy

__all__ = ["EVALUATION_STATES_START", "EvaluateSettings", "run_evaluate"]

_DEFAULT_HOME = Path("runs") / "evaluate"
_SEEDS_RESULTS = "results-seeds.json"
_EITHER_WAY = {"success": "success"}  # what is measured wherever episodes run on after their first success


@dataclass(frozen=True)
class _Part:
    """Rollouts of one kind.

    Attributes:
        folder: Where they are recorded, within the evaluation's folder.
        file: Where their results are.
        samples: Rollouts from each initial state.
        temperature: Sampling temperature.
    """

    folder: str
    file: str
    samples: int
    temperature: float


def run_evaluate(
    settings: EvaluateSettings, reporter: Reporter = SILENT, *, chooses: bool = False, opened: "Policy | None" = None
) -> Mapping[str, Any]:
    """Roll the policy out into ``out/rollouts`` and write ``out/results.json``.

    The policy is opened and checked before ``out`` is claimed, also where the work is done already: a policy that was
    trained again in the same place must not get its predecessor's figures.

    Args:
        settings: What to evaluate and how.
        reporter: Hears of progress and warnings.
        chooses: Whether this evaluation is there to choose between policies, as on a loop's validation states: that
            earlier choices were made on the same states is no reason for a warning then.
        opened: An open policy in place of the one that the settings name, which then is no more than a label; what it
            learned from is unknown, and no protocol says how it was opened.

    Returns:
        Summary: ``success_rate``, ``interval``, ``episodes``, ``successes``, ``mean_steps``, ``tasks`` (the same
        figures by task name), ``seen_states`` (evaluated states that the policy's training data came from or
        that it was chosen on, by task),
        and ``results``, the path of results.json. With ``dry_run``, the plan.

    Raises:
        SettingsError: A setting names nothing or makes no sense.
        CompatibilityError: The policy does not fit the suite, or ``out`` belongs to another run or another policy.
        SimulatorError: Episodes failed twice; what was finished is kept.
    """
    # Collection reaches simulators and policies: only this verb pays for importing them, not those who read results.
    from grape.collect import (
        check_opened,
        check_policy_place,
        check_unopened,
        executed_actions,
        inputs_of,
        open_launcher,
        opening_options,
        plan_collect,
        read_checkpoint_info,
        run_collect,
    )

    if opened is not None and settings.protocol:
        raise SettingsError(
            f"Protocol {settings.protocol} says how a checkpoint is opened, and this policy is open already.",
            "Give its checkpoint's folder, or leave protocol out.",
        )
    settings, protocol = apply_protocol(settings)
    states = _states(settings)
    if settings.samples > 1 and settings.temperature == 0 and settings.policy != "expert":
        raise SettingsError(
            f"--samples {settings.samples} at --temperature 0: greedy decoding repeats the same episode.",
            "Leave --samples at 1 and evaluate more initial states, or sample with --temperature 0.7.",
        )
    if settings.policy != "expert" and opened is None:
        check_policy_place(settings.policy)
    parts = _parts(settings, protocol)
    dry = {
        name: replace(_collect_settings(settings, states, Path(), part), dry_run=True) for name, part in parts.items()
    }
    plans = {name: plan_collect(plan) for name, plan in dry.items()}
    tasks = plans[""]["tasks"]
    left_out: tuple[str, ...] = ()
    if protocol is not None:
        protocol_tasks = plan_collect(replace(dry[""], tasks=",".join(protocol.tasks)))["tasks"]
        left_out = tasks_left_out(protocol, tasks, protocol_tasks)
    known = settings.policy != "expert" and opened is None
    seen_states = _seen_states(settings, tasks, states, reporter, chooses=chooses) if known else {}
    if protocol is not None and left_out:
        reporter.warn(
            f"Protocol {protocol.name} has {len(left_out)} more tasks ({', '.join(left_out[:3])}"
            f"{', …' if len(left_out) > 3 else ''}): its figure is that of all of them."
        )
    if settings.dry_run:
        contract = check_unopened(dry[""])
        plans = {name: plan_collect(plan, contract) for name, plan in dry.items()}
        return _plan(settings, protocol, states, plans, seen_states)
    if protocol is not None and settings.policy != "expert":
        checkpoint = read_checkpoint_info(settings.policy, opening_options(settings))
        settings = fit_checkpoint(protocol, settings, checkpoint.norm_keys, checkpoint.center_crop)
    played = _collect_settings(settings, states, Path(), parts[""])
    policy = None if opened is None else check_opened(played, opened)
    known_out = settings.out or _finished_out(settings, played, opened=opened is not None)
    with open_launcher(played, reporter, policy, known_out) as launcher:
        settings = replace(settings, execute=executed_actions(played, launcher.spec))
        inputs = inputs_of(launcher.spec, played)
        out = settings.out or _default_out(settings, inputs, opened=opened is not None)
        run = open_run(out, "evaluate", settings, inputs)
        path = str(out / RESULTS_NAME)
        if run.done is not None:
            launcher.finished(out)
            return {**run.done, "policy": settings.policy, "results": path}
        summary: dict[str, Any] = {}
        for name, part in parts.items():
            collected = _collect_settings(settings, states, out / part.folder, part)
            run_collect(collected, reporter, launcher=launcher)
            store, limits = out / part.folder / "store", plans[name]["limits"]
            results = _results_of(store, settings, protocol, part, limits, inputs["computation"])
            write_results(out, results, part.file)
            facts = _facts(results)
            summary |= {name: {**facts, "samples": part.samples, "file": part.file}} if name else facts
    summary["seen_states"] = seen_states
    summary["computation"] = inputs["computation"]
    run.finish(summary)
    launcher.finished(out)
    return {**summary, "results": path}


def _parts(settings: EvaluateSettings, protocol: Protocol | None) -> dict[str, _Part]:
    """What is played: under ``""`` the headline's rollouts, under ``"seeds"`` those that a protocol also samples."""
    parts = {"": _Part("rollouts", RESULTS_NAME, settings.samples, settings.temperature)}
    if protocol is not None and protocol.seeds and settings.policy != "expert":
        parts["seeds"] = _Part("rollouts-seeds", _SEEDS_RESULTS, protocol.seeds, 1.0)
    return parts


def _plan(
    settings: EvaluateSettings,
    protocol: Protocol | None,
    states: tuple[int, ...],
    plans: Mapping[str, Mapping[str, Any]],
    seen_states: Mapping[str, str],
) -> dict[str, Any]:
    """What a dry run prints."""
    plan = {**plans[""], "initial_states": format_numbers(states), "seen_states": dict(seen_states)}
    plan["out"] = str(settings.out or _DEFAULT_HOME)
    if protocol is None:
        return plan
    plan |= {
        "protocol": protocol.name,
        "seed": settings.seed,
        "samples": settings.samples,
        "temperature": settings.temperature,
        "unnorm_key": settings.unnorm_key or " or ".join(protocol.keys_of(settings.suite)),
        "measures": [f"{name}_{when}" for name in protocol.signals for when in ("end", "ever")],
        "rules": list(protocol.rules),
    }
    if "seeds" in plans:
        facts = {name: plans["seeds"][name] for name in ("episodes", "decisions_at_most")}
        plan["seeds"] = {"samples": protocol.seeds, "temperature": 1.0, **facts}
    return plan


def _results_of(
    store: Path,
    settings: EvaluateSettings,
    protocol: Protocol | None,
    part: _Part,
    limits: Mapping[str, int],
    computation: str,
) -> EvaluationResults:
    """Figures of recorded episodes."""
    from grape.store import EpisodeStore

    episodes = EpisodeStore.open(store)
    metas = episodes.metas()
    signals = protocol.signals if protocol else _EITHER_WAY if settings.until == "last-step" else {}
    measures = None
    if signals:
        measures = {meta.episode_id: measure(episodes.read(meta.episode_id, frames=False), signals) for meta in metas}
    assert settings.seed is not None
    return EvaluationResults.from_episodes(
        metas,
        policy=settings.policy,
        temperature=0.0 if settings.policy == "expert" else part.temperature,
        seed=settings.seed,
        protocol=settings.protocol,
        measures=measures,
        limits=limits,
        operators=settings.operators if settings.policy == "expert" else "",
        computation=computation,
        execute=settings.execute,
    )


def _facts(results: EvaluationResults) -> dict[str, Any]:
    """What the summary says of some results."""
    facts = results.to_json()
    names = ["suite", "policy", "success_rate", "interval", "episodes", "successes", "mean_steps", "tasks"]
    names += ["until"] if results.until != "success" or results.protocol else []
    names += [name for name in ("protocol", "measures") if facts[name]]
    return {name: facts[name] for name in names}


def _states(settings: EvaluateSettings) -> tuple[int, ...]:
    """Initial states of every task, sorted."""
    assert settings.episodes is not None
    assert settings.first_state is not None
    if settings.initial_states:
        return tuple(sorted(parse_numbers(settings.initial_states, "initial states")))
    for name in ("episodes", "samples"):
        if getattr(settings, name) < 1:
            raise SettingsError(f"--{name} is {getattr(settings, name)}.", "It must be at least 1.")
    if settings.episodes > MOST_NUMBERS:
        raise SettingsError(f"--episodes is {settings.episodes}.", f"It must be at most {MOST_NUMBERS}.")
    if settings.first_state < 0:
        raise SettingsError(f"--first-state is {settings.first_state}.", "It must not be negative.")
    return tuple(range(settings.first_state, settings.first_state + settings.episodes))


def _finished_out(settings: EvaluateSettings, played: "CollectSettings", *, opened: bool) -> Path | None:
    """Default output folder of this evaluation if Ray played it to its end before; else None."""
    from grape.collect import KnownPolicy, executed_actions, inputs_of

    if settings.policy == "expert" or opened or settings.launcher != "ray":
        return None
    policy = KnownPolicy(played)
    for folder in sorted(_DEFAULT_HOME.glob(f"{glob.escape(_default_name(settings))}-*")):
        spec = policy.recorded(folder)
        if spec is not None:
            resolved = replace(settings, execute=executed_actions(played, spec))
            if _default_out(resolved, inputs_of(spec, played)) == folder:
                return folder
    return None


def _default_out(settings: EvaluateSettings, inputs: Mapping[str, Any], *, opened: bool = False) -> Path:
    """Default output folder, derived from what is measured."""
    digits = content_hash({"settings": identity_of(settings), **inputs})[:8]
    return _DEFAULT_HOME / f"{_default_name(settings, opened=opened)}-{digits}"


def _default_name(settings: EvaluateSettings, *, opened: bool = False) -> str:
    """What the default output folder is called, before the digits."""
    if settings.policy.startswith(("ws:", "wss:")):
        return "server"  # its address may change, its hash is among the digits
    if settings.policy == "expert" or opened:
        return settings.policy
    folder = Path(settings.policy).resolve()
    return "-".join(part for part in (folder.parent.name, folder.name) if part)


def _collect_settings(settings: EvaluateSettings, states: tuple[int, ...], out: Path, part: _Part) -> "CollectSettings":
    from grape.collect import CollectSettings

    assert settings.seed is not None
    shared = {field.name: getattr(settings, field.name) for field in fields(RolloutSettings)}
    shared |= {"samples": part.samples, "dry_run": False}
    return CollectSettings(
        out=out,
        policy=settings.policy,
        initial_states=format_numbers(states),
        temperature=part.temperature,
        until="success" if settings.until == "auto" else settings.until,
        seed=settings.seed,
        **shared,
    )


def _seen_states(
    settings: EvaluateSettings, tasks: list[str], states: tuple[int, ...], reporter: Reporter, *, chooses: bool
) -> dict[str, str]:
    """Evaluated states that the policy learned from or was chosen on, by task; they are warned of."""
    from grape.collect import provenance_of, seen_states

    provenance = provenance_of(settings.policy)
    learned = seen_states(provenance.collected, settings.suite, tasks, states)
    chosen = {} if chooses else seen_states(provenance.validated, settings.suite, tasks, states)
    advice = "for a fair figure leave out --initial-states and --first-state"
    if learned:
        reporter.warn(
            f"{settings.policy} was trained on data from initial states of this evaluation: {_listed(learned)}. "
            f"Success there measures memory as well; {advice}."
        )
    if chosen:
        reporter.warn(
            f"{settings.policy} was chosen on initial states of this evaluation, as validation states: "
            f"{_listed(chosen)}. Success there is likely too high; {advice} or name others."
        )
    both = {task: {*learned.get(task, ()), *chosen.get(task, ())} for task in tasks}
    return {task: format_numbers(tuple(indices)) for task, indices in both.items() if indices}


def _listed(states: Mapping[str, tuple[int, ...]]) -> str:
    return "; ".join(f"{task} {format_numbers(indices)}" for task, indices in states.items())
