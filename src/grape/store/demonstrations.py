"""Opening what a verb's ``--data`` names: an episode store, or a data set of another format in its place."""

from pathlib import Path

from grape.store.episode_store import EpisodeStore
from grape.store.foreign import ForeignEpisodes
from grape.store.lerobot.demonstrations import LeRobotDemonstrations, is_lerobot_location
from grape.store.rlds.demonstrations import RldsDemonstrations, is_rlds_location
from grape.store.source import EpisodeSource

__all__ = ["data_name", "open_demonstrations"]


def open_demonstrations(location: Path) -> EpisodeSource:
    """Open an episode store, a LeRobotDataset (its folder, or ``lerobot:...``), or an RLDS data set (``rlds:...``).

    Raises:
        DataError: There is nothing, or something else or damaged.
        SettingsError: No rule is known by which to read an RLDS data set, or an option of a LeRobotDataset is unknown.
        CompatibilityError: A newer version of the package, or of LeRobot, wrote the data.
    """
    if is_rlds_location(location):
        return RldsDemonstrations(location)
    if is_lerobot_location(location):
        return LeRobotDemonstrations(location)
    return EpisodeStore.open(location)


def data_name(source: EpisodeSource) -> str:
    """Under which name statistics of the episodes stand: their suite's, or that of the foreign data set."""
    return source.name if isinstance(source, ForeignEpisodes) else source.suite
