"""An episode as the bytes of its file, on its way from where it was played to where it is stored."""

from dataclasses import dataclass

from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.store.episode_encoding import encode_episode
from grape.store.episode_file import parse_header

__all__ = ["EpisodeFile"]


@dataclass(frozen=True, eq=False)
class EpisodeFile:
    """The bytes of an episode's file, and what they say of themselves.

    Attributes:
        data: The bytes.
        meta: Facts of the episode.
        checksum: The header's checksum, which covers those of all columns.
    """

    data: bytes
    meta: EpisodeMeta
    checksum: str

    @classmethod
    def encode(cls, trajectory: Trajectory) -> "EpisodeFile":
        """The file of an episode.

        Raises:
            DataError: The trajectory cannot be stored.
        """
        data, header = encode_episode(trajectory)
        return cls(data, header.meta, header.checksum)

    @classmethod
    def parse(cls, data: bytes, name: str) -> "EpisodeFile":
        """Take the bytes that another process encoded; their header is read and checked.

        Args:
            data: The bytes.
            name: What they are called in messages.

        Raises:
            DataError: They are truncated or no episode.
            CompatibilityError: A newer version of the package wrote them.
        """
        header = parse_header(data, name)
        return cls(data, header.meta, header.checksum)
