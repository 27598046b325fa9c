"""Recordings of real robots: videos with depth, camera parameters and robot logs, listed in one YAML file."""

from grape.store.video.episode_list import EpisodeList, VideoEpisode, read_episode_list
from grape.store.video.recording import (
    Recording,
    check_recording,
    image_size,
    read_recording,
    recording_bytes,
)
from grape.store.video.robot_log import RobotLog, read_robot_log

__all__ = [
    "EpisodeList",
    "Recording",
    "RobotLog",
    "VideoEpisode",
    "check_recording",
    "image_size",
    "read_episode_list",
    "read_recording",
    "read_robot_log",
    "recording_bytes",
]
