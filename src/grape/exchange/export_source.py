"""Sources of exports: preference pairs, or the episodes of a collection."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.files import content_hash, file_hash
from grape.core.preferences import PreferencePair
from grape.core.repositories import local_folder
from grape.core.trajectories import EpisodeMeta
from grape.preferences import read_pairs
from grape.preferences.records import PAIRS_FILE, recorded_stores
from grape.store import EpisodeStore, open_stores

__all__ = ["ExportSource", "open_source"]

_LOOKED_AT = 8
"""Episodes that tell how far apart the images of all are."""


@dataclass(frozen=True)
class ExportSource:
    """What is exported: pairs, or the episodes of a collection.

    Attributes:
        store: Where the episodes are.
        inputs: Hashes that identify what is exported.
        pairs: Pairs in the order of the export; empty for a collection.
        metas: Episodes in the order of the export; empty for pairs.
    """

    store: EpisodeStore
    inputs: Mapping[str, str]
    pairs: tuple[PreferencePair, ...] = ()
    metas: tuple[EpisodeMeta, ...] = ()

    @property
    def kind(self) -> str:
        """``"pairs"`` or ``"collection"``."""
        return "pairs" if self.pairs else "collection"

    @property
    def work(self) -> int:
        """Episodes to write and to compare."""
        return 2 * (2 * len(self.pairs) + len(self.metas))

    @property
    def episodes(self) -> tuple[EpisodeMeta, ...]:
        """Facts of all episodes."""
        return self.metas or tuple(
            self.store.meta(name) for pair in self.pairs for name in (pair.chosen, pair.rejected)
        )

    @property
    def repeated_images(self) -> str:
        """Which images stand in several rows, for a warning; empty where every control step has one of its own."""
        first = self.episodes[:_LOOKED_AT]
        length = max(int(self.store.decisions(meta.episode_id).executed.max(initial=1)) for meta in first)
        if length == 1:
            return ""
        return (
            f"The episodes have images at decisions alone, up to {length} control steps apart. A row is a control "
            "step; those in between repeat the image before them, which is older than their state and action: who "
            "learns one action an image from them learns from outdated images."
        )

    @property
    def name(self) -> str:
        """The suite's name as a name for data sets: lower-case letters, digits and _."""
        return re.sub(r"[^a-z0-9_]", "_", self.store.suite.lower())


def open_source(kind: str, pairs: Path | None, collection: Path | None, *, only_successes: bool) -> ExportSource:
    """Open what is to be exported.

    Args:
        kind: Kind of the export, for the hint.
        pairs: Folder that ``grape pair`` wrote.
        collection: Folder that ``grape collect`` wrote, or an episode store. One of the two is given.
        only_successes: Leave out a collection's failures.

    Raises:
        SettingsError: Both or neither are given.
        DataError: Pairs or episodes are missing or damaged.
        CompatibilityError: Pairs compare parts of episodes or are weighted.
    """
    if (pairs is None) == (collection is None):
        raise SettingsError("Give either --pairs or --collection.", f"grape export {kind} --pairs runs/pairs --out OUT")
    if pairs is not None:
        pairs = local_folder(pairs)
        preference_pairs = read_pairs(pairs)
        store = open_stores(recorded_stores(pairs))
        _require_whole(pairs, preference_pairs)
        inputs = {"pairs": file_hash(pairs / PAIRS_FILE), "episodes": _digest(store, preference_pairs)}
        _require_actions(store, [name for pair in preference_pairs for name in (pair.chosen, pair.rejected)])
        return ExportSource(store, inputs, pairs=preference_pairs)
    store = EpisodeStore.open(collection or Path())
    metas = tuple(meta for meta in store.metas() if meta.steps and (meta.success or not only_successes))
    if not metas:
        raise DataError(f"{store.path} has no episode to export.", "Collect more, or drop --only-successes.")
    _require_actions(store, [meta.episode_id for meta in metas])
    return ExportSource(store, {"episodes": store.digest()}, metas=metas)


def _require_whole(folder: Path, pairs: Sequence[PreferencePair]) -> None:
    """Refuse what no format holds: a reader would take whole episodes and equal weights."""
    if any(pair.chosen_steps or pair.rejected_steps or pair.weight != 1.0 for pair in pairs):
        raise CompatibilityError(
            f"The pairs of {folder} are stage-wise, cut or weighted, which the formats of others cannot hold.",
            "Make the pairs to export with 'grape pair' without --stage-wise, --cut and --weight.",
        )


def _require_actions(store: EpisodeStore, names: Sequence[str]) -> None:
    """Refuse recordings without actions, which the export formats require."""
    if names and not store.read(names[0], frames=False).actions.shape[1]:
        raise DataError(
            f"The episodes of {store.path} hold no actions, as recordings imported without any; there is nothing to "
            "learn from in an export.",
            "Import them with their actions (robot_log: actions in the episode list), or export another collection.",
        )


def _digest(store: EpisodeStore, pairs: tuple[PreferencePair, ...]) -> str:
    stored_ids = set(store.ids())
    missing = [name for pair in pairs for name in (pair.chosen, pair.rejected) if name not in stored_ids]
    if missing:
        raise DataError(
            f"Store {store.path} lacks {len(missing)} episodes of the pairs, the first being {missing[0]}.",
            "Run 'grape collect' again: it records missing episodes anew.",
        )
    return content_hash([store.digest()])
