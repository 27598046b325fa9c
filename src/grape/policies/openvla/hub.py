"""From what a user calls a policy to a folder: local ones first, else a snapshot from the Hugging Face hub.

A download takes weights as safetensors, JSON and tokenizer files, and the three Python files that published
checkpoints carry for other programs: those travel along into exports and are never run here. What was downloaded once
is found again without a network.
"""

from pathlib import Path, PurePosixPath

from grape.core.errors import SettingsError
from grape.policies.names import HubName, check_policy_name, parse_hub_name
from grape.policies.openvla.checkpoint import SIDE_FILES, check_parts

__all__ = ["resolve_policy"]


def resolve_policy(policy: Path | str, *, weights: bool = True) -> Path:
    """The folder of a policy.

    Args:
        weights: Whether weights are needed; without, only configuration and side files are fetched.
        policy: A folder, or a name on the hub: ``organisation/name`` or ``organisation/name@revision``. A folder of
            that name wins; ``hf://`` before it means the hub in any case.

    Returns:
        The folder; for a name, the snapshot in the cache of ``huggingface_hub`` (``HF_HOME`` says where).

    Raises:
        SettingsError: There is no such folder, or the hub does not give it: offline and not in the cache, unknown,
            or access is refused.
    """
    check_policy_name(policy, "Policy")
    name = parse_hub_name(policy)
    if name is None:
        return Path(policy)
    # The small files first: a checkpoint of another kind is refused before gigabytes are on their way.
    folder = _snapshot(name, ["*.json", *SIDE_FILES])
    if not weights:
        return folder
    check_parts(_names(name, folder))
    return _snapshot(name, ["*.safetensors", "*.json", *SIDE_FILES])


def _names(name: HubName, folder: Path) -> list[str]:
    """Names of all files of a checkpoint on the hub; where it cannot be asked, of those in the cache."""
    from huggingface_hub import list_repo_files
    from huggingface_hub.errors import HfHubHTTPError

    unreachable = HfHubHTTPError.__bases__  # what the library's HTTP client raises, too
    try:
        return [PurePosixPath(path).name for path in list_repo_files(name.repository, revision=name.revision)]
    except unreachable:
        return [entry.name for entry in folder.iterdir()]


def _cached(name: HubName) -> Path | None:
    """Folder of the cached snapshot, complete or not, if it holds a configuration at least."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name.repository, "config.json", revision=name.revision)
    found = found or try_to_load_from_cache(name.repository, "adapter_config.json", revision=name.revision)
    return Path(found).parent if isinstance(found, str) else None


def _snapshot(name: HubName, patterns: list[str]) -> Path:
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
            f"{name} is no folder here, and names on the hub need huggingface_hub.", "pip install 'grape-vla[train]'"
        ) from error
    try:
        return Path(
            snapshot_download(
                name.repository,
                revision=name.revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],
            )
        )
    except GatedRepoError as error:
        hint = "Accept its conditions on its page, then run 'hf auth login' (the token stays with huggingface_hub)."
        raise SettingsError(f"The hub does not give {name}: access must be granted first.", hint) from error
    except RevisionNotFoundError as error:
        raise SettingsError(f"{name.repository} has no revision {name.revision!r}.", "Check the name.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SettingsError(
            f"{name} is neither a folder here nor a checkpoint on the hub.",
            "Check the spelling; a private one needs 'hf auth login' first.",
        ) from error
    except LocalEntryNotFoundError as error:
        # The library wants all files of the snapshot; what the policy needs is checked where it is read.
        if (folder := _cached(name)) is not None:
            return folder
        raise SettingsError(
            f"{name} is no folder here, is not in the cache, and the hub cannot be reached.",
            f"Run 'hf download {name.repository}' where there is a network, copy the folder here, and give its path.",
        ) from error
    except (EntryNotFoundError, HfHubHTTPError, OSError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise SettingsError(
            f"{name} could not be downloaded: {first_line}.", "Run the same command again: it goes on where it stopped."
        ) from error
