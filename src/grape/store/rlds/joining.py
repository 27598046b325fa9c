"""Two RLDS data sets, chosen and rejected, joined into pairs.

The safe way is by ``episode_metadata/file_path``, which carries the same name on both sides. Where names are of no use
(absent, repeated, or different on the two sides), only the order is left: one missing episode would then shift all
pairs after it, so equal numbers of episodes and equal instructions are required, and a warning says what was assumed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from grape.core.errors import DataError
from grape.core.tasks import same_instruction
from grape.store.rlds.dataset import Episode, RldsDataset
from grape.store.rlds.standardize import Rule, StandardEpisode, standardize
from grape.store.rlds.statistics import dataset_statistics

__all__ = ["JoinedPair", "JoinedPairs", "PairLink", "instruction_of", "join_pairs"]

_SHOWN = 5


@dataclass(frozen=True)
class PairLink:
    """Which episodes make a pair.

    Attributes:
        pair_id: The common ``file_path``, or the position where pairs were joined by order.
        chosen: Index of the chosen episode in its split.
        rejected: Index of the rejected episode in its split.
        instruction: The task in words; of the chosen side, where the two differ (which strict joining refuses).
    """

    pair_id: str
    chosen: int
    rejected: int
    instruction: str


@dataclass(frozen=True, eq=False)
class JoinedPair:
    """A pair with its two standardized episodes: images, instruction and un-normalized actions."""

    pair_id: str
    chosen: StandardEpisode
    rejected: StandardEpisode


@dataclass(frozen=True)
class JoinedPairs:
    """Pairs of two data sets. Use :func:`join_pairs`.

    Attributes:
        chosen: The data set of preferred trajectories.
        rejected: The other one.
        split: Which part of both.
        rule: How episodes are read.
        joined_by: ``"file_path"`` or ``"order"``.
        links: The pairs, in the order of the chosen data set.
    """

    chosen: RldsDataset
    rejected: RldsDataset
    split: str
    rule: Rule
    joined_by: Literal["file_path", "order"]
    links: tuple[PairLink, ...]

    def __len__(self) -> int:
        return len(self.links)

    def __iter__(self) -> Iterator[JoinedPair]:
        """All pairs in order, streamed: two episodes are in memory at a time."""
        for link, chosen, rejected in self.episodes():
            yield self._pair(link, chosen, rejected)

    def episodes(self) -> Iterator[tuple[PairLink, Episode, Episode]]:
        """All pairs in order as they are on disk: no rule is applied, nothing is checked."""
        chosen, rejected = _Reader(self.chosen, self.split), _Reader(self.rejected, self.split)
        for link in self.links:
            yield link, chosen.at(link.chosen), rejected.at(link.rejected)

    def __getitem__(self, index: int) -> JoinedPair:
        """One pair, for readers that take them in random order."""
        link = self.links[index]
        return self._pair(
            link, self.chosen.episode(self.split, link.chosen), self.rejected.episode(self.split, link.rejected)
        )

    def statistics(self) -> dict[str, Any]:
        """Normalization statistics over all splits of both sides together: one entry of ``norm_stats``.

        Statistics of each side alone would give one action two different token sequences.
        """
        return dataset_statistics([(self.chosen, self.rule), (self.rejected, self.rule)])

    def _pair(self, link: PairLink, chosen: Episode, rejected: Episode) -> JoinedPair:
        return JoinedPair(link.pair_id, standardize(chosen, self.rule), standardize(rejected, self.rule))


def join_pairs(
    chosen: RldsDataset,
    rejected: RldsDataset,
    rule: Rule,
    *,
    split: str = "train",
    warn: Callable[[str], None],
    strict: bool = True,
) -> JoinedPairs:
    """Join two data sets. Reads both once (images stay encoded), so damage anywhere is noticed here.

    Args:
        chosen: The preferred trajectories.
        rejected: The others.
        rule: How episodes are read, usually ``RULES["rlds_np_rollout"]``.
        split: Which part of both.
        warn: Receives what the user should know: episodes without a partner, pairs joined by order.
        strict: False also joins what does not belong together, to look at it: sides of unequal numbers by order as far
            as they go, pairs of two instructions.

    Raises:
        DataError: A file is damaged, or (strict) the sides cannot be joined, a pair's instructions differ, or an
            episode's instruction changes on the way.
        SettingsError: A side has no such split.
    """
    sides = [_catalog(side, split, strict=strict) for side in (chosen, rejected)]
    names = [[name for name, _ in side] for side in sides]
    common = set(names[0]) & set(names[1])
    if common - {""} and all(len(set(side)) == len(side) for side in names):
        place = {name: index for index, name in enumerate(names[1])}
        pairs = [(name, index, place[name]) for index, name in enumerate(names[0]) if name in common]
        _tell_single(names, common, warn)
        joined_by: Literal["file_path", "order"] = "file_path"
    else:
        if strict:
            _check_order(names, (chosen, rejected), split, warn)
        pairs = [(str(index), index, index) for index in range(min(map(len, names)))]
        joined_by = "order"
    links = tuple(PairLink(name, first, second, sides[0][first][1]) for name, first, second in pairs)
    if strict:
        for link in links:
            _check_instructions(link, sides[1][link.rejected][1], joined_by)
    return JoinedPairs(chosen, rejected, split, rule, joined_by, links)


class _Reader:
    """Episodes by index; neighbors in the order of the file come from one pass."""

    def __init__(self, dataset: RldsDataset, split: str) -> None:
        self._dataset, self._split = dataset, split
        self._stream, self._next = dataset.read(split), 0

    def at(self, index: int) -> Episode:
        if index < self._next:  # out of order: fetched alone, the stream stays where it is
            return self._dataset.episode(self._split, index)
        episode = next(islice(self._stream, index - self._next, None))
        self._next = index + 1
        return episode


def _catalog(dataset: RldsDataset, split: str, *, strict: bool) -> list[tuple[str, str]]:
    """Name and instruction of every episode, in order."""
    entries = []
    for episode in dataset.read(split):
        if strict:
            _check_one_instruction(episode)
        entries.append((episode.file_path, instruction_of(episode)))
    if not entries:
        raise DataError(f"{dataset.path} has no episodes in split {split!r}.")
    return entries


def _check_order(
    names: Sequence[Sequence[str]], sides: Sequence[RldsDataset], split: str, warn: Callable[[str], None]
) -> None:
    counts = [len(side) for side in names]
    if counts[0] != counts[1]:
        raise DataError(
            f"{sides[0].path} and {sides[1].path} share no episode_metadata/file_path, and in split {split!r} they "
            f"hold {counts[0]} and {counts[1]} episodes: they cannot be joined, neither by name nor by order.",
            "Export both sides again, with equal names or equal numbers.",
        )
    warn(
        "The two sides share no names (episode_metadata/file_path), so pairs are joined by their order alone. A "
        "missing episode on one side would shift all pairs after it; only the instructions were compared."
    )


def _tell_single(names: Sequence[Sequence[str]], common: set[str], warn: Callable[[str], None]) -> None:
    for side, title in zip(names, ("chosen", "rejected"), strict=True):
        single = [name for name in side if name not in common]
        if single:
            more = ", ..." if len(single) > _SHOWN else ""
            warn(
                f"{len(single)} {title} episodes have no partner and are left out: {', '.join(single[:_SHOWN])}{more}."
            )


def instruction_of(episode: Episode) -> str:
    """The first instruction of an episode that is not empty."""
    texts = episode.steps["language_instruction"]
    return next((str(text) for text in texts if text), "") if isinstance(texts, list) else ""


def _check_one_instruction(episode: Episode) -> None:
    """Refuse an episode of several instructions: a side of a pair is conditioned on one from beginning to end."""
    texts = episode.steps["language_instruction"]
    first = instruction_of(episode)
    instructions = texts if isinstance(texts, list) else []
    changed = [text for text in instructions if text and not same_instruction(first, text)]
    if changed:
        raise DataError(
            f"{episode.where}: the instruction changes within the episode, from {first!r} to {changed[0]!r}, and a "
            "side of a pair has one instruction.",
            "Split such episodes at the change, on both sides, before they are imported as pairs; 'grape sft --data "
            "rlds:...' reads them as they are.",
        )


def _check_instructions(link: PairLink, rejected: str, joined_by: str) -> None:
    if not same_instruction(link.instruction, rejected):
        raise DataError(
            f"Pair {link.pair_id!r} (joined by {joined_by}) has two instructions: {link.instruction!r} and "
            f"{rejected!r}.",
            "The sides are out of step: an episode is missing or they come from different exports.",
        )
