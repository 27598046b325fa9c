"""Recorded answers: a cache of requests, and models that only replay.

A folder holds one JSON file an answer, named by the request's key. The same format serves as cache, as recording for
tests and demonstrations, and as evidence of what was asked: the texts stand in it, images by their hash.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, ModelError
from grape.core.files import read_json, write_json
from grape.core.reading import decode, encode, record
from grape.vlm.conversation import Answer, ChatModel, Request, Usage, describe_request, request_key

__all__ = ["AnswerFolder", "Recorder", "Replayer", "ScriptedModel"]


@record
@dataclass(frozen=True)
class _Recorded:
    """What one file holds."""

    request: Mapping[str, Any]
    answer: Answer


class AnswerFolder:
    """Recorded answers by the key of their request.

    Args:
        path: The folder; made when the first answer is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, key: str) -> Answer | None:
        """The answer to a request, or None.

        Raises:
            DataError: Its file is there and holds something else.
        """
        file = self.path / f"{key}.json"
        if not file.exists():
            return None
        hint = "Delete it: the question is then asked again."
        return decode(_Recorded, read_json(file), f"{file} is no recorded answer", hint).answer

    def origin_of(self, name: str) -> str:
        """Origin of the model of this name whose answers are here; empty where none has one.

        Raises:
            DataError: Several servers' models of this name answered, or a file holds something else.
        """
        origins = set()
        for file in sorted(self.path.glob("*.json")):
            hint = "Take it out of the folder."
            request = decode(_Recorded, read_json(file), f"{file} is no recorded answer", hint).request
            if request.get("model") == name:
                origins.add(str(request.get("origin", "")))
        if len(origins) > 1:
            raise DataError(
                f"{self.path} holds answers of {len(origins)} servers that call a model {name!r}.",
                "Keep those whose field 'origin' is of one server.",
            )
        return origins.pop() if origins else ""

    def keep(self, key: str, request: Request, model: ChatModel, answer: Answer) -> None:
        """Write an answer atomically."""
        write_json(
            self.path / f"{key}.json",
            {
                "request": describe_request(request, model.name, model.origin),
                "answer": encode(answer),
            },
        )


class Recorder:
    """A model whose answers are kept: a question that was answered is not asked again.

    Args:
        model: The model to ask.
        folder: Where answers are.
    """

    def __init__(self, model: ChatModel, folder: AnswerFolder) -> None:
        self.model, self.folder = model, folder

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.model.name

    @property
    def origin(self) -> str:
        """The model's own origin."""
        return self.model.origin

    def ask(self, request: Request) -> Answer:
        """The recorded answer, or a new one, which is kept."""
        key = request_key(request, self.name, self.origin)
        answer = self.folder.find(key)
        if answer is None:
            answer = self.model.ask(request)
            self.folder.keep(key, request, self.model, answer)
        return answer


class Replayer:
    """Answers from a folder only, whichever server gave them.

    Args:
        name: Name of the model that was recorded.
        folder: Its answers.

    Raises:
        DataError: Several servers' models of this name answered, or a file is no recorded answer.
    """

    def __init__(self, name: str, folder: AnswerFolder) -> None:
        self.name, self.origin, self.folder = name, folder.origin_of(name), folder

    def ask(self, request: Request) -> Answer:
        """The recorded answer.

        Raises:
            ModelError: This question was not recorded.
        """
        key = request_key(request, self.name, self.origin)
        answer = self.folder.find(key)
        if answer is None:
            raise ModelError(
                f"{self.folder.path} holds no answer of {self.name!r} to this question ({key[:12]}).",
                "Another prompt, image, model name or sampling makes another question; record it once with "
                "--client endpoint or --client local.",
            )
        return answer


class ScriptedModel:
    """Gives prepared answers in their order, whatever it is asked; for hand-written answers in tests and studies.

    Args:
        name: What it is called.
        answers: One a question.
        asked: How many of them were given before.
    """

    def __init__(self, name: str, answers: Sequence[str], n_answered: int = 0) -> None:
        self.name, self.origin, self.answers, self.n_answered = name, "", tuple(answers), n_answered

    def ask(self, request: Request) -> Answer:
        """The next answer.

        Raises:
            ModelError: All were given.
        """
        if self.n_answered >= len(self.answers):
            raise ModelError(f"{self.name!r} has no answer to question {self.n_answered + 1}.", "Write one more.")
        text = self.answers[self.n_answered]
        self.n_answered += 1
        return Answer(text, Usage(request.estimated_prompt_tokens, len(text) // 3, estimated=True), model=self.name)
