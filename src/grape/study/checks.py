"""Everything about a study that can be found wrong before its first rollout; which cells to work on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from grape.core.errors import SettingsError, require_known
from grape.core.selections import parse_numbers
from grape.core.settings import check_ranges
from grape.core.tasks import Task
from grape.envs.base import SuiteBase
from grape.loop.checks import check_settings
from grape.loop.settings import LoopSettings
from grape.study.arms import Arm
from grape.study.settings import DEFAULT_BASELINES, StudySettings

__all__ = ["baselines_of", "check_study", "chosen_cells", "loop_settings"]

_AS_IN_LOOP = (
    "suite", "tasks", "env_python", "policy", "iterations", "states_per_iteration", "first_state", "validation_states",
    "first_validation_state", "test_states", "first_test_state", "demonstrations", "sft", "collect",
)  # fmt: skip


def loop_settings(settings: StudySettings, arm: Arm | None, out: Path, seed: int) -> LoopSettings:
    """The loop whose stages an arm runs; without an arm, that of what all arms share."""
    return LoopSettings(
        out=out,
        **{name: getattr(settings, name) for name in _AS_IN_LOOP},
        evaluation_samples=settings.test_samples,
        evaluation_temperature=settings.test_temperature,
        gate=False,
        seed=seed,
        **({} if arm is None else {name: getattr(arm, name) for name in ("score", "pair", "train", "replay")}),
    )


def baselines_of(settings: StudySettings) -> tuple[str, ...]:
    """The arms that others are compared with."""
    return settings.baselines or tuple(name for name in DEFAULT_BASELINES if name in settings.arms)


def check_study(settings: StudySettings, arms: Mapping[str, Arm], suite: SuiteBase, tasks: Sequence[Task]) -> None:
    """Refuse what any cell would refuse, before anything is written.

    Raises:
        SettingsError: A value is out of range or decided by the study, seeds repeat, a baseline is no arm, or two
            stages would use the same initial states.
    """
    check_ranges(settings)
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds) or min(settings.seeds) < 0:
        raise SettingsError("--seeds must be different numbers from 0 on.", "Write e.g. seeds: [0, 1, 2].")
    for name in settings.baselines:
        if name not in arms:
            raise SettingsError(f"Baseline '{name}' is not among the arms.", f"The arms are {', '.join(arms)}.")
    default = StudySettings.train
    for name in ("epochs", "max_updates"):
        if getattr(settings.train, name) != getattr(default, name):
            raise SettingsError(
                f"--train.{name.replace('_', '-')} is decided by the study: arms take equally many optimizer steps.",
                "Give --updates.",
            )
    if settings.diagnose and settings.merge:
        raise SettingsError(
            "--merge makes the table from files, --diagnose needs the work/ folder of a study.",
            "Diagnose where the cells were made; --merge takes their diagnoses over.",
        )
    if settings.policy and settings.shared_start:
        raise SettingsError("--shared-start is for a policy that the study makes.", "Leave it out beside --policy.")
    for arm in arms.values():
        loop = loop_settings(settings, arm, settings.out, 0)
        if loop.train.result == "best" or loop.train.holdout:
            raise SettingsError(
                f"Arm {arm.name} would choose among its states or keep pairs out of training.",
                "Leave --train.result and --train.holdout out: arms learn from all rollouts for equally many steps.",
            )
        try:
            check_settings(loop, suite, tasks)
        except SettingsError as error:
            message = error.message.replace("--evaluation-", "--test-").replace(
                "decided by the loop", "decided by the study"
            )
            raise SettingsError(f"Arm {arm.name}: {message}", error.hint.replace("--evaluation-", "--test-")) from error
    chosen_cells(settings, arms)


def chosen_cells(settings: StudySettings, arms: Mapping[str, Arm]) -> list[tuple[int, str]]:
    """Seed and arm of the cells to work on, all arms of a seed together.

    Raises:
        SettingsError: ``--cells`` is not understood, or names an arm or seed that the study does not have.
    """
    every = [(seed, name) for seed in settings.seeds for name in arms]
    if not settings.cells.strip():
        return every
    cells: set[tuple[int, str]] = set()
    for item in settings.cells.replace(",", " ").split():
        name, _, numbers = item.partition(":")
        if name:
            require_known("arm of this study", name, tuple(arms))
        seeds = parse_numbers(numbers, "seeds of --cells") if numbers else settings.seeds
        for seed in seeds:
            if seed not in settings.seeds:
                raise SettingsError(
                    f"--cells asks for seed {seed}, which the study does not have.",
                    f"Its seeds are {', '.join(map(str, settings.seeds))}.",
                )
        cells |= {(seed, arm) for seed in seeds for arm in ([name] if name else arms)}
    return [cell for cell in every if cell in cells]
