"""Giving a folder to the hub: one commit on top of what the repository holds."""

from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol

from grape.core.errors import CompatibilityError, GrapeError, SettingsError
from grape.core.events import Reporter
from grape.core.packages import load_package
from grape.core.reading import parse_json, read_file
from grape.core.repositories import DATA_FILES, RepositoryKind
from grape.hub.disclosure import without_token

__all__ = ["MANIFEST", "Hub", "HubUnreachableError", "has_token", "open_hub", "upload"]

MANIFEST = "grape_push.json"
_ALWAYS = frozenset({"README.md", ".gitattributes", MANIFEST})
_READ = {"model": ("*.safetensors", "*.json"), "dataset": DATA_FILES}
"""Files of a repository that are read as parts of what it holds."""
_MOST_MANIFEST_BYTES = 2**28


class HubUnreachableError(GrapeError):
    """The hub cannot be reached from here."""


class Hub(Protocol):
    """What is asked of ``huggingface_hub.HfApi``."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool | None, exist_ok: bool) -> Any:
        """Make a repository."""

    def repo_info(self, repo_id: str, *, repo_type: str) -> Any:
        """Facts of one, ``private`` among them."""

    def list_repo_files(self, repo_id: str, *, repo_type: str) -> list[str]:
        """Names of its files."""

    def hf_hub_download(self, repo_id: str, filename: str, *, repo_type: str) -> str:
        """Path of one of its files in the cache."""

    def upload_folder(self, *, repo_id: str, folder_path: str, repo_type: str, **options: Any) -> Any:
        """Commit a folder's files; the commit's hash is ``oid``."""


def open_hub() -> Hub:
    """The hub.

    Raises:
        SettingsError: huggingface_hub is not installed.
    """
    hub: Hub = load_package("huggingface_hub", "Pushing needs huggingface_hub", "hub").HfApi()
    return hub


def has_token() -> bool:
    """Whether the library finds a token: in HF_TOKEN, or where 'hf auth login' put it."""
    package = load_package("huggingface_hub", "Pushing needs huggingface_hub", "hub")
    return bool(package.get_token())


def upload(
    hub: Hub, repository: str, kind: RepositoryKind, folder: Path, *, what: str, private: bool, reporter: Reporter
) -> str:
    """Push a folder as one commit; what another push of this verb has left there and is no more, goes.

    Args:
        hub: The hub.
        repository: ``namespace/name``.
        kind: What the repository is.
        folder: What to push, whole.
        what: What it holds, for the commit's message.
        private: Whether a new repository is private.
        reporter: Hears of what is there already.

    Returns:
        Hash of the commit.

    Raises:
        SettingsError: The hub refuses, or a public repository is there and a private one is meant.
        CompatibilityError: The repository holds files of something else that would be read with these.
        HubUnreachableError: There is no network, or the hub does not answer.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    transport = tuple(base for base in HfHubHTTPError.__bases__ if base is not Exception)
    try:
        hub.create_repo(repository, repo_type=kind, private=private or None, exist_ok=True)
        if private and not hub.repo_info(repository, repo_type=kind).private:
            raise SettingsError(
                f"{repository} is there already, and public.", "Make it private on its page, or choose another --to."
            )
        stale = _look_at(hub, repository, kind, folder, reporter)
        commit = hub.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            repo_type=kind,
            commit_message=f"Push {what} by grape push",
            **({"delete_patterns": stale} if stale else {}),
        )
    except HFValidationError as error:
        raise SettingsError(f"{repository} is no name of a repository.", "Write NAMESPACE/NAME.") from error
    except HfHubHTTPError as error:
        raise _refused(repository, error) from None
    except (*transport, OfflineModeIsEnabled, OSError) as error:
        reason = without_token((str(error).splitlines() or [type(error).__name__])[0])
        raise HubUnreachableError(f"The hub cannot be reached: {reason}.", "Push where there is a network.") from None
    return str(commit.oid)


def _refused(repository: str, error: Any) -> SettingsError | HubUnreachableError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = without_token((str(error).splitlines() or [type(error).__name__])[0])
    if status in (401, 403):
        return SettingsError(
            f"The hub refuses to write to {repository} (status {status}): {reason}",
            "Give a token with write access to that namespace in HF_TOKEN, or run 'hf auth login'.",
        )
    if isinstance(status, int) and status < 500:
        return SettingsError(f"The hub refuses {repository} (status {status}): {reason}", "Check --to and the license.")
    return HubUnreachableError(f"The hub does not answer properly: {reason}", "Push again later: nothing is half done.")


def _look_at(hub: Hub, repository: str, kind: RepositoryKind, folder: Path, reporter: Reporter) -> list[str]:
    """Files of an earlier push that are no more part of the thing; tells what is there."""
    there = set(hub.list_repo_files(repository, repo_type=kind))
    new = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    before = _pushed_before(hub, repository, kind) if MANIFEST in there else set()
    others = there - new - before - _ALWAYS
    mixed = sorted(name for name in others if any(fnmatch(name, pattern) for pattern in _READ[kind]))
    if mixed:
        raise CompatibilityError(
            f"{repository} holds files of something else that would be read together with these: "
            f"{', '.join(mixed[:3])}{f' and {len(mixed) - 3} more' if len(mixed) > 3 else ''}.",
            "Choose another --to, or delete them there.",
        )
    if there - {".gitattributes"}:
        replaced, stay = len(there & new), len(others)
        reporter.warn(
            f"{repository} holds {len(there)} files already: a commit on top replaces {replaced} of them"
            f"{f' and leaves {stay} of others as they are' if stay else ''}; earlier commits stay."
        )
    return sorted((before & there) - new)


def _pushed_before(hub: Hub, repository: str, kind: RepositoryKind) -> set[str]:
    path = Path(hub.hf_hub_download(repository, MANIFEST, repo_type=kind))
    data = parse_json(read_file(path, max_bytes=_MOST_MANIFEST_BYTES), f"{MANIFEST} of {repository}")
    files: Mapping[str, Any] = data.get("files", {}) if isinstance(data, dict) else {}
    return {str(name) for name in files}
