"""Repositories of the Hugging Face hub: their names, and snapshots in the cache of ``huggingface_hub``.

Models are named ``organization/name`` or ``organization/name@revision``, with or without ``hf://`` before it; data sets
(episode stores, pairs) always with it. Nothing that is fetched is run. What was downloaded is found again without a
network. ``HF_HOME`` says where the cache is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from grape.core.errors import SettingsError
from grape.core.remote.addresses import remote_address
from grape.core.remote.mirror_names import address_in_mirror
from grape.core.remote.publishing import mirrored_folder
from grape.core.settings_values import with_values

__all__ = [
    "DATA_FILES",
    "HubName",
    "RepositoryKind",
    "address_in_cache",
    "cached_model",
    "fetch_snapshot",
    "hub_address",
    "is_address",
    "local_folder",
    "parse_hub_name",
    "pinned_settings",
    "read_hub_name",
]

RepositoryKind = Literal["model", "dataset"]

DATA_FILES = (
    "store.json",
    "episodes/*.parquet",
    "packs/*.zip",
    "pairs.jsonl",
    "run.json",
    "done.json",
    "store/store.json",
    "store/episodes/*.parquet",
    "store/packs/*.zip",
)
"""What is fetched of a data set, as patterns: an episode store, or pairs with theirs."""

T = TypeVar("T")

_NAME_PATTERN = re.compile(
    r"^(?:hf:/{1,2})?"
    r"(?P<repository>[A-Za-z0-9](?:[\w.-]*\w)?/[A-Za-z0-9](?:[\w.-]*\w)?)"
    r"(?:@(?P<revision>[\w./-]+))?$",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CACHED = re.compile(
    r"/(?:model|dataset)s--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)/snapshots/(?P<commit>[0-9a-f]{40})(?:/store)?$",
    re.ASCII,
)

_MODEL_SETTINGS = frozenset({"policy"})
_DATA_SETTINGS = frozenset({"collection", "data", "pairs", "replay", "store"})


@dataclass(frozen=True)
class HubName:
    """A repository of the hub.

    Attributes:
        repository: ``organization/name``.
        revision: Branch, tag or commit; None for the newest.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    @property
    def address(self) -> str:
        """The name that can only mean the hub: ``hf://organization/name``."""
        return f"hf://{self}"


def read_hub_name(text: Path | str) -> HubName | None:
    """The name that a text is, with or without ``hf://``, whatever folders there are; None where it is none."""
    match = _NAME_PATTERN.match(str(text))
    return None if match is None or ".." in match["repository"] else HubName(match["repository"], match["revision"])


def parse_hub_name(policy: Path | str) -> HubName | None:
    """The hub name that the user wrote, or None where it can only be a folder.

    ``organization/name`` and ``organization/name@revision`` are names, unless there is a folder ``organization`` here:
    then it is a path, mistyped perhaps, and ``hf://organization/name`` says otherwise.

    Args:
        policy: What the user wrote.
    """
    name = read_hub_name(policy)
    if name is None or str(policy).startswith("hf:/"):
        return name
    return None if Path(policy).exists() or Path(policy).parent.exists() else name


def hub_address(text: Path | str, *, what: str = "") -> HubName | None:
    """The repository that ``hf://organization/name[@revision]`` names; None for anything that begins otherwise.

    ``hf:/`` is the same: paths hold no double slash.

    Args:
        text: What the user wrote.
        what: What messages call it, e.g. ``"--store"``; empty for nothing.

    Raises:
        SettingsError: It begins with ``hf:/`` and goes on as no name.
    """
    if not str(text).startswith("hf:/"):
        return None
    name = read_hub_name(text)
    if name is None:
        raise SettingsError(
            f"{what + ' ' if what else ''}{text} names no repository of the hub.",
            "Write hf://NAMESPACE/NAME or hf://NAMESPACE/NAME@REVISION.",
        )
    return name


def local_folder(path: Path | str) -> Path:
    """The folder of an episode store or of pairs: the path itself, or what an address names.

    That is the snapshot of ``hf://...``, or the mirror of ``s3://...`` and the like.

    Raises:
        SettingsError: The name is none, or the hub does not give it; see :func:`fetch_snapshot`.
        GrapeError: Another address cannot be reached; see :func:`grape.core.remote.publishing.mirrored_folder`.
    """
    name = hub_address(path)
    if name is not None:
        return fetch_snapshot(name, DATA_FILES, "dataset")
    remote = remote_address(path)
    return Path(path) if remote is None else mirrored_folder(remote)


def is_address(path: Path | str) -> bool:
    """Whether this names a repository of the hub or a folder on another machine rather than one here."""
    return hub_address(path) is not None or remote_address(path) is not None


def address_in_cache(folder: Path) -> str:
    """The address of a snapshot or mirror in the cache, or of the store in one; else empty.

    That of a snapshot is ``hf://organization/name@commit``.
    """
    match = _CACHED.search(folder.absolute().as_posix())
    return (
        address_in_mirror(folder)
        if match is None
        else HubName(f"{match['owner']}/{match['name']}", match["commit"]).address
    )


def pinned_settings(settings: T) -> T:
    """The settings with every ``hf://organization/name`` pinned to its commit, which is what a run then records.

    Policies and data are found by the names of their fields, at any depth. Names without ``hf://`` stay as they are.

    Raises:
        SettingsError: A name is none, or the hub does not give it.
    """
    return with_values(settings, _pinned)


def _pinned(setting: str, value: Any) -> Any:
    if setting not in _MODEL_SETTINGS | _DATA_SETTINGS or not isinstance(value, str | Path):
        return value
    name = hub_address(value, what=f"--{setting}")
    if name is None or _COMMIT.fullmatch(name.revision or ""):
        return value
    kind: RepositoryKind = "model" if setting in _MODEL_SETTINGS else "dataset"
    folder = fetch_snapshot(name, DATA_FILES if kind == "dataset" else ("*.json",), kind)
    return type(value)(HubName(name.repository, folder.name).address) if _COMMIT.fullmatch(folder.name) else value


def cached_model(name: HubName) -> Path | None:
    """Folder of a model's cached snapshot, complete or not, if it holds a configuration at least."""
    from huggingface_hub import try_to_load_from_cache

    cached_file = try_to_load_from_cache(name.repository, "config.json", revision=name.revision)
    cached_file = cached_file or try_to_load_from_cache(name.repository, "adapter_config.json", revision=name.revision)
    return Path(cached_file).parent if isinstance(cached_file, str) else None


def fetch_snapshot(name: HubName, patterns: Sequence[str], kind: RepositoryKind = "model") -> Path:
    """The files of a repository, from the hub or the cache.

    Args:
        name: The repository.
        patterns: Which files; of a model those of its uppermost folder only.
        kind: What the repository is on the hub.

    Returns:
        The snapshot's folder in the cache; its name is the commit.

    Raises:
        SettingsError: The hub does not give it: offline and not in the cache, unknown, or access is refused.
    """
    model = kind == "model"
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{name} is no folder here, and names on the hub need huggingface_hub.", "pip install 'grape-vla[hub]'"
        ) from error
    options: dict[str, Any] = {"ignore_patterns": ["*/*"]} if model else {"repo_type": kind}
    try:
        return Path(
            snapshot_download(name.repository, revision=name.revision, allow_patterns=list(patterns), **options)
        )
    except GatedRepoError as error:
        hint = "Accept its conditions on its page, then run 'hf auth login' (the token stays with huggingface_hub)."
        raise SettingsError(f"The hub does not give {name}: access must be granted first.", hint) from error
    except RevisionNotFoundError as error:
        raise SettingsError(f"{name.repository} has no revision {name.revision!r}.", "Check the name.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SettingsError(
            f"{name} is neither a folder here nor a {'checkpoint' if model else 'data set'} on the hub.",
            "Check the spelling; a private one needs 'hf auth login' first.",
        ) from error
    except LocalEntryNotFoundError as error:
        # The library wants all files of the snapshot; what the policy needs is checked where it is read.
        if model and (folder := cached_model(name)) is not None:
            return folder
        command = f"hf download {name.repository}{'' if model else ' --repo-type dataset'}"
        raise SettingsError(
            f"{name} is no folder here, is not {'' if model else 'whole '}in the cache, and the hub cannot be reached.",
            f"Run '{command}' where there is a network, copy the folder here, and give its path.",
        ) from error
    except (EntryNotFoundError, HfHubHTTPError, OSError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise SettingsError(
            f"{name} could not be downloaded: {first_line}.", "Run the same command again: it goes on where it stopped."
        ) from error
