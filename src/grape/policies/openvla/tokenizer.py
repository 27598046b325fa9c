"""The text tokenizer of a checkpoint."""

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from grape.core.errors import DataError, PolicyError
from grape.policies.openvla.checkpoint import CheckpointFiles
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.processor import read_tokenizer

__all__ = ["checkpoint_tokenizer"]


def checkpoint_tokenizer(files: CheckpointFiles, config: OpenVLAConfig) -> Tokenizer:
    """The tokenizer as transformers would build it from a checkpoint's side files.

    Raises:
        DataError: A side file is missing or contradicts another.
        PolicyError: It knows more tokens than the network.
    """
    if "tokenizer.json" not in files.side:
        raise DataError("The checkpoint has no tokenizer.json.", "Fetch the checkpoint again, with all its files.")
    tokenizer = read_tokenizer(files.side["tokenizer.json"], int(config.text["vocab_size"]))
    if tokenizer.get_vocab_size() > int(config.text["vocab_size"]):
        raise PolicyError(
            f"The tokenizer knows {tokenizer.get_vocab_size()} ids, the network only {config.text['vocab_size']}.",
            "Tokenizer and weights must come from the same checkpoint.",
        )
    _reset_post_processor(tokenizer, files)
    return tokenizer


def _reset_post_processor(tokenizer: Tokenizer, files: CheckpointFiles) -> None:
    """Let the begin-of-sequence token be added as ``tokenizer_config.json`` says, whatever state a trainer left.

    transformers' Llama tokenizers build their post-processor anew from that file, and so ignore a stored one.
    """
    if "tokenizer_config.json" not in files.side:
        return
    tokenizer_config = files.side_json("tokenizer_config.json")
    if not isinstance(tokenizer_config, dict) or not str(tokenizer_config.get("tokenizer_class", "")).startswith(
        "Llama"
    ):
        return
    before: list[tuple[str, int]] = []
    after: list[tuple[str, int]] = []
    for name, added, place in (("bos_token", True, before), ("eos_token", False, after)):
        token = tokenizer_config.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if tokenizer_config.get(f"add_{name}", added) and isinstance(text, str):
            number = tokenizer.token_to_id(text)
            if number is None:
                raise DataError(f"tokenizer_config.json names {text!r} as {name}; tokenizer.json has no such token.")
            place.append((text, number))
    names = [*(f"{text}:0" for text, _ in before), "$A:0", *(f"{text}:0" for text, _ in after)]
    tokenizer.post_processor = TemplateProcessing(
        single=" ".join(names), pair=f"{' '.join(names)} $B:1", special_tokens=[*before, *after]
    )
