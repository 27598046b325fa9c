"""The verb ``push``: write the folder with its card, then give it to the hub."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grape import __version__
from grape.core.atomic_folders import atomic_folder
from grape.core.errors import CompatibilityError, GrapeError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.files import file_hash, read_json, write_text
from grape.core.repositories import HubName, read_hub_name
from grape.core.settings import check_ranges
from grape.hub.disclosure import check_tokens, with_local_paths
from grape.hub.evidence import Evidence, read_evidence
from grape.hub.parcel import Parcel, read_parcel
from grape.hub.repository_card import CARD, card_text, opening_command
from grape.hub.settings import PushSettings
from grape.hub.upload import MANIFEST, Hub, HubUnreachableError, has_token, open_hub, upload

__all__ = ["run_push"]

_HOME = Path("runs") / "push"


def run_push(settings: PushSettings, reporter: Reporter = SILENT, *, hub: Hub | None = None) -> Mapping[str, Any]:
    """Write what is pushed into a folder, and push it.

    Args:
        settings: What and where to.
        reporter: Hears of progress and warnings.
        hub: In place of the real one; it needs no token.

    Returns:
        ``what``, ``to``, ``kind`` (model or dataset), ``folder``, ``files``, ``bytes``, ``left_out``, ``pushed``,
        ``open`` (the command that opens it), and once it is pushed ``commit`` and ``url``. Of a dry run ``files`` are
        names.

    Raises:
        SettingsError: There is nothing of that kind, a name is none, or the hub refuses.
        DataError: What would be pushed is not complete, or damaged.
        CompatibilityError: ``out``, or the repository, holds something else.
        GrapeError: The disk is full or cannot be written.
    """
    check_ranges(settings)
    name = read_hub_name(settings.to)
    if name is None or name.revision is not None:
        raise SettingsError(f"--to {settings.to} is no repository.", "Write NAMESPACE/NAME, e.g. my-lab/carrot-7b.")
    for data in (*settings.datasets, *([settings.base] if settings.base else [])):
        if read_hub_name(data) is None:
            raise SettingsError(f"{data} is no name on the hub.", "Write NAMESPACE/NAME.")
    parcel = read_parcel(settings)
    check_tokens(parcel.files)
    evidence = read_evidence(parcel, settings.evaluations)
    out = settings.out or _HOME / name.repository
    size = sum(len(item.encode()) if isinstance(item, str) else item.stat().st_size for item in parcel.files.values())
    summary: dict[str, Any] = {"what": parcel.what, "to": name.repository, "kind": parcel.kind, "folder": str(out)}
    left_out = {"left_out": list(parcel.left_out)}
    if settings.dry_run:
        names = sorted([*parcel.files, CARD, MANIFEST])
        return {"dry_run": True, **summary, "files": names, "bytes": size, **left_out}
    _warn(settings, parcel, reporter)
    _write(settings, parcel, evidence, name, out, reporter)
    summary |= {"files": len(parcel.files) + 2, "bytes": size, **left_out}
    commit = _push(settings, parcel, name, out, reporter, hub)
    if not commit:
        return {**summary, "pushed": False, "open": opening_command(parcel.what, name, evidence)}
    address = f"https://huggingface.co/{'datasets/' * (parcel.kind == 'dataset')}{name.repository}"
    pinned = HubName(name.repository, commit)
    opened = opening_command(parcel.what, pinned, evidence)
    return {**summary, "pushed": True, "commit": commit, "url": address, "open": opened}


def _warn(settings: PushSettings, parcel: Parcel, reporter: Reporter) -> None:
    for sentence in parcel.cautions:
        reporter.warn(sentence)
    if not settings.license:
        reporter.warn("No --license: the card names none, so nobody knows what may be done with it.")
    if parcel.left_out:
        reporter.warn(f"Not pushed, as it does not belong to the {parcel.what}: {', '.join(parcel.left_out)}.")
    if paths := with_local_paths(parcel.files):
        reporter.warn(f"Folders of this machine are named in {', '.join(paths)}: look at it before it is public.")


def _write(
    settings: PushSettings, parcel: Parcel, evidence: Evidence, name: HubName, out: Path, reporter: Reporter
) -> None:
    """Write the folder that is pushed; an older one of the same repository is replaced."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        before = read_json(out / MANIFEST, within=out) if (out / MANIFEST).is_file() else None
        if not isinstance(before, dict) or before.get("to") != name.repository:
            raise CompatibilityError(f"{out} holds something else.", "Choose another --out, or delete that folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(out) as folder:
        hashes = {}
        with reporter.progress("files", len(parcel.files)) as progress:
            for file, source in sorted(parcel.files.items()):
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(source, str):
                    write_text(target, source)
                else:
                    _place(source, target)
                hashes[file] = file_hash(target)
                progress.advance(1, file)
        write_text(folder / CARD, card_text(settings, parcel, evidence, name, hashes))
        manifest = {"format": 1, "what": parcel.what, "to": name.repository, "grape": __version__, "files": hashes}
        write_text(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def _place(source: Path, target: Path) -> None:
    """A hard link to a file, or a copy where there can be none."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _push(settings: PushSettings, parcel: Parcel, name: HubName, out: Path, reporter: Reporter, hub: Hub | None) -> str:
    """Push the folder; the commit, or empty where that was not possible, which is told with how it is done later."""
    kind = "" if parcel.kind == "model" else " --repo-type dataset"
    later = f"The folder is {out}. To push it: the same command, or 'hf upload {name.repository} {out} .{kind}'."
    if settings.offline:
        reporter.info(f"Nothing was pushed (--offline). {later}")
        return ""
    if hub is None and not has_token():
        reporter.warn(f"Nothing was pushed: there is no token in HF_TOKEN, nor from 'hf auth login'. {later}")
        return ""
    try:
        return upload(
            hub or open_hub(),
            name.repository,
            parcel.kind,
            out,
            what=parcel.what,
            private=settings.private,
            reporter=reporter,
        )
    except HubUnreachableError as error:
        reporter.warn(f"Nothing was pushed. {error.message} {later}")
        return ""
    except GrapeError as error:
        raise type(error)(f"{error.message} {later}", error.hint) from error
