"""Settings of ``grape costs generate``."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from grape.core.errors import SettingsError

__all__ = ["GenerateCostsSettings", "check_settings"]


@dataclass(frozen=True)
class GenerateCostsSettings:
    """Ask a vision-language model for a task's cost specification, check it, try it, and have it mended.

    The model gets the instruction, the names of the recorded keypoints and signals, and a picture of the first state.
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
        image: Picture of the first state; by default the first frame of the task's first episode in --store, else the
            suite's own picture of --initial-state.
        no_image: Ask by words alone.
        names: YAML file with "keypoints" and "signals", each a mapping of names to what they mean; keypoints called
            point_0, point_1, ... are points numbered on the picture. Needed without --suite and --store.
        store: Episode stores, or folders that grape collect wrote: the names that the task's first episode recorded are
            offered, and specifications are tried on all its episodes, as "grape costs validate" does.
        initial_state: Which initial state the suite draws.
        limit: Decisions after which an episode ends; 0 takes the task's, or 300.
        client: endpoint: an OpenAI-compatible server. local: a model on this machine through transformers. replay:
            answers recorded under --answers. script: answers in the files of --answers, in the order of their names.
        model: The model's name at the endpoint or of the recording, or a folder or hub name for local.
        answers: Folder of recorded or prepared answers, for replay and script.
        repairs: How often findings are handed back at most.
        max_tokens: Most tokens of one answer.
        temperature: Sampling temperature; 0 for the likeliest answer.
        seed: Seed of the sampling, where the model takes one.
        timeout: Seconds for one answer.
        attempts: How often a question is sent when the endpoint fails in a way that may pass.
        max_requests: Most questions, failed attempts included; 0 for no limit.
        max_total_tokens: Most tokens read and written; 0 for no limit.
        max_money: Most money; 0 for no limit.
        price_reading: Money for a million tokens of questions.
        price_writing: Money for a million tokens of answers.
        device: Where a local model computes: auto, cpu, cuda, cuda:1 ...
        revision: Revision of a local model on the hub.
    """

    out: Path = field(metadata={"identity": False})
    suite: str = ""
    task: str = ""
    instruction: str = ""
    image: Path | None = None
    no_image: bool = False
    names: Path | None = None
    store: tuple[Path, ...] = ()
    initial_state: int = 0
    limit: int = 0
    client: Literal["endpoint", "local", "replay", "script"] = "endpoint"
    model: str = ""
    answers: Path | None = field(default=None, metadata={"identity": False})
    repairs: int = field(default=3, metadata={"identity": False})
    max_tokens: int = 4096
    temperature: float = 0.0
    seed: int = 0
    timeout: float = field(default=180.0, metadata={"identity": False})
    attempts: int = field(default=6, metadata={"identity": False})
    max_requests: int = field(default=20, metadata={"identity": False})
    max_total_tokens: int = field(default=0, metadata={"identity": False})
    max_money: float = field(default=0.0, metadata={"identity": False})
    price_reading: float = field(default=0.0, metadata={"identity": False})
    price_writing: float = field(default=0.0, metadata={"identity": False})
    device: str = field(default="auto", metadata={"identity": False})
    revision: str = ""


def check_settings(settings: GenerateCostsSettings) -> None:
    """Refuse what cannot be meant, before anything is read or asked.

    Raises:
        SettingsError: Names the setting.
    """
    ranges: dict[str, tuple[float, float]] = {
        "repairs": (0, 20),
        "max_tokens": (16, 1_000_000),
        "temperature": (0.0, 2.0),
        "seed": (0, 2**31 - 1),
        "timeout": (0.1, 86_400.0),
        "attempts": (1, 100),
        "max_requests": (0, 1_000_000),
        "max_total_tokens": (0, 10**12),
        "max_money": (0.0, 1e9),
        "price_reading": (0.0, 1e6),
        "price_writing": (0.0, 1e6),
        "initial_state": (0, 10**9),
        "limit": (0, 1_000_000),
    }
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not (math.isfinite(value) and low <= value <= high):
            raise SettingsError(f"--{name.replace('_', '-')} is {value}.", f"Give a value from {low:g} to {high:g}.")
    if settings.task and not settings.suite:
        raise SettingsError("--task needs --suite.", "Give both, or --instruction.")
    if not settings.suite and not settings.instruction:
        raise SettingsError("No task is named.", "Give --suite and --task, or --instruction with --image and --names.")
    if settings.suite and not settings.task:
        raise SettingsError("--suite needs --task.", "A specification is for one task.")
    if settings.image is not None and settings.no_image:
        raise SettingsError("--image and --no-image exclude each other.")
    if settings.client in ("replay", "script") and settings.answers is None:
        raise SettingsError(f"--client {settings.client} needs --answers.", "Give the folder that holds them.")
    if settings.client in ("endpoint", "local", "replay") and not settings.model:
        raise SettingsError(f"--client {settings.client} needs --model.", "For example --model gpt-4o-mini.")
