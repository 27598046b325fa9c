"""A vision-language model on this machine, through transformers.

Takes any checkpoint that ``AutoModelForImageTextToText`` knows, by folder or by name on the Hugging Face hub. Weights
are read from safetensors only, and code that a checkpoint brings along is never run. Small models follow a schema less
reliably than an endpoint that enforces it; the answer is checked all the same.
"""

import re
from typing import Any

import numpy as np

from grape.core.errors import ModelError, SettingsError
from grape.vlm.conversation import Answer, Message, Request, Usage

__all__ = ["LocalModel"]

# Said outright: left unsaid, transformers asks on the terminal whether to run a checkpoint's own code.
_NO_FOREIGN_CODE = {"trust_remote_code": False}

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)

_THINKING = re.compile(r"<\|channel\|?>|[\[<\u25c1][/|]*[a-z_:]*(?:think|thought|reason)|<unused9[45]>", re.IGNORECASE)
"""Marks that are special tokens of some tokenizers."""


class LocalModel:
    """A model that is loaded at its first question.

    Args:
        name: Folder, or ``organization/name`` on the hub.
        revision: Branch, tag or commit on the hub; empty for the newest.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...
    """

    def __init__(self, name: str, revision: str = "", device: str = "auto") -> None:
        self.place, self.revision, self.device = name, revision, device
        self._loaded: tuple[Any, Any] | None = None

    origin = ""

    @property
    def name(self) -> str:
        """The checkpoint's name and revision."""
        return f"local:{self.place}@{self.revision}" if self.revision else f"local:{self.place}"

    def ask(self, request: Request) -> Answer:
        """Generate an answer.

        Raises:
            SettingsError: A package is missing, or the checkpoint cannot be used.
            ModelError: The model failed, e.g. for lack of memory.
        """
        import torch

        processor, model = self._load()
        try:
            inputs = processor.apply_chat_template(
                [_turn(message) for message in request.messages],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            ).to(model.device)
            inputs = {name: _as_model(value, model.dtype) for name, value in inputs.items()}
            sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
            if request.temperature > 0.0:
                torch.manual_seed(request.seed)
                sampling = {"do_sample": True, "temperature": request.temperature}
            with torch.inference_mode():
                tokens = model.generate(**inputs, max_new_tokens=request.max_tokens, **sampling)
        except (RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
            hint = "Take a smaller model or image, or another device." if "memory" in str(error).lower() else ""
            raise ModelError(
                f"{self.place} could not answer: {_first_line(error)}.", hint or "See --model for what can be used."
            ) from error
        prompt_length = int(inputs["input_ids"].shape[1])
        written = tokens[0, prompt_length:]
        return Answer(
            text=_text(processor, written),
            usage=Usage(prompt_length, len(written)),
            truncated=len(written) >= request.max_tokens and int(written[-1]) not in _ends(model),
            model=self.place,
        )

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is not None:
            return self._loaded
        try:
            import torch
            import transformers
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"A model on this machine needs the package {error.name!r}.", "pip install 'grape-vla[vlm]'"
            ) from error
        chosen = {"revision": self.revision} if self.revision else {}
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            processor = transformers.AutoProcessor.from_pretrained(self.place, **chosen, **_NO_FOREIGN_CODE)
            model = transformers.AutoModelForImageTextToText.from_pretrained(
                self.place, use_safetensors=True, dtype="auto", **chosen, **_NO_FOREIGN_CODE
            )
            model = model.to(device).eval()
        except (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            hint = "Give a folder or a name on the hub of a model for images and text, in safetensors."
            if isinstance(error, ImportError):
                hint = "Install the package that it names; some processors need torchvision."
            elif not _HUB_NAME.fullmatch(self.place):
                hint += " A name on the hub looks like organization/name."
            raise SettingsError(f"{self.place} cannot be used as a model: {_first_line(error)}.", hint) from error
        if not getattr(processor, "chat_template", None):
            raise SettingsError(
                f"{self.place} has no chat template.", "Take a model that was made for conversations (instruct, chat)."
            )
        self._loaded = processor, model
        return self._loaded


def _turn(message: Message) -> dict[str, Any]:
    from PIL import Image

    images = [{"type": "image", "image": Image.fromarray(np.asarray(one.pixels))} for one in message.images]
    return {"role": message.role, "content": [*images, {"type": "text", "text": message.text}]}


def _text(processor: Any, tokens: Any) -> str:
    """What was written; with its special tokens where these say which part is thinking."""
    whole = str(processor.decode(tokens, skip_special_tokens=False))
    return whole if _THINKING.search(whole) else str(processor.decode(tokens, skip_special_tokens=True))


def _as_model(value: Any, dtype: Any) -> Any:
    """Images in the model's number type; tokens as they are."""
    return value.to(dtype) if hasattr(value, "is_floating_point") and value.is_floating_point() else value


def _ends(model: Any) -> set[int]:
    """Tokens that end an answer."""
    end = model.generation_config.eos_token_id
    return set(end) if isinstance(end, list) else {end} if end is not None else set()


def _first_line(error: Exception) -> str:
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()
    return (line if len(line) <= 300 else line[:297] + "...").rstrip(".")
