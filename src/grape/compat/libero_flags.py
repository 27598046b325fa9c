"""Flags of OpenVLA's LIBERO evaluation (``run_libero_eval.py``), and what they mean for ``grape evaluate``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from grape.compat.evaluate_call import EvaluateCall
from grape.compat.flag_parser import read_flags
from grape.core.errors import SettingsError, require_known
from grape.evaluation import PROTOCOLS

__all__ = ["LiberoFlags", "parse_flags", "translate"]

_PROTOCOL = PROTOCOLS["libero-openvla-v1"]
_STATES = 50


@dataclass(frozen=True)
class LiberoFlags:
    """Values of the flags, with the published defaults.

    Attributes:
        model_family: Kind of policy.
        pretrained_checkpoint: The checkpoint, a folder or a name on the hub.
        load_in_8bit: Hold the weights in 8 bits.
        load_in_4bit: Hold the weights in 4 bits.
        center_crop: Crop the middle of images, for policies trained with random crops.
        task_suite_name: The suite.
        num_steps_wait: Steps without action at the start.
        num_trials_per_task: Initial states a task.
        run_id_note: Added to the run's name.
        local_log_dir: Folder of logs.
        use_wandb: Report to Weights & Biases.
        wandb_project: Project there.
        wandb_entity: Its owner.
        seed: Seed of the run.
        given: Names of the flags that stood on the command line.
    """

    model_family: str = "openvla"
    pretrained_checkpoint: str = ""
    load_in_8bit: bool = False
    load_in_4bit: bool = False
    center_crop: bool = True
    task_suite_name: str = "libero_spatial"
    num_steps_wait: int = 10
    num_trials_per_task: int = _STATES
    run_id_note: str = ""
    local_log_dir: str = "experiments/logs"
    use_wandb: bool = False
    wandb_project: str = ""
    wandb_entity: str = ""
    seed: int = _PROTOCOL.seed
    given: frozenset[str] = frozenset()


def parse_flags(words: Sequence[str]) -> LiberoFlags:
    """Read the command line; booleans are words, as ``--center_crop True``.

    Raises:
        SettingsError: A flag is unknown, has no value, or one of the wrong kind.
    """
    return read_flags(
        LiberoFlags,
        words,
        prog="python -m grape.compat.run_libero_eval",
        description="Evaluates as 'grape evaluate' does, from the flags of OpenVLA's evaluation script for LIBERO.",
        epilog="Flags after a '--' go to 'grape evaluate' as they are and win, for example: -- --workers 4",
    )


def translate(
    flags: LiberoFlags, further: Sequence[str] = (), keys_of: Callable[[str], Sequence[str]] = lambda policy: ()
) -> EvaluateCall:
    """Translate a call.

    What is published as it stands becomes the protocol; other seeds or numbers of trials become single settings.

    Args:
        flags: The flags.
        further: Arguments of ``grape evaluate`` to add; later ones win.
        keys_of: Names of a checkpoint's normalization statistics.

    Raises:
        SettingsError: Something is asked for that cannot be done, or a value makes no sense.
    """
    _check(flags)
    suite, policy = flags.task_suite_name, flags.pretrained_checkpoint
    words = ["--suite", suite, "--policy", policy]
    published = flags.num_trials_per_task == _STATES and flags.seed == _PROTOCOL.seed
    if "center_crop" in flags.given or not published:  # else the protocol asks the checkpoint
        words += ["--center-crop", "yes" if flags.center_crop else "no"]
    if published:
        words = ["--protocol", _PROTOCOL.name, *words]
    else:
        words += ["--initial-states", f"0-{flags.num_trials_per_task - 1}", "--seed", str(flags.seed)]
        key = next((key for key in _PROTOCOL.keys_of(suite) if key in keys_of(policy)), None)
        words += [] if key is None else ["--unnorm-key", key]
    if flags.load_in_4bit:
        words.append("--load-in-4bit")
    if flags.given & {"local_log_dir", "run_id_note"}:
        tags = ["EVAL", suite, PurePath(policy).name, *([flags.run_id_note] if flags.run_id_note else [])]
        words += ["--out", str(PurePath(flags.local_log_dir) / "-".join(tags))]
    return EvaluateCall((*words, *further), _notes(flags, published))


def _check(flags: LiberoFlags) -> None:
    require_known("task_suite_name", flags.task_suite_name, _PROTOCOL.suites)
    if not flags.pretrained_checkpoint:
        raise SettingsError("--pretrained_checkpoint is missing.", "Give a checkpoint folder, or a name on the hub.")
    if flags.model_family != "openvla":
        raise SettingsError(f"--model_family {flags.model_family} cannot be used.", "Policies here are OpenVLA's.")
    if flags.load_in_8bit:
        raise SettingsError("--load_in_8bit cannot be used.", "Say --load_in_4bit True, or leave both out.")
    if flags.num_steps_wait != 10:
        raise SettingsError(
            f"--num_steps_wait {flags.num_steps_wait} cannot be used: the suites wait 10 steps, as published.",
            "Leave it out.",
        )
    if not 1 <= flags.num_trials_per_task <= _STATES:
        raise SettingsError(
            f"--num_trials_per_task {flags.num_trials_per_task} cannot be used: a task has {_STATES} initial states.",
            f"Choose from 1 to {_STATES}.",
        )
    if "image_aug" in flags.pretrained_checkpoint and not flags.center_crop:
        raise SettingsError(
            "--center_crop False with a checkpoint whose name says that it was trained with augmentation (image_aug).",
            "Leave --center_crop out.",
        )


def _notes(flags: LiberoFlags, published: bool) -> tuple[str, ...]:
    notes = []
    if published:
        notes.append(f"All of it is protocol {_PROTOCOL.name}; 'grape evaluate --dry-run' shows what it fixes.")
    else:
        notes.append(
            f"With another seed than {_PROTOCOL.seed} or fewer than {_STATES} trials it is not the published protocol."
        )
    notes.append("Figures come with intervals, in results.json; videos: -- --display, then 'grape report'.")
    if flags.given & {"use_wandb", "wandb_project", "wandb_entity"}:
        notes.append("--use_wandb, --wandb_project, --wandb_entity have no effect: nothing is sent anywhere.")
    if flags.given & {"local_log_dir", "run_id_note"}:
        notes.append("--local_log_dir, --run_id_note: the folder of --out.")
    return tuple(notes)
