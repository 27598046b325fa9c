"""Settings of ``grape costs generate``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grape.core.errors import SettingsError
from grape.core.settings import Range, check_ranges, setting
from grape.vlm import ModelSettings, check_model

__all__ = ["GenerateCostsSettings", "check_settings"]

_TASK, _MODEL, _LIMITS = "Task", "Model", "Limits and prices"


@dataclass(frozen=True)
class GenerateCostsSettings:
    """Ask a vision-language model for a task's cost specification, check it, try it, and have it fixed.

    The model gets the instruction, the names of the recorded keypoints and signals, and an image of the first state.
    Its answer is data in the constraint language; it is parsed, checked, and, with --store, tried on recorded episodes
    of the task. What is wrong goes back to the model, at most --repairs times. OUT then holds specification.yaml if it
    was accepted (candidate.yaml if not; the exit code is then 1), transcript.json with everything said and found,
    answers/ (a run that goes on, or is repeated, asks nothing twice) and spending.jsonl.

    An endpoint is named by the environment: OPENAI_BASE_URL (default: OpenAI's) and OPENAI_API_KEY. The key is never
    written anywhere. See docs/generation.md for what leaves the machine.

    Attributes:
        out: Folder to write.
        suite: Suite of the task.
        task: The task's name within the suite.
        instruction: What the robot should do, for tasks without a suite; with --suite, instead of the task's own.
        image: Image of the first state; by default the first image of the task's first episode in --store, else the
            suite's own image of --initial-state.
        no_image: Ask without an image.
        names: YAML file with "keypoints" and "signals", each a mapping of names to what they mean; keypoints called
            point_0, point_1, ... are points numbered on the image. Needed without --suite and --store.
        store: Episode stores, or folders that grape collect wrote: the names that the task's first episode recorded are
            offered, and specifications are tried on all its episodes, as "grape costs validate" does.
        initial_state: Which initial state the suite draws.
        limit: Decisions after which an episode ends; 0 takes the task's, or 300.
        client: endpoint: an OpenAI-compatible server. local: a model on this machine through transformers. replay:
            answers recorded under --answers. script: answers in the files of --answers, in the order of their names.
        model: The model's name at the endpoint or of the recording, or a folder or hub name for local.
        answers: Folder of recorded or prepared answers, for replay and script.
        repairs: Largest number of times that findings are returned to the model.
        max_tokens: Most tokens of one answer.
        temperature: Sampling temperature; 0 for the likeliest answer.
        seed: Seed of the sampling, where the model takes one.
        timeout: Seconds for one answer.
        attempts: Attempts for one request when the endpoint fails temporarily.
        max_requests: Most questions, failed attempts included; 0 for no limit.
        max_total_tokens: Most tokens read and written; 0 for no limit.
        max_money: Most money; 0 for no limit.
        price_reading: Money for a million tokens of questions.
        price_writing: Money for a million tokens of answers.
        device: Where a local model computes: auto, cpu, cuda, cuda:1 ...
        revision: Revision of a local model on the hub.
    """

    out: Path = setting(identity=False, common=True)
    suite: str = setting("", group=_TASK, common=True)
    task: str = setting("", group=_TASK, common=True)
    instruction: str = setting("", group=_TASK, common=True)
    image: Path | None = setting(None, group=_TASK, common=True)
    no_image: bool = setting(False, group=_TASK)
    names: Path | None = setting(None, group=_TASK, common=True)
    store: tuple[Path, ...] = setting((), group=_TASK, common=True)
    initial_state: int = setting(0, group=_TASK, range=Range(0, 10**9))
    limit: int = setting(0, group=_TASK, range=Range(0, 1_000_000))
    client: Literal["endpoint", "local", "replay", "script"] = setting("endpoint", group=_MODEL, common=True)
    model: str = setting("", group=_MODEL, common=True)
    answers: Path | None = setting(None, group=_MODEL, identity=False)
    repairs: int = setting(3, group=_LIMITS, range=Range(0, 20), identity=False, common=True)
    max_tokens: int = setting(4096, group=_MODEL, range=Range(16, 1_000_000))
    temperature: float = setting(0.0, group=_MODEL, range=Range(0, 2), common=True)
    seed: int = setting(0, group=_MODEL, range=Range(0, 2**31 - 1))
    timeout: float = setting(180.0, group=_MODEL, range=Range(0.1, 86_400), identity=False)
    attempts: int = setting(6, group=_MODEL, range=Range(1, 100), identity=False)
    max_requests: int = setting(20, group=_LIMITS, range=Range(0, 1_000_000), identity=False, common=True)
    max_total_tokens: int = setting(0, group=_LIMITS, range=Range(0, 10**12), identity=False)
    max_money: float = setting(0.0, group=_LIMITS, range=Range(0, 1e9), identity=False)
    price_reading: float = setting(0.0, group=_LIMITS, range=Range(0, 1e6), identity=False)
    price_writing: float = setting(0.0, group=_LIMITS, range=Range(0, 1e6), identity=False)
    device: str = setting("auto", group=_MODEL, identity=False)
    revision: str = setting("", group=_MODEL)


def check_settings(settings: GenerateCostsSettings) -> None:
    """Refuse contradictory settings, before anything is read or requested.

    Raises:
        SettingsError: Names the setting.
    """
    check_ranges(settings)
    if settings.task and not settings.suite:
        raise SettingsError("--task needs --suite.", "Give both, or --instruction.")
    if not settings.suite and not settings.instruction:
        raise SettingsError("No task is named.", "Give --suite and --task, or --instruction with --image and --names.")
    if settings.suite and not settings.task:
        raise SettingsError("--suite needs --task.", "A specification is for one task.")
    if settings.image is not None and settings.no_image:
        raise SettingsError("--image and --no-image exclude each other.")
    check_model(ModelSettings.of(settings))
