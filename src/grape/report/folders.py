"""Run folders of verbs inside a run, finished or not.

A run is recognized by what its folders hold, not by how the loop names them, so a page can also be made of a single
collection, of scores and pairs written by hand, or of a loop that stopped half way.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import GrapeError
from grape.core.files import read_json
from grape.core.runs import GIVEN_DATA, read_run_settings

__all__ = ["Folder", "Round", "find_folders", "group_rounds", "is_demonstrations", "natural", "round_label"]

# What a verb's folder holds once it has something to show.
PRODUCTS = {
    "collect": "store",
    "score": "scores.jsonl",
    "pair": "pairs.jsonl",
    "train": "metrics.jsonl",
    "sft": "metrics.jsonl",
    "evaluate": "results.json",
    "compare": "comparison.json",
}
_CLOSED = {"store", "policy", "checkpoints", "episodes"}  # large folders without verbs inside
_DEPTH = 4


@dataclass(frozen=True)
class Folder:
    """A folder that a verb wrote or is writing.

    Attributes:
        path: The folder.
        name: Its path within the run, ``"."`` for the run itself.
        verb: Which verb wrote it.
        complete: Whether the verb finished.
        product: Whether what it makes is there, at least in part.
        settings: What the verb was told, as recorded.
    """

    path: Path
    name: str
    verb: str
    complete: bool
    product: bool
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Round:
    """Folders that belong together: one iteration, or a single set.

    Attributes:
        label: For people, e.g. ``"iteration 2"``.
        name: The folder they lie in, within the run.
        collect: Rollouts.
        score: Scores.
        pair: Pairs.
        train: Training.
        evaluate: Evaluation.
    """

    label: str
    name: str
    collect: Folder | None = None
    score: Folder | None = None
    pair: Folder | None = None
    train: Folder | None = None
    evaluate: Folder | None = None


def natural(text: str) -> tuple[tuple[int, str | int], ...]:
    """Key that sorts ``iteration-2`` before ``iteration-10``."""
    parts = re.split(r"(\d+)", text)
    return tuple((1, int(part)) if part.isdecimal() else (0, part) for part in parts if part)


def find_folders(root: Path) -> tuple[Folder, ...]:
    """All folders of verbs in ``root``, ``root`` included, in natural order of their names."""
    return tuple(sorted(_walk(root, root, 0), key=lambda folder: natural(folder.name)))


def _walk(root: Path, path: Path, depth: int) -> Iterator[Folder]:
    folder = _recognize(root, path)
    if folder is not None:
        yield folder
    # An evaluation keeps its own rollouts inside; no policy was trained on them.
    if depth == _DEPTH or (folder is not None and folder.verb == "evaluate"):
        return
    try:
        entries = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink())
    except OSError:
        return
    for entry in entries:
        if entry.name not in _CLOSED and not entry.name.startswith("."):
            yield from _walk(root, entry, depth + 1)


def _recognize(root: Path, path: Path) -> Folder | None:
    marker: Mapping[str, Any] = {}
    if (path / "run.json").is_file():
        try:
            data = read_json(path / "run.json", within=path)
            marker = data if isinstance(data, dict) else {}
        except GrapeError:
            marker = {}
    verb = str(marker.get("verb", "")) or _guess(path)
    if verb not in PRODUCTS:
        return None
    return Folder(
        path=path,
        name=path.relative_to(root).as_posix(),
        verb=verb,
        complete=(path / "done.json").is_file() or not marker,
        product=(path / PRODUCTS[verb]).exists(),
        settings=_settings(path),
    )


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        data = read_run_settings(path)
    except GrapeError:
        return {}
    return data if isinstance(data, dict) else {}


def _guess(path: Path) -> str:
    """Verb of a folder without ``run.json``, from its files."""
    if (path / "metrics.jsonl").is_file():
        return "sft" if "sft" in path.name.lower() else "train"
    for verb, product in PRODUCTS.items():
        if (path / product).exists():
            return verb
    return ""


def is_demonstrations(folder: Folder) -> bool:
    """Whether a collection holds demonstrations of experts rather than rollouts of a policy."""
    policy = folder.settings.get("policy")
    return policy == "expert" if policy is not None else "demo" in folder.path.name.lower()


def group_rounds(folders: tuple[Folder, ...]) -> tuple[Round, ...]:
    """Rollouts, scores, pairs and training that belong together.

    That is one round a parent folder, where each verb wrote one folder in it. Where a verb wrote several side by side,
    each training, pairing, scoring and collection goes with what it says it was made from, and with nothing else.
    """
    groups: dict[str, dict[str, list[Folder]]] = {}
    trainings = {folder.path: folder.name for folder in folders if folder.verb == "train"}
    for folder in folders:
        if folder.verb not in ("sft", "compare"):
            groups.setdefault(_parent(folder, trainings), {}).setdefault(folder.verb, []).append(folder)
    rounds = []
    for parent in sorted(groups, key=natural):
        members = groups[parent]
        # Episodes of experts are demonstrations, unless they were scored and paired.
        if not {"score", "pair"} & set(members):
            members["collect"] = [item for item in members.get("collect", ()) if not is_demonstrations(item)]
        chained = {verb: items for verb, items in members.items() if verb in _SOURCES and items}
        if all(len(items) == 1 for items in chained.values()):
            if chained:
                single = {verb: items[0] for verb, items in members.items() if items}
                rounds.append(Round(label=round_label(parent), name=parent, **single))
        else:
            rounds += _chains(chained)
    return tuple(rounds)


# Of which verb's folder a verb reads, and the setting that names it; from the last verb to the first.
_SOURCES = {"train": ("pair", "pairs"), "pair": ("score", "scores"), "score": ("collect", "store"), "collect": ("", "")}


def _chains(members: Mapping[str, list[Folder]]) -> Iterator[Round]:
    """A round for each folder that no later one in ``members`` took as its own; each folder is in one round."""
    taken: set[str] = set()
    for last in _SOURCES:
        for end in members.get(last, ()):
            chain: dict[str, Folder] = {}
            folder: Folder | None = end
            while folder is not None and folder.name not in taken:
                taken.add(folder.name)
                chain[folder.verb] = folder
                verb, setting = _SOURCES[folder.verb]
                value = folder.settings.get(setting)
                named = [Path(str(name or "")).parts for name in (value if isinstance(value, list) else [value])]
                meant = [item for item in members.get(verb, ()) if any(_is_meant(item.path, parts) for parts in named)]
                taken |= {item.name for item in meant[1:]}  # of several stores that were scored as one
                folder = meant[0] if meant else None
            if chain:
                yield Round(label=round_label(end.name), name=end.name, **chain)


def _parent(folder: Folder, trainings: Mapping[Path, str]) -> str:
    """The folder that a round's folders lie in; what a program handed to a training lies within the training's own."""
    name = folder.name
    for path in (folder.path, folder.path.parent):
        if path.name == GIVEN_DATA:
            name = trainings.get(path.parent, name)
    return name.rpartition("/")[0] or "."


def _is_meant(path: Path, named: tuple[str, ...]) -> bool:
    """Whether a setting, the parts of a path, speaks of this folder or of what lies directly in it."""
    if path.name == GIVEN_DATA:  # the folders that programs hand over have equal names in every training
        return path.parts[-2:] == named[-3:-1]
    if path.parent.name == GIVEN_DATA:
        length = min(3, len(named))
        return path.parts[-length:] == named[-length:]
    return path.name in named[-2:]


def round_label(name: str) -> str:
    """Name of a round for people: ``iteration-2`` becomes ``iteration 2``, the run's own folder ``this run``."""
    if name == ".":
        return "this run"
    return re.sub(r"iteration-(\d+)", r"iteration \1", name).replace("/", " · ")
