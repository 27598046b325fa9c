"""``grape import video`` holds what it needs in memory, and says beforehand where that is too much."""

import numpy as np
import pytest

from grape.core.errors import DataError
from grape.exchange import video_episodes
from grape.store.video import read_episode_list, read_recording
from tests.exchange.short_video import SIZE, STATES, images, log_rows, read, refused, run
from tests.perception.recording_fixtures import write_log

IMAGE = 3 * SIZE[0] * SIZE[1] / 1e9  # GB


def test_only_the_images_of_states_are_held_without_keypoints(folder, monkeypatch):
    held = []

    def read_recording(*given, **options):
        recording = video_episodes_reader(*given, **options)
        held.append((recording.images.shape, recording.depth))
        return recording

    video_episodes_reader = video_episodes.read_recording
    monkeypatch.setattr(video_episodes, "read_recording", read_recording)
    run(folder)
    assert held == [((STATES, *SIZE, 3), None)]


def test_every_image_between_the_states_is_held_once_for_keypoints(folder):
    (episode,) = read_episode_list(folder / "episodes.yaml").episodes
    of_states = np.array([2, 4, 4, 7])
    numbers = video_episodes.images_to_hold(of_states, with_keypoints=True)
    assert numbers.tolist() == [2, 3, 4, 5, 6, 7]
    assert video_episodes.images_to_hold(of_states, with_keypoints=False).tolist() == [2, 4, 7]
    recording = read_recording(episode, 24, numbers)
    assert recording.images.shape == (6, 16, 24, 3)
    assert recording.depth.shape == (6, 16, 24)
    np.testing.assert_allclose(recording.images.mean((1, 2, 3)), images()[2:8].mean((1, 2, 3)), atol=4)
    with pytest.raises(DataError, match="has changed since"):
        read_recording(episode, 24, [3, 2 * STATES])


def test_a_recording_that_would_take_too_much_memory_is_refused(folder):
    assert "--longest" in refused(folder, "6 images of 48 x 32 take", memory=(STATES - 0.5) * IMAGE)
    refused(folder, "--memory is 0", memory=0.0)
    run(folder, memory=(STATES - 0.5) * IMAGE, longest=32)


def test_images_that_are_the_states_own_count_once(folder):
    run(folder, memory=(STATES + 0.5) * IMAGE)
    assert len(read(folder).frames) == STATES


def test_images_that_states_share_count_again_as_their_frames(folder):
    rows = [log_rows()[0] | {"time": 5.0 + 0.025 * row, "x": 0.4 + 0.0025 * row} for row in range(21)]
    write_log(folder / "log.csv", rows)
    refused(folder, "11 images of 48 x 32 take", memory=(11 + 20.5) * IMAGE)
    run(folder, memory=(11 + 21.5) * IMAGE)
    assert len(read(folder).frames) == 21
