"""The verb ``evaluate``: a policy on fixed initial states that nothing was learned from."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from grape.core.errors import SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import content_hash
from grape.core.provenance import read_provenance
from grape.core.runs import identity_of, open_run
from grape.core.selections import MOST_NUMBERS, format_numbers, parse_numbers
from grape.evaluation.results import RESULTS_NAME, EvaluationResults, write_results

if TYPE_CHECKING:
    from grape.collect import CollectSettings

__all__ = ["EVALUATION_STATES_START", "EvaluateSettings", "run_evaluate"]

EVALUATION_STATES_START = 100_000
"""Initial states from this index on are for evaluation; collection and demonstrations count from 0."""

_DEFAULT_HOME = Path("runs") / "evaluate"


@dataclass(frozen=True)
class EvaluateSettings:
    """Measure a policy on fixed initial states: success and decisions a task and overall, with 95 % intervals.

    The same settings always give the same initial states, so two evaluations can be compared pair by pair with
    'grape compare'. How many episodes a question needs: see docs/statistics.md.

    Attributes:
        policy: "expert" for the suite's scripted experts, a checkpoint folder, or a name on the Hugging Face hub, e.g.
            openvla/openvla-7b. On resumption its content must be the same; where it lies may differ.
        out: Folder to write: results.json and the recorded episodes; running again with the same settings resumes.
            Without it the folder is runs/evaluate/NAME-HASH: the policy's name, and eight digits that stand for the
            settings and the policy's content, so the same command finds the same folder again.
        suite: Suite of tasks: metaworld, toy, or one registered by a plugin.
        tasks: Tasks by index, range or name, e.g. "0,2", "0-3" or "drawer-open"; empty means all.
        initial_states: Initial states of every task by index, e.g. "10,11-20"; empty means --episodes states from
            --first-state on. Suites with few initial states (LIBERO has 50) need it, e.g. "0-49".
        episodes: Initial states a task, where --initial-states is empty.
        first_state: Index of the first of them. States from 100000 on are reserved for evaluation.
        samples: Rollouts from each initial state; more than 1 needs a temperature above 0.
        temperature: Sampling temperature of the policy; 0 decodes greedily, which is the protocol of published
            results.
        operators: Style of the scripted expert, as for 'grape collect'; ignored for a policy.
        seed: Seed of sampling and of the expert's noise; initial states do not depend on it.
        lanes: Episodes that run in lock-step with one batched decision.
        workers: Simulator processes; changes the speed only. 0 means one a core.
        timeout: Seconds of silence after which a worker counts as hung and is replaced; above 0, at most 1000000.
        display: Also record the larger picture for people, where the suite offers one.
        unnorm_key: Normalisation statistics to use, for checkpoints that hold several; empty picks the only one.
        center_crop: Crop 90 % of the picture's area from the middle before the policy sees it, as policies trained with
            random crops need (OpenVLA's LIBERO fine-tunes do): yes, no, or auto for what the checkpoint says (nothing
            means no).
        device: Where the policy computes: auto takes a GPU if there is one, else cpu; or cuda, cuda:1.
        dtype: What weights are held and computed in: auto is float32 on a CPU, elsewhere as stored. Adapters are
            float32 always.
        attention: Attention of the language model: sdpa, flash-attention-2 (needs flash-attn and a GPU) or eager.
        load_in_4bit: Hold the language model in 4 bits; needs bitsandbytes and a GPU.
        dry_run: Print the plan and touch nothing.
    """

    policy: str = field(metadata={"identity": False})  # its hash is what counts
    out: Path | None = field(default=None, metadata={"identity": False})
    suite: str = "metaworld"
    tasks: str = ""
    initial_states: str = ""
    episodes: int = 50
    first_state: int = EVALUATION_STATES_START
    samples: int = 1
    temperature: float = 0.0
    operators: str = "clean"
    seed: int = 0
    lanes: int = 16
    workers: int = field(default=0, metadata={"identity": False})
    timeout: float = field(default=120.0, metadata={"identity": False})
    display: bool = False
    unnorm_key: str = ""
    # What these come to (crop, device and type) is part of the run's inputs.
    center_crop: Literal["auto", "yes", "no"] = field(default="auto", metadata={"identity": False})
    device: str = field(default="auto", metadata={"identity": False})
    dtype: Literal["auto", "float32", "bfloat16"] = field(default="auto", metadata={"identity": False})
    attention: Literal["sdpa", "flash-attention-2", "eager"] = field(default="sdpa", metadata={"identity": False})
    load_in_4bit: bool = field(default=False, metadata={"identity": False})
    dry_run: bool = field(default=False, metadata={"identity": False})


def run_evaluate(settings: EvaluateSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Roll the policy out into ``out/rollouts`` and write ``out/results.json``.

    The policy is opened and checked before ``out`` is claimed, also where the work is done already: a policy that was
    trained again in the same place must not get its predecessor's figures.

    Returns:
        Summary: ``success_rate``, ``interval``, ``episodes``, ``successes``, ``mean_steps``, ``tasks`` (the same
        figures by task name), ``seen_states`` (evaluated states that the policy's training data came from, by task),
        and ``results``, the path of results.json. With ``dry_run``, the plan.

    Raises:
        SettingsError: A setting names nothing or makes no sense.
        CompatibilityError: The policy does not fit the suite, or ``out`` belongs to another run or another policy.
        SimulatorError: Episodes failed twice; what was finished is kept.
    """
    # Collection reaches simulators and policies: only this verb pays for importing them, not those who read results.
    from grape.collect import check_policy_name, inputs_of, open_policy, run_collect
    from grape.store import EpisodeStore

    states = _states(settings)
    if settings.samples > 1 and settings.temperature == 0 and settings.policy != "expert":
        raise SettingsError(
            f"--samples {settings.samples} at --temperature 0: greedy decoding repeats the same episode.",
            "Leave --samples at 1 and evaluate more initial states, or sample with --temperature 0.7.",
        )
    if settings.policy != "expert":
        check_policy_name(settings.policy)
    plan = run_collect(dataclasses.replace(_collect_settings(settings, states, Path()), dry_run=True))
    seen = _seen(settings, plan["tasks"], states)
    if seen:
        listed = "; ".join(f"{task} {text}" for task, text in seen.items())
        reporter.warn(
            f"{settings.policy} was trained on data from initial states of this evaluation: {listed}. Success there "
            "measures memory as well; for a fair figure leave out --initial-states and --first-state."
        )
    if settings.dry_run:
        facts = {"initial_states": format_numbers(states), "seen_states": seen}
        return {**plan, **facts, "out": str(settings.out or _DEFAULT_HOME)}
    policy = open_policy(_collect_settings(settings, states, Path()))
    inputs = inputs_of(policy)
    out = settings.out or _default_out(settings, inputs)
    collect = _collect_settings(settings, states, out / "rollouts")
    run = open_run(out, "evaluate", settings, inputs)
    path = str(out / RESULTS_NAME)
    if run.done is not None:
        return {**run.done, "policy": settings.policy, "results": path}
    run_collect(collect, reporter, policy=policy)
    metas = EpisodeStore.open(collect.out / "store").metas()
    results = EvaluationResults.from_episodes(
        metas,
        policy=settings.policy,
        temperature=0.0 if settings.policy == "expert" else settings.temperature,
        seed=settings.seed,
    )
    write_results(out, results)
    facts = results.to_json()
    summary = {
        name: facts[name]
        for name in ("suite", "policy", "success_rate", "interval", "episodes", "successes", "mean_steps", "tasks")
    }
    summary["seen_states"] = seen
    summary["computation"] = inputs["computation"]
    run.finish(summary)
    return {**summary, "results": path}


def _states(settings: EvaluateSettings) -> tuple[int, ...]:
    """Initial states of every task, sorted."""
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


def _default_out(settings: EvaluateSettings, inputs: Mapping[str, str]) -> Path:
    """Folder of an evaluation that was given none: a function of what is measured."""
    name = "expert"
    if settings.policy != "expert":
        folder = Path(settings.policy).resolve()
        name = "-".join(part for part in (folder.parent.name, folder.name) if part)
    digits = content_hash({"settings": identity_of(settings), **inputs})[:8]
    return _DEFAULT_HOME / f"{name}-{digits}"


def _collect_settings(settings: EvaluateSettings, states: tuple[int, ...], out: Path) -> "CollectSettings":
    from grape.collect import CollectSettings

    return CollectSettings(
        out=out,
        suite=settings.suite,
        tasks=settings.tasks,
        policy=settings.policy,
        initial_states=format_numbers(states),
        samples=settings.samples,
        temperature=settings.temperature,
        operators=settings.operators,
        seed=settings.seed,
        lanes=settings.lanes,
        workers=settings.workers,
        timeout=settings.timeout,
        display=settings.display,
        unnorm_key=settings.unnorm_key,
        center_crop=settings.center_crop,
        device=settings.device,
        dtype=settings.dtype,
        attention=settings.attention,
        load_in_4bit=settings.load_in_4bit,
    )


def _seen(settings: EvaluateSettings, tasks: list[str], states: tuple[int, ...]) -> dict[str, str]:
    """Evaluated states that the policy learned from, by task."""
    if settings.policy == "expert":
        return {}
    collected = read_provenance(Path(settings.policy)).get(settings.suite, {})
    seen = {task: tuple(state for state in states if state in collected.get(task, ())) for task in tasks}
    return {task: format_numbers(found) for task, found in seen.items() if found}
