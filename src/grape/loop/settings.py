"""What ``grape loop`` and ``grape demo`` can be told."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from grape.collect.settings import CollectSettings, LauncherSettings
from grape.core.settings import Range, setting
from grape.evaluation import EVALUATION_STATES_START
from grape.preferences import PairSettings, ScoreSettings
from grape.training.settings import SftSettings, TrainSettings

__all__ = ["DECIDED_BY_LOOP", "LAUNCHER", "RECIPES", "LoopSettings", "out_of_seed"]

_TASKS, _STATES, _EVALUATION = "Tasks and iterations", "Initial states", "Gate and evaluation"

RECIPES = Path(__file__).with_name("recipes")
"""Folder of settings files that are known to work."""

UNSET = Path("decided-by-the-loop")

LAUNCHER = tuple(item.name for item in fields(LauncherSettings))
"""Settings of where episodes are played: the loop's own, for all of its stages."""

_ROLLOUTS = ("shard", "extend", *LAUNCHER)  # a stage is whole: the next one reads it

# What the loop fills in itself; setting one of these by hand would silently do nothing, so it is refused.
DECIDED_BY_LOOP: dict[str, tuple[str, ...]] = {
    "demonstrations": ("out", "suite", "tasks", "policy", "env_python", "seed", "dry_run", *_ROLLOUTS),
    "sft": ("data", "out", "seed", "gpus", "dry_run"),
    "collect": ("out", "suite", "tasks", "policy", "initial_states", "env_python", "seed", "dry_run", *_ROLLOUTS),
    "score": ("store", "out", "dry_run", "launcher", "ray_address"),
    "pair": ("scores", "out", "seed", "dry_run"),
    "train": ("pairs", "scores", "replay", "policy", "out", "seed", "gpus", "dry_run"),
}


@dataclass(frozen=True)
class LoopSettings(LauncherSettings):
    """Iterate collect, score, pair, train and evaluate until the policy is aligned; resumable at any moment.

    The settings of the verbs are nested, e.g. --train.beta 0.05 or --collect.samples 16. Every iteration collects
    from initial states that were not used before. The gate decides on validation states; the headline is measured on
    test states that neither training nor the gate ever saw.

    Attributes:
        out: Folder to write; running again with the same settings resumes, more --iterations continue it.
        title: Headline of the report.
        suite: Suite of tasks.
        tasks: Tasks by index, range or name; empty means all.
        env_python: Another Python interpreter for the simulator processes, as for grape collect.
        policy: Checkpoint folder to start from; empty means demonstrations and supervised fine-tuning come first.
        iterations: How many times to collect, score, pair, train and evaluate.
        states_per_iteration: Initial states a task from which each iteration collects.
        first_state: Initial states below this one are left to the demonstrations.
        validation_states: Initial states a task on which the gate compares; they lie apart from all others.
        first_validation_state: The first of them; suites with few initial states (LIBERO has 50) need another.
        test_states: Initial states a task on which the first policy and the result are compared at the end.
        first_test_state: The first of them.
        evaluation_samples: Rollouts from each validation and test state; more than 1, for suites with few initial
            states, needs a temperature above 0.
        evaluation_temperature: Sampling temperature of these evaluations; 0 decodes greedily.
        gate: Keep the old policy if the new one succeeds less often on the validation states, or is significantly worse
            on one of the tasks. The result of the loop is the policy with the highest success there, with or without
            a gate.
        gate_alpha: Significance level of the gate (one-sided, adjusted by Holm for the number of tasks).
        gate_margin: Also keep the old policy unless a loss of this much, e.g. 0.05 for 5 points, can be excluded at
            that level; this needs hundreds of validation episodes. May be written --gate.margin.
        replay: Train on what this many earlier iterations collected as well, each with the log-probabilities of the
            policy that collected it as its reference.
        compare_cloning: Also train filtered behavior cloning (filtered BC) on the rollouts of iteration 1 and measure
            it on the test states beside the policy of iteration 1: the same start, the same rollouts, two ways of using
            them. Changes nothing else; without effect where train.method is filtered-bc itself.
        report: Write report.html at the end.
        gpus: GPUs of this machine to use: as many processes train together, and episodes are played with a copy of the
            policy on each (--launcher auto). With --train.device cpu, --sft.device cpu as many processes without GPUs.
            Under torchrun, accelerate launch or srun leave it out: their processes train together.
        seed: Seed of the whole run; every stage derives its own from it.
        demonstrations: Settings of the demonstrations (as for grape collect).
        sft: Settings of supervised fine-tuning (as for grape sft).
        collect: Settings of collection (as for grape collect).
        score: Settings of scoring (as for grape score). It takes the launcher and the workers of the rollouts, unless
            --score.workers says another number.
        pair: Settings of pairing (as for grape pair).
        train: Settings of training (as for grape train).
        dry_run: List the stages and their cost; touch nothing.
    """

    out: Path = setting(identity=False, common=True)
    title: str = setting("GRAPE", identity=False)
    suite: str = setting("metaworld", group=_TASKS, common=True)
    tasks: str = setting("", group=_TASKS, common=True)
    env_python: Path | None = setting(None, group=_TASKS, identity=False)
    policy: str = setting("", group=_TASKS, common=True)
    iterations: int = setting(3, group=_TASKS, range=Range(1), identity=False, common=True)
    states_per_iteration: int = setting(48, group=_STATES, range=Range(1), common=True)
    first_state: int = setting(1000, group=_STATES, range=Range(0))
    validation_states: int = setting(25, group=_STATES, range=Range(1))
    first_validation_state: int = setting(EVALUATION_STATES_START + 50_000, group=_STATES, range=Range(0))
    test_states: int = setting(50, group=_STATES, range=Range(1))
    first_test_state: int = setting(EVALUATION_STATES_START, group=_STATES, range=Range(0))
    evaluation_samples: int = setting(1, group=_EVALUATION, range=Range(1), identity="unless default")
    evaluation_temperature: float = setting(0.0, group=_EVALUATION, range=Range(0), identity="unless default")
    gate: bool = setting(True, group=_EVALUATION)
    gate_alpha: float = setting(0.05, group=_EVALUATION, range=Range(0, 0.5, open_low=True, open_high=True))
    gate_margin: float | None = setting(
        None, group=_EVALUATION, range=Range(0, 1, open_low=True, open_high=True), identity="unless default"
    )
    replay: int = setting(0, group=_TASKS, range=Range(0), identity="unless default")
    compare_cloning: bool = setting(False, group=_EVALUATION, identity=False)
    report: bool = setting(True, group=_EVALUATION, identity=False)
    gpus: int = setting(1, group=_TASKS, range=Range(1), identity=False, common=True)
    seed: int = setting(0, group=_TASKS, common=True)
    demonstrations: CollectSettings = CollectSettings(out=UNSET)
    sft: SftSettings = SftSettings(data=(UNSET,), out=UNSET)
    collect: CollectSettings = CollectSettings(out=UNSET, samples=8)
    score: ScoreSettings = ScoreSettings(store=UNSET, out=UNSET)
    pair: PairSettings = PairSettings(scores=UNSET, out=UNSET)
    train: TrainSettings = TrainSettings(pairs=UNSET, policy=UNSET, out=UNSET)
    dry_run: bool = setting(False, identity=False, common=True)


def out_of_seed(settings: LoopSettings, default: Path) -> LoopSettings:
    """Give every seed but 0 a folder of its own, ``default`` with the seed at its end, unless ``out`` was chosen.

    So ``--seed 1`` after a first run is another run beside it, not a clash with it.
    """
    if settings.out != default or settings.seed == 0:
        return settings
    return replace(settings, out=default.with_name(f"{default.name}-{settings.seed}"))
