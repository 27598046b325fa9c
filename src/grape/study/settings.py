"""Settings of ``grape study``: the study file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grape.collect.settings import CollectSettings
from grape.core.settings import Range, setting
from grape.evaluation import EVALUATION_STATES_START
from grape.loop.settings import DECIDED_BY_LOOP, UNSET
from grape.preferences import PairSettings, ScoreSettings
from grape.training.settings import SftSettings, TrainSettings

__all__ = ["DECIDED_BY_STUDY", "DEFAULT_BASELINES", "Merit", "StudySettings"]

_COMPARED, _STATES, _MERIT, _PART = "What is compared", "Initial states", "Figure of merit", "Parts of a study"

Merit = Literal["success", "steps", "collisions"]

DEFAULT_BASELINES = ("sft", "filtered-bc")
"""Arms that the others are compared with where the file names none; those that are among the arms."""

DECIDED_BY_STUDY: dict[str, tuple[str, ...]] = {
    **DECIDED_BY_LOOP,
    "train": (*DECIDED_BY_LOOP["train"], "epochs", "max_updates"),
}
"""Nested settings that the study fills in itself: paths, seeds, states and the number of updates."""


@dataclass(frozen=True)
class StudySettings:
    """Compare ways to use the same rollouts fairly: arms, seeds and iterations from the same starting policy.

    All arms of a seed start from one policy, learn in the first iteration from the same rollouts, get equally many
    rollouts and optimizer steps and are measured on the same initial states, which decided nothing. The figure of merit
    is part of the study's identity: a folder that was begun with one does not go on with another. Results of finished
    cells are small JSON files in cells/, from which alone the table can be made.

    Attributes:
        out: Folder to write; running again with the same settings resumes, and more arms, seeds or iterations continue.
        title: Headline of the report.
        suite: Suite of tasks.
        tasks: Tasks by index, range or name; empty means all.
        env_python: Another Python interpreter for the simulator processes, as for grape collect.
        merit: What decides. success: success rate. steps: control steps an episode, on episodes that both arms of a
            comparison solved (fewer is better). collisions: share of episodes with a collision (fewer is better). The
            last two say nothing alone: the table has the success rate beside them.
        baselines: Arms that all others are compared with; empty means those of sft and filtered-bc among the arms.
        confidence: Level of intervals; 1 minus this is the level of the adjusted tests.
        policy: Checkpoint folder to start from, the same for all seeds; empty means that demonstrations and supervised
            fine-tuning come first, once a seed.
        shared_start: Make the starting policy once, with the first seed of all, and start every seed from it.
        arms: Ways to use the rollouts, by name: sft (no training), anchor-only, filtered-bc, bc-top, tpo, tpo-no-self,
            tpo-no-ext, tpo-no-success, success-pairs, random-rejected, stage-wise, step-dpo, kto, rloo, or --own-arms.
        own_arms: Further arms by name, in the file: base (an arm to start from, else tpo) and what differs in score,
            pair and train, e.g. {gentle: {train: {beta: 0.02}}}; replay: how many earlier iterations it trains on, too.
        seeds: Seeds; each has demonstrations, policy, rollouts and training of its own.
        iterations: How many times each arm collects and trains.
        updates: Optimizer steps of every training, whatever the arm.
        states_per_iteration: Initial states a task from which each iteration collects.
        first_state: The first of them.
        validation_states: Initial states a task for choosing settings; a study of another --out measures on them with
            --measured-on validation.
        first_validation_state: The first of them.
        test_states: Initial states a task for the figure of merit.
        first_test_state: The first of them.
        measured_on: test, or validation for choosing settings without looking at the test states.
        test_samples: Rollouts from each of the states measured on; more than 1 needs a temperature above 0.
        test_temperature: Sampling temperature there; 0 decodes greedily.
        test_max_steps: Control steps of these episodes; 0 means each task's own limit.
        cells: Work on these cells only, as ARM:SEEDS: "tpo:0-2,sft" or ":0"; empty means all. Other machines may make
            the rest, to be merged.
        merge: Instead of running, take over the results of these folders (of other machines, or of committed files) and
            make the table.
        diagnose: Instead of making cells, find out from the work/ folder of finished ones what their training did: to
            fresh rollouts of the starting policy, to their own pairs, and with which part of the gradient.
        diagnosis_samples: Fresh rollouts from each validation state for that.
        jobs: Seeds that are worked on at a time, a process each; give --collect.workers 1 with it.
        report: Write study.html.
        seconds_per_episode: CPU seconds of an episode, for an estimate by --dry-run.
        seconds_per_update: CPU seconds of an optimizer step, for the same.
        demonstrations: Settings of the demonstrations (as for grape collect).
        sft: Settings of supervised fine-tuning (as for grape sft).
        collect: Settings of collection (as for grape collect).
        score: Settings of scoring (as for grape score); arms may differ.
        pair: Settings of pairing (as for grape pair); arms may differ.
        train: Settings of training (as for grape train); arms may differ.
        dry_run: List the cells and what they cost; touch nothing.
    """

    out: Path = setting(identity=False, common=True)
    title: str = setting("GRAPE study", identity=False)
    suite: str = setting("metaworld", group=_COMPARED, common=True)
    tasks: str = setting("", group=_COMPARED, common=True)
    env_python: Path | None = setting(None, group=_COMPARED, identity=False)
    merit: Merit = setting("success", group=_MERIT, common=True)
    baselines: tuple[str, ...] = setting((), group=_MERIT, common=True)
    confidence: float = setting(0.95, group=_MERIT, range=Range(0.5, 1, open_high=True))
    policy: str = setting("", group=_COMPARED, identity=False, common=True)  # its hash is what counts
    shared_start: bool = setting(False, group=_COMPARED)
    arms: tuple[str, ...] = setting(("sft", "filtered-bc", "tpo"), group=_COMPARED, identity=False, common=True)
    own_arms: Mapping[str, Any] = setting(factory=dict, group=_COMPARED, identity=False)
    seeds: tuple[int, ...] = setting((0, 1, 2), group=_COMPARED, identity=False, common=True)
    iterations: int = setting(1, group=_COMPARED, range=Range(1), identity=False, common=True)
    updates: int = setting(40, group=_COMPARED, range=Range(1), common=True)
    states_per_iteration: int = setting(48, group=_STATES, range=Range(1), common=True)
    first_state: int = setting(1000, group=_STATES, range=Range(0))
    validation_states: int = setting(25, group=_STATES, range=Range(1))
    first_validation_state: int = setting(EVALUATION_STATES_START + 50_000, group=_STATES, range=Range(0))
    test_states: int = setting(50, group=_STATES, range=Range(1), common=True)
    first_test_state: int = setting(EVALUATION_STATES_START, group=_STATES, range=Range(0))
    measured_on: Literal["test", "validation"] = setting("test", group=_MERIT)
    test_samples: int = setting(1, group=_MERIT, range=Range(1))
    test_temperature: float = setting(0.0, group=_MERIT, range=Range(0))
    test_max_steps: int = setting(0, group=_MERIT, range=Range(0), identity="unless default")
    cells: str = setting("", group=_PART, identity=False, common=True)
    merge: tuple[Path, ...] = setting((), group=_PART, identity=False, common=True)
    diagnose: bool = setting(False, group=_PART, identity=False, common=True)
    diagnosis_samples: int = setting(4, group=_PART, range=Range(1), identity=False)
    jobs: int = setting(1, group=_PART, range=Range(1), identity=False)
    report: bool = setting(True, group=_PART, identity=False)
    seconds_per_episode: float | None = setting(None, group=_PART, range=Range(0), identity=False)
    seconds_per_update: float | None = setting(None, group=_PART, range=Range(0), identity=False)
    demonstrations: CollectSettings = CollectSettings(out=UNSET)
    sft: SftSettings = SftSettings(data=(UNSET,), out=UNSET)
    collect: CollectSettings = CollectSettings(out=UNSET, samples=8)
    score: ScoreSettings = ScoreSettings(store=UNSET, out=UNSET)
    pair: PairSettings = PairSettings(scores=UNSET, out=UNSET)
    train: TrainSettings = TrainSettings(pairs=UNSET, policy=UNSET, out=UNSET)
    dry_run: bool = setting(False, identity=False, common=True)
