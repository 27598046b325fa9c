"""Several stores read as one: episodes of one suite under one contract, each under its id."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.store.encoded import EpisodeFile
from grape.store.episode_store import EpisodeStore
from grape.store.index import IndexEntry
from grape.store.packs import EpisodePlace

__all__ = ["CombinedStores", "check_contracts", "open_stores", "owners_of"]

_LISTED = 3
"""So many episodes are named in a message."""


class CombinedStores(EpisodeStore):
    """Several stores as one that is only read. An episode that several hold byte by byte counts once.

    Its digest is that of one store with all of the episodes.

    Args:
        stores: Two or more.

    Raises:
        CompatibilityError: They are of several suites or contracts.
        DataError: Two hold different episodes of one id, or a file is damaged.
    """

    def __init__(self, stores: Sequence[EpisodeStore]) -> None:
        check_contracts(stores)
        super().__init__(stores[0].path, stores[0].suite, stores[0].contract)
        self._parts = tuple(stores)
        self._owners = owners_of(stores)

    def __repr__(self) -> str:
        return f"CombinedStores({', '.join(repr(str(part.path)) for part in self._parts)}, suite={self.suite!r})"

    @property
    def parts(self) -> tuple[EpisodeStore, ...]:
        """The stores, in the order given."""
        return self._parts

    def part_of(self, episode_id: str) -> EpisodeStore:
        """The first of :attr:`parts` that an episode is in."""
        return self._owners.get(episode_id, self._parts[0])

    def ids(self) -> tuple[str, ...]:
        """Ids of all episodes, sorted."""
        return tuple(sorted({episode_id for part in self._parts for episode_id in part.ids()}))

    def write_file(self, file: EpisodeFile) -> None:
        """Refuse to write: each store belongs to the run that filled it.

        Raises:
            CompatibilityError: Always.
        """
        raise CompatibilityError(
            f"Episode {file.meta.episode_id} cannot be written into several stores.", "Write to one of them."
        )

    def verify(self) -> list[str]:
        """What is wrong with any of the stores, see :meth:`EpisodeStore.verify`."""
        return [problem for part in self._parts for problem in part.verify()]

    def _find(self, episode_id: str) -> EpisodePlace | None:
        return self.part_of(episode_id)._find(episode_id)

    def _entry(self, episode_id: str) -> IndexEntry:
        return self.part_of(episode_id)._entry(episode_id)

    def _all_entries(self) -> dict[str, IndexEntry]:
        entries = {id(part): part._all_entries() for part in self._parts}
        return {
            name: entries[id(owner)][name] for name, owner in sorted(self._owners.items()) if name in entries[id(owner)]
        }


def open_stores(paths: Sequence[Path]) -> EpisodeStore:
    """Open one store, or several as one.

    Args:
        paths: Stores, or folders that ``grape collect`` wrote.

    Raises:
        SettingsError: There are none, or one is given twice.
        DataError: A store is missing or damaged, or two hold different episodes of one id.
        CompatibilityError: They are of several suites or contracts.
    """
    if not paths:
        raise SettingsError("No episodes are named.", "Give one or more stores, e.g. --store runs/rollouts/store.")
    stores: dict[Path, EpisodeStore] = {}
    for path in paths:
        store = EpisodeStore.open(path)
        if store.path.resolve() in stores:
            raise SettingsError(f"Store {store.path} is given twice.", "Give each store once.")
        stores[store.path.resolve()] = store
    opened = tuple(stores.values())
    return opened[0] if len(opened) == 1 else CombinedStores(opened)


def check_contracts(stores: Sequence[EpisodeStore]) -> None:
    """Refuse stores of several suites or contracts, with what differs.

    Raises:
        CompatibilityError: They differ.
    """
    first = stores[0]
    for store in stores[1:]:
        if store.suite != first.suite:
            raise CompatibilityError(
                f"{first.path} holds episodes of suite '{first.suite}', {store.path} of '{store.suite}'.",
                "Give stores of one suite.",
            )
        keys = sorted({*first.contract, *store.contract})
        differing = [key for key in keys if first.contract.get(key) != store.contract.get(key)]
        if differing:
            listed = "; ".join(f"{key}: {first.contract.get(key)} and {store.contract.get(key)}" for key in differing)
            raise CompatibilityError(
                f"{first.path} and {store.path} were made under different contracts. {listed}.",
                "Episodes of different contracts cannot be mixed: give stores of equal ones.",
            )


def owners_of(stores: Sequence[EpisodeStore]) -> Mapping[str, EpisodeStore]:
    """The first store that holds each episode, by its id.

    Raises:
        DataError: Two stores hold different episodes of one id, or a file is damaged.
    """
    owners: dict[str, EpisodeStore] = {}
    checksums: dict[str, str] = {}
    clashes: dict[str, tuple[EpisodeStore, EpisodeStore]] = {}
    for store in stores:
        for name, checksum in store.checksums().items():
            if checksums.setdefault(name, checksum) != checksum:
                clashes.setdefault(name, (owners[name], store))
            owners.setdefault(name, store)
    if clashes:
        names = ", ".join(list(clashes)[:_LISTED])
        one, other = next(iter(clashes.values()))
        raise DataError(
            f"{one.path} and {other.path} hold different episodes of equal names ({len(clashes)}: {names}"
            f"{', ...' if len(clashes) > _LISTED else ''}).",
            "Shards of one collection are equal where they overlap, unless machines or releases differ: play one again."
            " Separate collections of the same initial states are kept apart: 'grape collect --extend' adds samples.",
        )
    return owners
