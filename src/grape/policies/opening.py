"""Opening of policies: settings, names, the Hugging Face hub, and facts from a checkpoint's configuration.

No PyTorch here. A download takes weights as safetensors, JSON and tokenizer files, and the three Python files that
published checkpoints carry for other programs: those travel along into exports and are never run here. What was
downloaded once is found again without a network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from grape.core.errors import DataError, SettingsError
from grape.core.files import read_json
from grape.core.repositories import HubName, fetch_snapshot, parse_hub_name, read_hub_name
from grape.core.settings import setting
from grape.policies.kinds import FACTS_FILE, PART_PATTERNS, CheckpointKind, recognize_checkpoint
from grape.policies.types import OpeningOptions

__all__ = [
    "ConventionSettings",
    "HubName",
    "PolicySettings",
    "PrecisionSettings",
    "check_policy_name",
    "crop_of",
    "opening_options",
    "parse_hub_name",
    "read_checkpoint_config",
    "read_checkpoint_kind",
    "read_norm_stats",
    "resolve_policy",
]

_GROUP = "Policy and hardware"
_CHUNKS = "Policies that decide in chunks (OpenVLA-OFT)"
_SECONDS_TO_ANSWER = 10  # for the hub, when it is asked for the names of files


@dataclass(frozen=True)
class PrecisionSettings:
    """Where and how precisely a network computes.

    Attributes:
        device: Where to compute: auto takes a GPU if there is one, else cpu; or cuda, cuda:1.
        dtype: What weights are held and computed in: auto is float32 on a CPU, else as stored. Adapters are
            float32 always.
        attention: Attention of the language model: sdpa, flash-attention-2 (needs flash-attn and a GPU) or eager.
        load_in_4bit: Hold the language model in 4 bits; needs bitsandbytes and a GPU.
    """

    device: str = setting("auto", group=_GROUP, identity=False, common=True)
    dtype: Literal["auto", "float32", "bfloat16"] = setting("auto", group=_GROUP)
    attention: Literal["sdpa", "flash-attention-2", "eager"] = setting("sdpa", group=_GROUP)
    load_in_4bit: bool = setting(False, group=_GROUP)


@dataclass(frozen=True)
class ConventionSettings:
    """How a checkpoint of OpenVLA-OFT is meant, as far as it does not say so itself.

    Attributes:
        preset: How OpenVLA-OFT is run: openvla-oft, simplevla-rl or rlinf. It says, too, that the checkpoint is
            OpenVLA-OFT's, where its files do not. Empty takes what the checkpoint says of itself.
        chunk: Actions a decision, where the checkpoint does not say: 25 for 14 dimensions, else 8.
        convention: Single conventions that differ from the preset's, e.g. attention=causal, stop-row=removed,
            temperature=1.
    """

    preset: str = setting("", group=_CHUNKS, identity="unless default")
    chunk: int | None = setting(None, group=_CHUNKS, identity="unless default")
    convention: tuple[str, ...] = setting((), group=_CHUNKS, identity="unless default")


@dataclass(frozen=True)
class PolicySettings(ConventionSettings, PrecisionSettings):
    """How a checkpoint is opened.

    Attributes:
        unnorm_key: Normalization statistics to use, for checkpoints that hold several; empty picks the only one.
        center_crop: Crop 90 % of the image's area from the middle before the policy sees it, as policies trained with
            random crops need (OpenVLA's LIBERO fine-tunes do): yes, no, or auto for what the checkpoint says (nothing
            means no).
    """

    unnorm_key: str = setting("", group=_GROUP, common=True)
    center_crop: Literal["auto", "yes", "no"] = setting("auto", group=_GROUP, common=True)


def crop_of(center_crop: str) -> bool | None:
    """Whether images are cropped, as loaders of policies take it; None for what the checkpoint says."""
    return None if center_crop == "auto" else center_crop == "yes"


def opening_options(settings: PolicySettings, **changes: Any) -> OpeningOptions:
    """How a verb's settings say that a policy is opened.

    Args:
        settings: What the verb was told.
        changes: Options that it decides itself.
    """
    options = OpeningOptions(
        unnorm_key=settings.unnorm_key,
        center_crop=crop_of(settings.center_crop),
        device=settings.device,
        dtype=settings.dtype,
        attention=settings.attention,
        load_in_4bit=settings.load_in_4bit,
        preset=settings.preset,
        convention=settings.convention,
        chunk=settings.chunk,
    )
    return replace(options, **changes)


def read_norm_stats(path: Path | None) -> Mapping[str, Any] | None:
    """Statistics by data set from a ``dataset_statistics.json``; None where there is no file to read.

    Raises:
        DataError: The file is missing or no JSON, or an entry lacks what normalization needs.
    """
    from grape.policies.openvla.action_tokens import ActionNorm

    if path is None:
        return None
    data = read_json(path)
    if not isinstance(data, dict) or not data:
        raise DataError(f"{path} holds no statistics by data set.", "Give a dataset_statistics.json.")
    for name, stats in data.items():
        ActionNorm.from_stats(stats, f"{path}, {name}")
    return data


def check_policy_name(policy: Path | str, flag: str = "--policy") -> None:
    """Refuse what is neither a folder nor could be a name on the hub; nothing is opened.

    Args:
        policy: What the user wrote.
        flag: How it was given, for the message.

    Raises:
        SettingsError: There is no such folder.
    """
    path = Path(policy)
    if path.is_dir() or parse_hub_name(policy) is not None:
        return
    if path.exists():
        raise SettingsError(f"{flag} {policy} is a file.", "Give the checkpoint's folder.")
    hint = "Give a folder made by 'grape sft' or 'grape train' (its policy/ folder), or a published checkpoint's."
    if (named := read_hub_name(policy)) is not None:
        hint += f" For the hub, write hf://{named.repository}: there is a folder {path.parent} here."
    raise SettingsError(f"{flag} {policy}: no such checkpoint folder.", hint)


def resolve_policy(policy: Path | str, *, weights: bool = True, parts: bool = False) -> Path:
    """The folder of a policy.

    Args:
        weights: Whether weights are needed; without, only configuration, side files and ``parts`` are fetched.
        parts: Whether parts of the network in files of their own are fetched, too, as OpenVLA-OFT has them; else a
            checkpoint with such parts is refused.
        policy: A folder, or a name on the hub: ``organization/name`` or ``organization/name@revision``. A folder of
            that name wins; ``hf://`` before it means the hub in any case.

    Returns:
        The folder; for a name, the snapshot in the cache of ``huggingface_hub`` (``HF_HOME`` says where).

    Raises:
        SettingsError: There is no such folder, or the hub does not give it: offline and not in the cache, unknown,
            or access is refused.
    """
    from grape.policies.openvla.checkpoint import SIDE_FILES, check_parts

    check_policy_name(policy, "Policy")
    name = parse_hub_name(policy)
    if name is None:
        return Path(policy)
    # The small files first: a checkpoint of another kind is refused before gigabytes are on their way.
    folder = fetch_snapshot(name, ["*.json", *SIDE_FILES])
    if not weights:
        return fetch_snapshot(name, ["*.json", *SIDE_FILES, *PART_PATTERNS]) if parts else folder
    if not parts:
        check_parts(_file_names(name, folder))
    return fetch_snapshot(name, ["*.safetensors", "*.json", *SIDE_FILES, *(PART_PATTERNS if parts else ())])


def read_checkpoint_config(policy: Path | str) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """Configuration of a checkpoint and the names of its files; no weights are read or downloaded.

    For an adapter these are its base's, with the conventions that its own pointer states.

    Args:
        policy: As for :func:`resolve_policy`.

    Returns:
        Content of ``config.json`` with ``grape.json`` under ``grape``, None where there is none (no policy); and the
        names.

    Raises:
        SettingsError: There is no such policy.
        DataError: The configuration is damaged, or an adapter does not say which policy it belongs to.
    """
    from grape.policies.openvla.adapter_pointer import read_pointer

    folder, name = resolve_policy(policy, weights=False), parse_hub_name(policy)
    pointer = read_pointer(folder)
    if pointer is not None:
        folder, name = pointer.base, pointer.hub
    names = _file_names(name, folder) if name is not None else [entry.name for entry in folder.iterdir()]
    if not (folder / "config.json").is_file():
        return None, tuple(names)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise DataError(f"{folder / 'config.json'} holds no JSON object.", "Copy or download this file again.")
    if (folder / FACTS_FILE).is_file() and "grape" not in config:
        config["grape"] = read_json(folder / FACTS_FILE)
    if pointer is not None and pointer.oft is not None:
        config["grape"] = {**config.get("grape", {}), "oft": pointer.oft}
    return config, tuple(names)


def read_checkpoint_kind(policy: Path | str) -> CheckpointKind:
    """What a checkpoint of OpenVLA's family is.

    An adapter is of its base's kind, unless its own pointer states that it is run as OpenVLA-OFT.

    Args:
        policy: As for :func:`resolve_policy`.

    Raises:
        SettingsError: There is no such policy, or it is of a kind that is not run.
        DataError: The configuration is damaged, or an adapter does not say which policy it belongs to.
    """
    config, names = read_checkpoint_config(policy)
    return CheckpointKind("openvla") if config is None else recognize_checkpoint(config, names, str(policy))


def _file_names(name: HubName, folder: Path) -> list[str]:
    """Names of all files of a checkpoint on the hub; where it cannot be asked, of those in the cache."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    unreachable = HfHubHTTPError.__bases__  # what the library's HTTP client raises, too
    try:
        # Not by list_repo_files, which asks again for 23 seconds where there is no network.
        files = HfApi().model_info(name.repository, revision=name.revision, timeout=_SECONDS_TO_ANSWER).siblings
    except unreachable:
        return [entry.name for entry in folder.iterdir()]
    return [PurePosixPath(file.rfilename).name for file in files or ()]
