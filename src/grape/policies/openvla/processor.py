"""Preprocessing of images and instructions, shared by collection, training and evaluation."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from grape.core.errors import DataError, PolicyError, SettingsError
from grape.core.images import center_crop
from grape.core.reading import parse_json

__all__ = ["MAX_INSTRUCTION", "PROMPT_TEMPLATE", "Processor", "check_instruction", "read_tokenizer"]

PROMPT_TEMPLATE = "In: What action should the robot take to {instruction}?\nOut:"

_LLAMA_SPACE = ("▁", 29871)
"""Llama-2's empty token. OpenVLA was trained with it between ``Out:`` and the first action token, but the tokenizer
alone does not produce it; the published code appends it when it is not there."""


_CROP_AREA = 0.9


MAX_INSTRUCTION = 20_000
"""Characters; published data has below 200, and how many tokens a network reads is checked apart."""


def check_instruction(instruction: str) -> None:
    """Refuse what is no instruction: a network's memory grows with the square of its length.

    Raises:
        DataError: It is longer than ``MAX_INSTRUCTION``.
    """
    if len(instruction) > MAX_INSTRUCTION:
        raise DataError(
            f"An instruction has {len(instruction):,} characters; at most {MAX_INSTRUCTION:,} are read.",
            f"It begins with {instruction[:60]!r}: is it one?",
        )


class Processor:
    """Tokenizes prompts, resizes and normalizes images.

    Args:
        tokenizer: The language model's tokenizer; its post-processor adds the begin-of-sequence token.
        preprocessor: Content of ``preprocessor_config.json``.
        towers: Number of vision towers.
        center_crop: Whether to crop 90 % of the area from the middle, after the resize: for policies trained with
            random crops of that size.
        prompt_tail: What stands behind the prompt: Llama's empty token ``"appended"`` unless it is last already, a
            space ``"written"`` that must become that token, or ``"none"``.

    Raises:
        DataError: The preprocessing configuration is incomplete.
        SettingsError: It asks for something other than a plain bicubic resize.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        preprocessor: Mapping[str, Any],
        towers: int,
        center_crop: bool = False,
        prompt_tail: Literal["appended", "written", "none"] = "appended",
    ) -> None:
        self.tokenizer = tokenizer
        self.center_crop = center_crop
        self.prompt_tail = prompt_tail
        try:
            sizes = [tuple(int(side) for side in size) for size in preprocessor["input_sizes"]]
            constants = _constants(preprocessor)
            resize = [str(name) for name in preprocessor.get("interpolations", ["bicubic"] * towers)]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f"preprocessor_config.json is incomplete ({error!r}).", "Fetch the checkpoint again."
            ) from error
        if len(sizes) != towers or len(constants) != towers or len({size[1:] for size in sizes}) != 1:
            raise DataError(f"preprocessor_config.json describes {len(sizes)} images of sizes {sizes}, not {towers}.")
        if preprocessor.get("tvf_do_letterbox") or set(resize) != {"bicubic"}:
            raise SettingsError("Only the bicubic 'resize-naive' image preprocessing of OpenVLA is supported.")
        self.image_size = sizes[0][1]
        self.mean = np.concatenate([mean for mean, _ in constants])  # (3 * towers,) float32
        self.std = np.concatenate([std for _, std in constants])
        self._towers = towers
        self._mean_C11 = torch.from_numpy(self.mean).view(-1, 1, 1)
        self._std_C11 = torch.from_numpy(self.std).view(-1, 1, 1)
        self._empty_token = [_LLAMA_SPACE[1]] if tokenizer.token_to_id(_LLAMA_SPACE[0]) == _LLAMA_SPACE[1] else []
        self._appended = self._empty_token if prompt_tail == "appended" else []
        self._cached_ids = lru_cache(maxsize=4096)(self._tokenize)

    def prompt(self, instruction: str) -> str:
        """The text the network reads for an instruction (lower case, as published)."""
        return PROMPT_TEMPLATE.format(instruction=instruction.lower()) + " " * (self.prompt_tail == "written")

    def prompt_ids(self, instruction: str) -> tuple[int, ...]:
        """Token ids of an instruction's prompt, with whatever stands before the first action token."""
        return self._cached_ids(instruction)

    def _tokenize(self, instruction: str) -> tuple[int, ...]:
        check_instruction(instruction)
        ids = list(self.tokenizer.encode(self.prompt(instruction)).ids)
        if self._appended and ids[-1:] != self._appended:
            ids += self._appended
        if self.prompt_tail == "written" and self._empty_token and ids[-1:] != self._empty_token:
            raise PolicyError(
                f"The space behind the prompt became token {ids[-1]}, not {self._empty_token[0]}.",
                "This tokenizer is not the one that the conventions (prompt tail 'written') were made for.",
            )
        return tuple(ids)

    def pixels(self, images: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]], *, crop: bool = True) -> Tensor:
        """Normalized images.

        Args:
            images: RGB images, uint8 ``(H, W, 3)`` each (or one array with a leading batch axis).
            crop: False leaves the center crop out, for images that were cropped at random.

        Returns:
            float32 ``(B, 3 * towers, image_size, image_size)``.

        Raises:
            PolicyError: An image has another type or shape.
        """
        rows = list(images)
        for image in rows:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise PolicyError(f"An image must be uint8 (H, W, 3), found {image.dtype} {image.shape}.")
        stacked_BHWC = np.stack([self._prepare(image, crop and self.center_crop) for image in rows])
        rgb_BCHW = torch.from_numpy(stacked_BHWC).permute(0, 3, 1, 2).float().div_(255.0)
        channels_BCHW = rgb_BCHW.repeat(1, self._towers, 1, 1) if self._towers > 1 else rgb_BCHW
        return channels_BCHW.sub_(self._mean_C11).div_(self._std_C11)

    def _prepare(self, image: npt.NDArray[np.uint8], crop: bool) -> npt.NDArray[np.uint8]:
        """Resize, then crop: the order of OpenVLA's training and of its evaluation."""
        resized = self.resize(image)
        return center_crop(resized, _CROP_AREA) if crop else resized

    def resize(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """An image at the network's size, uint8; one that has it already comes back as it is."""
        side = self.image_size
        if image.shape[:2] == (side, side):
            return image
        return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), dtype=np.uint8)

    def facts(self) -> dict[str, Any]:
        """JSON description of everything here but the tokenizer's vocabulary, for hashing."""
        crop = {"center_crop": _CROP_AREA} if self.center_crop else {}
        tail = {"prompt_tail": self.prompt_tail} if self.prompt_tail != "appended" else {}
        return {
            **crop,
            **tail,
            "prompt": PROMPT_TEMPLATE.format(instruction="{lower(instruction)}"),
            "appended": self._appended,
            "resize": "pil-bicubic",
            "image_size": self.image_size,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }


def _constants(preprocessor: Mapping[str, Any]) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Mean and deviation a tower.

    ``tvf_normalize_params`` is what published checkpoints run with: the constants rounded to bfloat16, as they were in
    training; ``means`` and ``stds`` are only the nominal values.
    """
    if "tvf_normalize_params" in preprocessor:
        pairs = [(entry["mean"], entry["std"]) for entry in preprocessor["tvf_normalize_params"]]
    else:
        pairs = list(zip(preprocessor["means"], preprocessor["stds"], strict=True))
    constants = [(np.asarray(mean, dtype=np.float32), np.asarray(std, dtype=np.float32)) for mean, std in pairs]
    for mean, std in constants:
        if mean.shape != (3,) or std.shape != (3,) or not (np.isfinite(mean).all() and (std > 0).all()):
            raise ValueError("mean and std must be three numbers each, std above 0")
    return constants


_HINT = "Fetch the checkpoint again, or take tokenizer.json from the checkpoint that this one was trained from."
_NORMALIZERS = ("Sequence", "Prepend", "Replace", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip")
_PRE_TOKENIZERS = ("Sequence", "Metaspace", "ByteLevel", "Whitespace", "WhitespaceSplit", "Digits", "Punctuation")
_DECODERS = ("Sequence", "Replace", "ByteFallback", "Fuse", "Strip", "ByteLevel", "Metaspace")
_MODELS = ("BPE", "WordLevel", "Unigram")
_MOST_STEPS = 16
_MOST_GROWTH = 16
"""Times that normalizers may lengthen a text."""


def read_tokenizer(data: bytes, vocabulary: int) -> Tokenizer:
    """The tokenizer that a ``tokenizer.json`` describes, without the padding and truncation it was saved with.

    Args:
        data: Content of the file.
        vocabulary: Number of ids that the network knows.

    Raises:
        DataError: It is malformed, contradicts itself, or has parts that tokenizers of Llama do not have.
    """
    document = parse_json(data, "tokenizer.json", hint=_HINT)
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise DataError("tokenizer.json describes no tokenizer.", _HINT)
    document = {**document, "padding": None, "truncation": None}
    _check_model(document["model"], vocabulary)
    _check_added(document.get("added_tokens"), vocabulary)
    _check_steps(document.get("normalizer"), "normalizer", _NORMALIZERS)
    _check_steps(document.get("pre_tokenizer"), "pre_tokenizer", _PRE_TOKENIZERS)
    _check_steps(document.get("decoder"), "decoder", _DECODERS)
    _check_post_processor(document.get("post_processor"), vocabulary)
    try:
        return Tokenizer.from_str(json.dumps(document))
    except Exception as error:  # the library raises bare Exception for a malformed file
        raise DataError(f"tokenizer.json cannot be read: {str(error)[:200]}.", _HINT) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the library's own, which is no Exception
            raise
        raise DataError(f"tokenizer.json contradicts itself: {str(error)[:200]}.", _HINT) from error


def _check_model(model: Mapping[str, Any], vocabulary: int) -> None:
    kind = model.get("type", "BPE")
    _require(kind in _MODELS, f"its model is {str(kind)[:40]!r}, not one of {', '.join(_MODELS)}")
    pieces = model.get("vocab")
    if kind in ("BPE", "WordLevel"):
        _require(isinstance(pieces, dict) and bool(pieces), "it has no vocabulary")
        assert isinstance(pieces, dict)
        _require(all(_is_id(number, vocabulary) for number in pieces.values()), _beyond(vocabulary))
        unknown = model.get("unk_token")
        _require(
            unknown is None or (isinstance(unknown, str) and unknown in pieces),
            "its unknown token is not in its vocabulary",
        )
    else:
        _require(isinstance(pieces, list) and bool(pieces), "it has no vocabulary")
        assert isinstance(pieces, list)
        _require(len(pieces) <= vocabulary, _beyond(vocabulary))
        _require(
            all(_is_piece(piece) for piece in pieces), "its vocabulary holds something else than pieces and scores"
        )
        unknown = model.get("unk_id")
        _require(unknown is None or _is_id(unknown, len(pieces)), "its unknown token is not in its vocabulary")


def _check_added(tokens: Any, vocabulary: int) -> None:
    _require(tokens is None or isinstance(tokens, list), "its added tokens are no list")
    for token in tokens or ():
        sound = isinstance(token, dict) and isinstance(token.get("content"), str) and bool(token["content"])
        _require(sound, "an added token has no content")
        _require(_is_id(token.get("id"), vocabulary), _beyond(vocabulary))


def _check_steps(part: Any, name: str, known: tuple[str, ...]) -> None:
    """A normalizer, pre-tokenizer or decoder: known steps, no regular expressions, bounded growth."""
    steps = _flat(part, name)
    _require(len(steps) <= _MOST_STEPS, f"its {name} has more than {_MOST_STEPS} steps")
    growth = 1.0
    for step in steps:
        kind = step.get("type")
        _require(kind in known, f"its {name} has a step {str(kind)[:40]!r}, which tokenizers of Llama do not have")
        if kind == "Replace":
            pattern, content = step.get("pattern"), step.get("content")
            literal = pattern.get("String") if isinstance(pattern, dict) else None
            _require(isinstance(literal, str) and bool(literal), f"its {name} replaces by a regular expression")
            _require(isinstance(content, str), f"its {name} replaces by something that is no text")
            assert isinstance(literal, str)
            assert isinstance(content, str)
            growth *= max(1.0, len(content) / len(literal))
        elif kind == "Prepend":
            _require(len(str(step.get("prepend"))) <= _MOST_GROWTH, f"its {name} prepends a long text")
    _require(growth <= _MOST_GROWTH, f"its {name} makes a text more than {_MOST_GROWTH} times as long")


def _flat(part: Any, name: str) -> list[Mapping[str, Any]]:
    """Steps of a sequence, which may hold sequences; nesting is bounded by the reader."""
    if part is None:
        return []
    _require(isinstance(part, dict), f"its {name} is no mapping")
    if part.get("type") != "Sequence":
        return [part]
    inner = part.get(f"{name}s")
    inner = part.get("pretokenizers") if inner is None else inner
    _require(isinstance(inner, list) and len(inner) <= _MOST_STEPS, f"its {name} has more than {_MOST_STEPS} steps")
    return [step for item in inner for step in _flat(item, name)]


def _check_post_processor(part: Any, vocabulary: int) -> None:
    """Only templates that put known tokens around a text; what else there is puts none."""
    if part is None:
        return
    _require(isinstance(part, dict), "its post-processor is no mapping")
    if part.get("type") == "ByteLevel":
        return
    _require(part.get("type") == "TemplateProcessing", "its post-processor is no template")
    tokens = part.get("special_tokens")
    _require(isinstance(tokens, dict), "its post-processor names no tokens")
    for token in tokens.values():
        ids = token.get("ids") if isinstance(token, dict) else None
        _require(isinstance(ids, list) and all(_is_id(number, vocabulary) for number in ids), _beyond(vocabulary))
    for template in (part.get("single"), part.get("pair")):
        _require(isinstance(template, list) and len(template) <= _MOST_STEPS, "its post-processor is too long")
        for item in template:
            special = item.get("SpecialToken") if isinstance(item, dict) else None
            name = special.get("id") if isinstance(special, dict) else None
            is_known = special is None or (isinstance(name, str) and name in tokens)
            _require(is_known, "its post-processor adds a token that it does not know")


def _is_id(number: Any, vocabulary: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < vocabulary


def _is_piece(piece: Any) -> bool:
    if not isinstance(piece, list) or len(piece) != 2 or not isinstance(piece[0], str):
        return False
    return isinstance(piece[1], int | float) and not isinstance(piece[1], bool) and math.isfinite(piece[1])


def _beyond(vocabulary: int) -> str:
    return f"it has ids beyond the {vocabulary:,} that the network knows"


def _require(sound: bool, problem: str) -> None:
    if not sound:
        raise DataError(f"tokenizer.json cannot be used: {problem}.", _HINT)
