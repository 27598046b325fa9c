"""Everything about a loop that can be found wrong before its first hour is spent.

The stages check their own settings when they begin, which for the last of them may be tomorrow; and a corrected command
is then another run. So the same checks are made here, on the settings that the stages will get.
"""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from grape.collect import check_unopened
from grape.collect.plan import make_plan
from grape.core.errors import SettingsError
from grape.core.runs import is_complete
from grape.core.settings import check_ranges
from grape.core.tasks import Task
from grape.envs.base import SuiteBase
from grape.loop.settings import DECIDED_BY_LOOP, LoopSettings
from grape.loop.stages import Stages
from grape.policies.opening import parse_hub_name
from grape.policies.registry import check_policy_place, check_weights_here
from grape.preferences import check_pair, check_score
from grape.preferences.specifications import check_success_counts, choose_specifications
from grape.training.settings import TrainerSettings, check_sft, check_train

__all__ = ["check_settings"]


def check_settings(settings: LoopSettings, suite: SuiteBase, tasks: Sequence[Task]) -> None:
    """Refuse what any stage of the loop would refuse, before anything is written.

    Raises:
        SettingsError: A nested setting is decided by the loop, a value is out of range, a name or path is unknown, or
            two stages would use the same initial states.
        DataError: A cost specification is not valid.
        CompatibilityError: A cost specification is for another suite or task.
    """
    _check_decided(settings)
    _check_numbers(settings)
    stages = Stages(settings)
    _check_states(stages, suite, tasks)
    if settings.policy:
        check_weights_here(settings.policy)
        check_policy_place(settings.policy)
        _check_trainable(settings)
    else:
        with _flags_of("demonstrations"):
            make_plan(stages.demonstrations(), suite)
        with _flags_of("sft"):
            check_sft(stages.sft())
            _check_new_policy(settings, suite)
            if settings.sft.policy is not None:
                check_policy_place(settings.sft.policy)
            if settings.sft.lora_rank and settings.sft.policy is None:
                raise SettingsError("--lora-rank needs --policy: a new policy has nothing to adapt.", "Leave it out.")
    policy = Path(settings.policy or settings.out)
    with _flags_of("collect"):
        new, chunk = not settings.policy and settings.sft.policy is None, max(1, settings.sft.chunk)
        if new and settings.collect.execute > chunk:
            raise SettingsError(
                f"--execute {settings.collect.execute}: the policy will decide on {chunk} actions at once.",
                "Give fewer, or a longer chunk for fine-tuning.",
            )
        for iteration in range(1, settings.iterations + 1):
            make_plan(stages.collect(iteration, policy), suite)
        if settings.collect.samples < 2:
            raise SettingsError(
                f"--samples is {settings.collect.samples}.", "A pair needs two rollouts of an initial state: 2 or more."
            )
        if settings.collect.temperature == 0:
            raise SettingsError(
                "--temperature is 0: all rollouts of an initial state would be the same.", "Sample, e.g. with 0.7."
            )
    with _flags_of("score"):
        check_score(stages.score(1))
        names = [task.name for task in tasks]
        priced = choose_specifications(suite.name, names, settings.score.costs)
        check_success_counts(settings.score.weights, [name for name in names if name not in priced])
    with _flags_of("pair"):
        check_pair(stages.pair(1))
        if not priced and settings.pair.stage_wise:
            raise SettingsError(
                f"--stage-wise: none of {', '.join(names)} has a cost specification, so they have no stages.",
                "Give --score.costs with one (see docs/costs.md), or leave --stage-wise out.",
            )
    with _flags_of("train"):
        check_train(stages.train(1, policy))
    if settings.replay and settings.train.reference == "recomputed":
        raise SettingsError(
            f"--replay {settings.replay} takes the recorded log-probabilities of earlier policies as references, "
            "--train.reference recomputed those of one policy.",
            "Leave one of them out.",
        )
    if not is_complete(settings.out):  # a finished loop is told, however it was begun
        _check_adapters(settings)


def _check_new_policy(settings: LoopSettings, suite: SuiteBase) -> None:
    """Refuse what the policy that fine-tuning will make cannot do in this suite."""
    sft = settings.sft
    missing = [camera for camera in sft.camera_names[1:] if camera not in suite.cameras]
    if missing:
        raise SettingsError(
            f"--cameras {sft.cameras}: the suite {suite.name} has no camera {missing[0]}.",
            f"It has {', '.join(('agentview', *suite.cameras))}.",
        )


def _check_trainable(settings: LoopSettings) -> None:
    """Refuse a policy whose rollouts could be collected but not trained on, before they are.

    Names on the hub are left to the first stage: this check downloads nothing.
    """
    if parse_hub_name(settings.policy) is not None:
        return
    with _flags_of("collect"):
        # At temperature 0, so that a policy without tokens is refused below: a loop always samples.
        contract = check_unopened(
            dataclasses.replace(Stages(settings).collect(1, Path(settings.policy)), temperature=0.0)
        )
    if contract is not None and not contract.support:
        raise SettingsError(
            f"--policy {settings.policy} has no action tokens, so no log-probabilities, which 'grape train' needs.",
            "'grape collect', 'grape score' and 'grape evaluate' take it.",
        )


def _check_adapters(settings: LoopSettings) -> None:
    """Refuse loops with adapters whose stages would not share one set of weights.

    Raises:
        SettingsError: A stage would merge or cannot go on with the adapter of the stage before it, or a network would
            be held in another precision where it trains than where it collects.
    """
    collect, train, sft = settings.collect, settings.train, settings.sft
    made = not settings.policy and bool(sft.lora_rank)
    trainers: dict[str, TrainerSettings] = {"train": train} if train.lora_rank else {}
    if made:
        names = ("lora_rank", "lora_targets", "lora_alpha")
        for name in names if train.lora_rank else names[:1]:
            one, other = getattr(sft, name), getattr(train, name)
            if one != other and not (name == "lora_alpha" and other == 0):
                flag = name.replace("_", "-")
                raise SettingsError(
                    f"--sft.{flag} is {one} and --train.{flag} is {other}, but training goes on with the adapter of "
                    "fine-tuning.",
                    f"Give both the same, or fine-tune with 'grape sft', merge with 'grape export merged', and give "
                    f"the result as --policy with --train.{flag} {other}.",
                )
        trainers["sft"] = sft
    for group, trainer in trainers.items():
        if trainer.load_in_4bit != collect.load_in_4bit:
            raise SettingsError(
                f"--{group}.load-in-4bit and --collect.load-in-4bit differ: what collects would be another network "
                "than what trains.",
                "Give both, or neither.",
            )
        if "auto" not in (trainer.dtype, collect.dtype) and trainer.dtype != collect.dtype:
            raise SettingsError(
                f"--{group}.dtype is {trainer.dtype} and --collect.dtype is {collect.dtype}: what collects would be "
                "another network than what trains.",
                "Give both the same.",
            )
    start = Path(settings.policy) if settings.policy else sft.policy
    if start is not None and start.is_dir() and (start / "adapter_config.json").is_file():
        from grape.training.lora import check_start

        group = "train" if settings.policy else "sft"
        with _flags_of(group):
            check_start(start, train if settings.policy else sft, train.device if settings.policy else sft.device)


def _check_decided(settings: LoopSettings) -> None:
    defaults: dict[str, Any] = {item.name: item.default for item in dataclasses.fields(LoopSettings)}
    for group, names in DECIDED_BY_LOOP.items():
        given, default = getattr(settings, group), defaults[group]
        for name in names:
            if hasattr(default, name) and getattr(given, name) != getattr(default, name):
                raise SettingsError(
                    f"--{group}.{name} is decided by the loop.", "Leave it out; see --out, --seed, --tasks, --policy."
                )


def _check_numbers(settings: LoopSettings) -> None:
    check_ranges(settings)
    if settings.evaluation_samples > 1 and settings.evaluation_temperature == 0:
        raise SettingsError(
            f"--evaluation-samples {settings.evaluation_samples} at --evaluation-temperature 0: greedy decoding "
            "repeats the same episode.",
            "Leave --evaluation-samples at 1, or sample, e.g. with --evaluation-temperature 0.7.",
        )


def _check_states(stages: Stages, suite: SuiteBase, tasks: Sequence[Task]) -> None:
    """Every state exists, and no state has two uses."""
    with _flags_of("demonstrations"):
        blocks = stages.blocks()
    for block in blocks:
        for task in tasks:
            available = suite.n_initial_states(task)
            if max(block.states) >= available:
                raise SettingsError(
                    f"Initial state {max(block.states)} of {task.id}, for {block.use}, does not exist: the task has "
                    f"{available}.",
                    f"See {block.flags}.",
                )
    for one, other in itertools.combinations(blocks, 2):
        shared = sorted(set(one.states) & set(other.states))
        if shared:
            listed = f"state {shared[0]}" if len(shared) == 1 else f"{len(shared)} states, the first is {shared[0]}"
            raise SettingsError(
                f"Initial states of {one.use} and of {other.use} overlap ({listed}), so results would measure memory.",
                f"Move them apart: {one.flags} against {other.flags}.",
            )


@contextlib.contextmanager
def _flags_of(group: str) -> Iterator[None]:
    """Name flags in a verb's message as the loop calls them: ``--lr`` becomes ``--train.lr``."""
    try:
        yield
    except SettingsError as error:
        message, hint = (re.sub(r"--(?=[a-z])", f"--{group}.", text) for text in (error.message, error.hint))
        raise SettingsError(message if f"--{group}." in message else f"--{group}: {message}", hint) from error
