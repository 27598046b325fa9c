"""What data sets of other formats have in common that stand in an episode store's place."""

from functools import cached_property
from pathlib import Path

from grape.core.errors import DataError
from grape.core.trajectories import EpisodeMeta

__all__ = ["ForeignEpisodes"]


class ForeignEpisodes:
    """Episodes of a data set by their ids.

    Attributes:
        path: Where the data set lies.
        name: Its name, under which statistics stand.
    """

    path: Path
    name: str

    def __len__(self) -> int:
        return len(self.ids())

    def __contains__(self, episode_id: object) -> bool:
        return episode_id in self._metas

    def ids(self) -> tuple[str, ...]:
        """Ids of all episodes, in the order of the data set."""
        return tuple(self._metas)

    def metas(self) -> tuple[EpisodeMeta, ...]:
        """Facts of all episodes. The first call reads and checks all but the images, which stay encoded.

        Raises:
            DataError: A file is missing or damaged, or there is no episode with an instruction.
        """
        return tuple(self._metas.values())

    def meta(self, episode_id: str) -> EpisodeMeta:
        """Facts of one episode.

        Raises:
            DataError: There is no such episode.
        """
        if episode_id not in self._metas:
            raise DataError(f"{self.path} has no episode {episode_id!r}{self._part_that_is_read}.")
        return self._metas[episode_id]

    @property
    def _part_that_is_read(self) -> str:
        """For messages, where not the whole data set is read."""
        return ""

    @cached_property
    def _metas(self) -> dict[str, EpisodeMeta]:
        raise NotImplementedError
