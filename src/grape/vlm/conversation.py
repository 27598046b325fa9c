"""Requests to vision-language models and their answers, independent of the backend.

A request has a key: the hash of the model's name, of where it is served, of all texts, the pixels of all images, the
schema and the sampling. Equal keys are equal questions, so a recorded answer can stand for asking again.
"""

import base64
import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from grape.core.errors import SettingsError
from grape.core.files import content_hash
from grape.core.image_files import open_image
from grape.core.reading import record

__all__ = ["Answer", "ChatImage", "ChatModel", "Message", "Request", "Usage", "describe_request", "request_key"]

MAX_SIDE = 1024
"""Longest side of an image that is sent, in pixels."""

MAX_PIXELS = 40_000_000
MAX_BYTES = 256 * 2**20
"""Of a file with an image; as many pixels without compression take half of it."""


@dataclass(frozen=True, eq=False)
class ChatImage:
    """An RGB image without anything else: what a camera wrote beside the pixels (place, time, owner) is dropped.

    Attributes:
        pixels: uint8 ``(H, W, 3)``, at most :data:`MAX_SIDE` on the longer side.
    """

    pixels: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, pixels: npt.NDArray[np.uint8]) -> "ChatImage":
        """An image of pixels ``(H, W, 3)``; larger ones are made smaller."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise SettingsError(f"An image must be uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}.")
        scale = MAX_SIDE / max(pixels.shape[:2])
        if scale >= 1.0:
            return cls(np.ascontiguousarray(pixels))
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        return cls(np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)))

    @classmethod
    def read(cls, path: Path) -> "ChatImage":
        """An image from a file that PIL can read.

        Raises:
            DataError: The file is missing, no image, or larger than 40 million pixels.
        """
        upright = ImageOps.exif_transpose(open_image(path))  # what a camera was told of its own turn is dropped else
        return cls.of(np.asarray(upright.convert("RGB"), dtype=np.uint8))

    @property
    def hash(self) -> str:
        """SHA-256 of size and pixels."""
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).tobytes())
        return digest.hexdigest()

    def data_url(self) -> str:
        """The image as a ``data:`` URL of a PNG file."""
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "PNG")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        text: What is said.
        images: Shown after the text.
    """

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[ChatImage, ...] = ()


@dataclass(frozen=True)
class Request:
    """A question.

    Attributes:
        messages: The conversation; the model speaks next.
        schema: JSON Schema that the answer should follow; None for free text.
        max_tokens: Most tokens of the answer.
        temperature: Sampling temperature; 0 for the likeliest answer.
        seed: Seed of the sampling, where the model takes one.
    """

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 4096
    temperature: float = 0.0
    seed: int = 0

    @property
    def estimated_prompt_tokens(self) -> int:
        """Tokens of the question, a cautious estimate: three characters, schema included, and 256 pixels each.

        Models that show themselves a small image in several tiles may take more for it.
        """
        characters = sum(len(message.text) for message in self.messages)
        characters += 0 if self.schema is None else len(json.dumps(self.schema))
        images = (image.pixels.shape for message in self.messages for image in message.images)
        pixels = sum(int(height) * int(width) for height, width, _ in images)
        return math.ceil(characters / 3) + math.ceil(pixels / 256) + 16 * len(self.messages)


@record
@dataclass(frozen=True)
class Usage:
    """What an answer took.

    Attributes:
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        estimated: Whether the model did not say and the numbers are estimates.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.prompt_tokens + self.completion_tokens


@record
@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: The answer.
        usage: What it took.
        truncated: Whether it was cut off at the most tokens allowed.
        model: What the model calls itself.
    """

    text: str
    usage: Usage = field(default_factory=Usage)
    truncated: bool = False
    model: str = ""


class ChatModel(Protocol):
    """A vision-language model: an endpoint, a local model, or recorded answers."""

    @property
    def name(self) -> str:
        """Name in records; a part of every request's key."""

    @property
    def origin(self) -> str:
        """Whose model of this name it is, a part of the key, too: the hash of a server's address; else empty."""

    def ask(self, request: Request) -> Answer:
        """Answer a question.

        Raises:
            ModelError: It cannot be reached, keeps failing, or gives nothing usable.
            BudgetError: Asking would go beyond what may be spent.
            SettingsError: It refuses the credentials or the request.
        """


def describe_request(request: Request, model: str, origin: str = "") -> dict[str, Any]:
    """The request's content as JSON values, for its key; images by their hash."""
    return {
        "model": model,
        **({"origin": origin} if origin else {}),
        "messages": [
            {
                "role": message.role,
                "text": message.text,
                "pictures": [image.hash for image in message.images],
            }
            for message in request.messages
        ],
        "schema": "" if request.schema is None else content_hash(request.schema),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": request.seed,
    }


def request_key(request: Request, model: str, origin: str = "") -> str:
    """SHA-256 that stands for the question to this model, as 64 hexadecimal digits."""
    return content_hash(describe_request(request, model, origin))
