"""The generation loop: ask, validate, return the findings to the model, up to a limit; all messages are kept.

The conversation stays short: a repair shows the model its task, its last answer and the findings on it. So every
request is determined by the task and the answers before it, and an interrupted run repeats its requests from recorded
answers.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from grape.core.events import SILENT, Reporter
from grape.costs import CostSpecification, specification_hash
from grape.costs.vocabulary import vocabulary_table
from grape.generation.answers import answer_part
from grape.generation.briefs import TaskBrief
from grape.generation.validators import Trial, Verdict, judge
from grape.vlm import Answer, ChatModel, Message, Request, request_key

__all__ = [
    "Round",
    "Sampling",
    "data_block",
    "generate",
    "prompt",
    "prompts_hash",
    "provenance",
    "repair_prompt",
    "system_prompt",
    "task_prompt",
]

_NAMES = ("system.md", "task.md", "repair.md", "with_picture.md", "without_picture.md", "example.json")
_PLACE = re.compile(r"\{\{(\w+)\}\}")


@functools.cache
def _text(name: str) -> str:
    return (resources.files("grape.generation") / "prompts" / name).read_text(encoding="utf-8").strip()


def prompt(name: str, **values: str) -> str:
    """A prompt with its places filled; inserted text is not expanded again.

    Args:
        name: File in the folder ``prompts``.
        values: Text for each place.
    """
    return _PLACE.sub(lambda match: values[match[1]], _text(name))


def prompts_hash() -> str:
    """SHA-256 over all prompts and the vocabulary, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for text in (*map(_text, _NAMES), vocabulary_table()):
        digest.update(len(text.encode()).to_bytes(8, "big") + text.encode())
    return digest.hexdigest()


def data_block(value: Any) -> str:
    """Untrusted text as JSON that cannot close its block: plain ASCII without angle brackets."""
    text = json.dumps(value, indent=1, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def system_prompt() -> str:
    """The system prompt."""
    return prompt("system.md", vocabulary=vocabulary_table(), example=_text("example.json"))


def task_prompt(task: Mapping[str, Any], has_image: bool) -> str:
    """The question about one task; everything of the task stands in a block of data."""
    image = _text("with_picture.md" if has_image else "without_picture.md")
    return prompt("task.md", task=data_block(task), picture=image)


def repair_prompt(findings: Sequence[str]) -> str:
    """What is wrong with an answer; findings may quote the answer and are data too."""
    return prompt("repair.md", findings=data_block(list(findings)))


MAX_QUOTED = 40_000
"""Characters of an answer that a repair shows to the model again; longer ones are no specification anyway."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        max_tokens: Most tokens of an answer.
        temperature: 0 for the likeliest answer.
        seed: Of the first answer; every repair takes the next one.
    """

    max_tokens: int = 4096
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Round:
    """One question, its answer and the findings on it.

    Attributes:
        request: What was asked.
        key: The request's key.
        answer: What the model said.
        verdict: What is wrong with it.
    """

    request: Request
    key: str
    answer: Answer
    verdict: Verdict

    def as_data(self) -> dict[str, Any]:
        """The round as JSON values: texts, the images' hashes, findings and tokens."""
        usage, verdict = self.answer.usage, self.verdict
        return {
            "key": self.key,
            "prompt": [
                {"role": one.role, "text": one.text, "pictures": [image.hash for image in one.images]}
                for one in self.request.messages
            ],
            "answer": self.answer.text,
            "model": self.answer.model,
            "truncated": self.answer.truncated,
            "tokens": {
                "prompt": usage.prompt_tokens,
                "completion": usage.completion_tokens,
                "estimated": usage.estimated,
            },
            "found_by": verdict.stage,
            "findings": list(verdict.findings),
            "warnings": list(verdict.warnings),
            "specification": "" if verdict.specification is None else specification_hash(verdict.specification),
            "report": verdict.report,
        }


def generate(
    model: ChatModel,
    brief: TaskBrief,
    *,
    repairs: int,
    sampling: Sampling,
    schema: Mapping[str, Any] | None = None,
    trial: Callable[[CostSpecification], Trial] | None = None,
    keep: Callable[[list[Round]], None] = lambda rounds: None,
    reporter: Reporter = SILENT,
) -> list[Round]:
    """Ask for a specification until one is accepted.

    Args:
        model: The model to ask.
        brief: The task.
        repairs: How often findings are handed back at most.
        sampling: How answers are drawn.
        schema: JSON Schema of the answer.
        trial: Tries a specification on recorded trajectories.
        keep: Called after every round with all rounds so far.
        reporter: Told of every round.

    Returns:
        The rounds; the last one's verdict says whether its specification is accepted.

    Raises:
        ModelError: The model could not be asked; the rounds before are kept.
    """
    opening = (
        Message("system", system_prompt()),
        Message("user", task_prompt(brief.as_data(), brief.image is not None), images_of(brief)),
    )
    rounds: list[Round] = []
    messages: tuple[Message, ...] = opening
    while len(rounds) <= repairs:
        # A seed a round: the same question twice would be answered from the record, by the same answer.
        request = Request(messages, schema, sampling.max_tokens, sampling.temperature, sampling.seed + len(rounds))
        answer = model.ask(request)
        verdict = judge(answer.text, brief, answer.truncated, trial)
        rounds.append(Round(request, request_key(request, model.name, model.origin), answer, verdict))
        keep(rounds)
        if verdict.accepted:
            break
        reporter.info(f"Answer {len(rounds)}: {len(verdict.findings)} findings, e.g. {verdict.findings[0]}")
        quoted_answer = Message("assistant", answer_part(answer.text)[:MAX_QUOTED] or "(nothing)")
        messages = (*opening, quoted_answer, Message("user", repair_prompt(verdict.findings)))
    return rounds


def images_of(brief: TaskBrief) -> tuple[Any, ...]:
    """The brief's image, if it has one."""
    return () if brief.image is None else (brief.image,)


def provenance(rounds: list[Round], model: ChatModel) -> dict[str, Any]:
    """Where a specification came from, as JSON values."""
    return {
        "model": model.name,
        "prompts": prompts_hash(),
        "request": rounds[-1].key,
        "rounds": len(rounds),
        "pictures": [image.hash for message in rounds[0].request.messages for image in message.images],
    }
