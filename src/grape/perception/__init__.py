"""Keypoints from images: proposed, numbered, found, tracked, and lifted to the world with depth and camera.

Models stand behind small protocols and are loaded when they are opened; importing this package loads none. A keypoint
that is not really seen is NaN, which costs call "unavailable"; it never keeps its last place.
"""

from grape.perception.candidates import Candidate, CandidateSettings, find_candidates
from grape.perception.following import FollowedKeypoint, FollowSettings, aligning_shift, follow_keypoints, seen_points
from grape.perception.keypoint_file import ImageKeypoint, KeypointFile, read_keypoint_file, write_keypoint_file
from grape.perception.lifting import LiftedPoints, lift_tracks, mask_point
from grape.perception.marks import draw_numbers
from grape.perception.propose import KeypointsSettings, run_keypoints
from grape.perception.protocols import (
    Detection,
    Detector,
    FeatureExtractor,
    Finder,
    FinderResult,
    MaskFinder,
    Segmenter,
)
from grape.perception.tracking import PatchTracker, PointTracker, Tracks
from grape.perception.weights import open_features, open_finder

__all__ = [
    "Candidate",
    "CandidateSettings",
    "Detection",
    "Detector",
    "FeatureExtractor",
    "Finder",
    "FinderResult",
    "FollowSettings",
    "FollowedKeypoint",
    "ImageKeypoint",
    "KeypointFile",
    "KeypointsSettings",
    "LiftedPoints",
    "MaskFinder",
    "PatchTracker",
    "PointTracker",
    "Segmenter",
    "Tracks",
    "aligning_shift",
    "draw_numbers",
    "find_candidates",
    "follow_keypoints",
    "lift_tracks",
    "mask_point",
    "open_features",
    "open_finder",
    "read_keypoint_file",
    "run_keypoints",
    "seen_points",
    "write_keypoint_file",
]
