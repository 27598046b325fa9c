"""Opening the model that settings name: an endpoint under a budget, a local one, or recorded or prepared answers."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grape.core.errors import DataError, SettingsError
from grape.core.events import Reporter
from grape.core.reading import read_file
from grape.core.settings import Range, setting
from grape.vlm.budget import Budget, Limits, Prices
from grape.vlm.conversation import ChatModel
from grape.vlm.credentials import endpoint_from_environment
from grape.vlm.endpoint import EndpointModel, Timeouts
from grape.vlm.recordings import AnswerFolder, Replayer, ScriptedModel
from grape.vlm.retries import Retries

__all__ = ["Client", "ModelSettings", "check_model", "open_model"]

Client = Literal["endpoint", "local", "replay", "script"]

_MAX_ANSWER_BYTES = 262_144


@dataclass(frozen=True)
class ModelSettings:
    """Which model answers, and what it may cost; the key of an endpoint comes from the environment alone.

    Attributes:
        client: endpoint: an OpenAI-compatible server. local: a model on this machine through transformers. replay:
            answers recorded under answers. script: answers in the files of answers, in the order of their names.
        model: The model's name at the endpoint or of the recording, or a folder or hub name for local.
        answers: Folder of recorded or prepared answers, for replay and script.
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

    client: Client = setting("endpoint")
    model: str = setting("")
    answers: Path | None = setting(None, identity=False)
    max_tokens: int = setting(4096, range=Range(16, 1_000_000))
    temperature: float = setting(0.0, range=Range(0, 2))
    seed: int = setting(0, range=Range(0, 2**31 - 1))
    timeout: float = setting(180.0, range=Range(0.1, 86_400), identity=False)
    attempts: int = setting(6, range=Range(1, 100), identity=False)
    max_requests: int = setting(20, range=Range(0, 1_000_000), identity=False)
    max_total_tokens: int = setting(0, range=Range(0, 10**12), identity=False)
    max_money: float = setting(0.0, range=Range(0, 1e9), identity=False)
    price_reading: float = setting(0.0, range=Range(0, 1e6), identity=False)
    price_writing: float = setting(0.0, range=Range(0, 1e6), identity=False)
    device: str = setting("auto", identity=False)
    revision: str = setting("")

    @classmethod
    def of(cls, settings: Any) -> "ModelSettings":
        """Those of a verb that has fields of these names."""
        return ModelSettings(**{item.name: getattr(settings, item.name) for item in dataclasses.fields(ModelSettings)})


def check_model(settings: ModelSettings) -> None:
    """Refuse settings that name no model, before anything is read or requested.

    Raises:
        SettingsError: Names the setting.
    """
    if settings.client in ("replay", "script") and settings.answers is None:
        raise SettingsError(f"--client {settings.client} needs --answers.", "Give the folder that holds them.")
    if settings.client in ("endpoint", "local", "replay") and not settings.model:
        raise SettingsError(f"--client {settings.client} needs --model.", "For example --model gpt-4o-mini.")


def open_model(
    settings: ModelSettings,
    answer_folder: AnswerFolder | None,
    ledger: Path | None,
    reporter: Reporter,
    retries: Retries | None = None,
) -> ChatModel:
    """The model of the settings.

    Args:
        settings: Checked ones.
        answer_folder: Where answers are kept: prepared ones go on after those that are there. None for nowhere.
        ledger: File of what was spent; None keeps the count in memory.
        reporter: Hears of waits.
        retries: How to wait between attempts; None for the settings' number and the usual waits.

    Raises:
        SettingsError: The answers are no folder, or credentials are missing.
        DataError: Recorded or prepared answers cannot be used.
    """
    if settings.client == "local":
        from grape.vlm.local import LocalModel

        return LocalModel(settings.model, settings.revision, settings.device)
    if settings.client == "replay":
        assert settings.answers is not None
        if not settings.answers.is_dir():
            raise SettingsError(f"--answers {settings.answers} is no folder.", "Give the folder of recorded answers.")
        return Replayer(settings.model, AnswerFolder(settings.answers))
    if settings.client == "script":
        assert settings.answers is not None
        kept = answer_folder is not None and answer_folder.path.is_dir()
        n_answered = len(list(answer_folder.path.glob("*.json"))) if kept and answer_folder is not None else 0
        return ScriptedModel(settings.model or "script", _prepared(settings.answers), n_answered)
    budget = Budget(
        Limits(settings.max_requests, settings.max_total_tokens, settings.max_money),
        Prices(settings.price_reading, settings.price_writing),
        ledger,
    )
    return EndpointModel(
        settings.model,
        endpoint_from_environment(),
        budget,
        Timeouts(total=settings.timeout),
        dataclasses.replace(retries or Retries(), attempts=settings.attempts),
        reporter,
    )


def _prepared(folder: Path) -> list[str]:
    """Texts of a folder's files in the order of their names."""
    if not folder.is_dir():
        raise SettingsError(f"--answers {folder} is no folder.", "Give the folder of prepared answers.")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DataError(f"{folder} holds no answers.", "One file an answer: 1.json, 2.json, ...")
    try:
        return [read_file(path, max_bytes=_MAX_ANSWER_BYTES, within=folder).decode() for path in files]
    except UnicodeDecodeError as error:
        raise DataError(f"An answer in {folder} is not UTF-8.", "Save it as UTF-8 text.") from error
