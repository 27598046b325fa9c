"""What stores that are to be merged say of themselves, and whether they may be joined."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grape.collect.extending import GROWING
from grape.collect.settings import CollectSettings
from grape.collect.sharding import Shard, parse_shard
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.files import read_json_mapping
from grape.core.runs import DONE_FILE, RUN_FILE, identity_of, read_run_settings
from grape.core.selections import format_numbers
from grape.core.settings import flag_of, settings_from_dict
from grape.store import PLAN_FILE, EpisodeStore

__all__ = ["Source", "check_alike", "is_one_collection", "missing_shards", "read_source"]

_FREE = (*GROWING, "seed", "lanes", "extended")
"""What may differ between collections that are merged: which episodes were played, not how."""
_FACTS = ("actor", "policy_hash", "preprocessing_hash", "temperature", "until")
"""What the episodes of all stores must agree on."""
_MOST_DIFFERENCES = 12


@dataclass(frozen=True, eq=False)
class Source:
    """A store that is to be merged.

    Attributes:
        store: The episodes.
        folder: The run's folder around them; the store itself where no run's record is there.
        verb: Which verb wrote the record; empty without one.
        settings: Identity of the settings of the collection, without the shard; of what was merged, those that all
            collections had in common; empty where nobody says.
        inputs: Inputs of the collection, or of all collections.
        shard: Which part of a collection it is, if it is one.
        planned: Episodes that it was to have; None where nobody says.
        whole: Episodes of the whole collection; None where nobody says.
    """

    store: EpisodeStore
    folder: Path
    verb: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    shard: Shard | None
    planned: int | None
    whole: int | None

    @property
    def done(self) -> bool:
        """Whether nothing says that it was not finished."""
        return not self.verb or (self.folder / DONE_FILE).exists()

    def common(self) -> dict[str, Any]:
        """Those settings and inputs in which collections that are merged agree."""
        return {
            "settings": {name: value for name, value in self.settings.items() if name not in _FREE},
            "inputs": {name: value for name, value in self.inputs.items() if name not in _FREE},
        }

    @property
    def lacking(self) -> int:
        """How many of its episodes are missing, as far as it is known."""
        return max(0, (self.planned or 0) - len(self.store))

    def run_settings(self, out: Path) -> CollectSettings:
        """Settings of the whole collection, to be written to another folder.

        Raises:
            DataError: ``settings.yaml`` is not that of the run's record.
        """
        hint = "Restore the folder from a copy."
        try:
            settings = settings_from_dict(CollectSettings, read_run_settings(self.folder))
        except SettingsError as error:
            raise DataError(f"The settings in {self.folder} cannot be read. {error.message}", hint) from error
        identity = identity_of(settings)
        identity.pop("shard", None)
        if identity != dict(self.settings):
            raise DataError(f"settings.yaml and {RUN_FILE} of {self.folder} do not agree.", hint)
        return replace(settings, out=out, shard="", extend=False)


def read_source(path: Path) -> Source:
    """Read what a folder says of its episodes.

    Raises:
        DataError: There is no store, or a record is damaged.
    """
    store = EpisodeStore.open(path)
    folder = store.path.parent
    if store.path.name != "store" or not (folder / RUN_FILE).exists():
        return Source(store, store.path, "", {}, {}, None, None, None)
    hint = "Copy the folder again from where it was written."
    record = read_json_mapping(folder / RUN_FILE, hint=hint, within=folder)
    verb, inputs, planned = str(record.get("verb")), record.get("inputs"), _number(folder / DONE_FILE, "episodes")
    if verb not in ("collect", "merge"):
        return Source(store, folder, verb, {}, {}, None, planned, None)
    if verb == "merge":
        record = inputs if isinstance(inputs, dict) else {}
    settings, inputs = record.get("settings"), record.get("inputs")
    if not isinstance(settings, dict) or not isinstance(inputs, dict):
        raise DataError(f"{folder / RUN_FILE} is damaged.", hint)
    try:
        shard = parse_shard(str(settings.pop("shard", "")))
    except SettingsError as error:
        raise DataError(f"{folder / RUN_FILE} is damaged. {error.message}", hint) from error
    if planned is None:
        planned = _number(folder / PLAN_FILE, "episodes")
    whole = planned if shard is None else _number(folder / PLAN_FILE, "whole")
    return Source(store, folder, verb, settings, inputs, shard, planned, whole)


def is_one_collection(sources: Sequence[Source]) -> bool:
    """Whether all are parts of one collection: equal settings and inputs but for the shard.

    Raises:
        CompatibilityError: Shards are of different collections; what differs is listed.
    """
    first = sources[0]
    differences = [line for other in sources[1:] for line in _differences(first, other, ())]
    if not differences and all(source.verb == "collect" for source in sources):
        return True
    sharded = next((source for source in sources if source.shard is not None), None)
    if sharded is not None:
        raise CompatibilityError(
            f"{sharded.folder} is shard {sharded.shard} of a collection, and not all stores are of that one: "
            f"{_listed(differences or ['nothing says of which they are'])}.",
            "Give the shards of one collection alone; what they are merged to can be merged with others.",
        )
    return False


def check_alike(sources: Sequence[Source]) -> tuple[str, ...]:
    """Refuse stores of different collections whose episodes were played otherwise.

    Suite and contract are compared before. Here it is what the episodes say: who acted, policy, preprocessing,
    temperature, when they end. Of collections also all settings but those that say which episodes there are, and what
    the policy computed with.

    Returns:
        A sentence for each store that does not say how it was collected.

    Raises:
        CompatibilityError: Something differs; it is listed.
    """
    differences: list[str] = []
    first = sources[0]
    facts = [_facts(source) for source in sources]
    recorded = next((source for source in sources if source.settings), None)
    for source, own in zip(sources[1:], facts[1:], strict=True):
        for name in _FACTS:
            if own[name] != facts[0][name]:
                differences.append(f"{name} of {first.folder}: {facts[0][name]}, of {source.folder}: {own[name]}")
    if recorded is not None:
        for source in sources:
            if source.settings and source is not recorded:
                differences += _differences(recorded, source, _FREE)
    if differences:
        raise CompatibilityError(
            f"The stores were not collected alike: {_listed(differences)}.",
            "Merge stores of one policy, played alike. 'grape train --replay' learns from those of several.",
        )
    return tuple(
        f"{source.folder} does not say how it was collected: suite, contract and what its episodes say were compared."
        for source in sources
        if recorded is not None and not source.settings
    )


def missing_shards(sources: Sequence[Source]) -> str:
    """Shards that are not given, e.g. ``"3-4/8"``; empty where none is, or where they are of several divisions."""
    shards = [source.shard for source in sources]
    counts = {shard.count for shard in shards if shard is not None}
    if None in shards or len(counts) != 1:
        return ""
    (count,) = counts
    absent = set(range(1, count + 1)) - {shard.number for shard in shards if shard is not None}
    return f"{format_numbers(tuple(absent))}/{count}" if absent else ""


def _differences(one: Source, other: Source, free: Sequence[str]) -> Iterator[str]:
    """Settings and inputs in which two collections differ."""
    where = f"in {one.folder}", f"in {other.folder}"
    for kind, name_of in (("settings", flag_of), ("inputs", str)):
        first, second = getattr(one, kind), getattr(other, kind)
        for name in sorted({*first, *second} - set(free)):
            if first.get(name) != second.get(name):
                values = (_shown(first, name), _shown(second, name))
                yield f"{name_of(name)} {values[0]} {where[0]}, {values[1]} {where[1]}"


def _shown(values: Mapping[str, Any], name: str) -> str:
    text = str(values.get(name, "none" if values else "not recorded"))
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(differences: Sequence[str]) -> str:
    more = len(differences) - _MOST_DIFFERENCES
    return "; ".join(differences[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _facts(source: Source) -> dict[str, str]:
    """What the episodes of a store say, each fact as the values that occur."""
    values: dict[str, set[str]] = {name: set() for name in _FACTS}
    for meta in source.store.metas():
        for name in _FACTS:
            values[name].add(str(getattr(meta, name)))
    return {name: ", ".join(sorted(some)) or "none" for name, some in values.items()}


def _number(file: Path, name: str) -> int | None:
    """A number that a file gives; None where the file is not there, or gives none.

    Raises:
        DataError: The file is no JSON.
    """
    if not file.exists():
        return None
    value = read_json_mapping(file, hint="Copy the folder again from where it was written.", within=file.parent)
    number = value.get(name)
    return number if type(number) is int and number >= 0 else None
