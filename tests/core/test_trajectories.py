"""The two axes of a trajectory, and what its constructor refuses."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.chunks import Chunks
from grape.core.errors import CompatibilityError, DataError
from grape.core.trajectories import Observation
from tests.store.episodes import make_chunked_episode, make_episode


def test_one_action_a_decision_is_the_form_without_chunks() -> None:
    episode = make_episode(steps=5)
    assert (episode.steps, episode.decisions, episode.chunk_length) == (5, 5, 1)
    assert (episode.support, episode.logp_temperature) == ("vocabulary", 1.0)
    assert episode.decision_starts.tolist() == [0, 1, 2, 3, 4]


@given(st.integers(1, 6).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.integers(1, k), max_size=5))))
def test_only_executed_tokens_count(case: tuple[int, list[int]]) -> None:
    length, executed = case
    episode = make_chunked_episode(tuple(executed), length)
    chunks = episode.chunks
    assert chunks is not None
    assert chunks.logps is not None
    assert (episode.steps, episode.decisions) == (sum(executed), len(executed))
    rows = [chunks.logps[i, k] for i, count in enumerate(executed) for k in range(count)]
    assert episode.logp == pytest.approx(sum(float(row.sum(dtype=np.float64)) for row in rows))
    assert episode.decision_starts.tolist() == [sum(executed[:i]) for i in range(len(executed))]
    assert chunks.executed_mask.sum() == episode.steps


def test_a_policy_without_tokens_has_no_log_probability() -> None:
    episode = make_chunked_episode(sampled=False)
    assert np.isnan(episode.logp)
    assert (episode.action_tokens == -1).all()
    assert (episode.support, episode.logp_temperature) == ("", 0.0)


def test_each_state_shows_the_latest_image() -> None:
    episode = make_chunked_episode((3, 3, 1), 4)
    looks = [0, 0, 0, 1, 1, 1, 2, 3]
    assert np.array_equal(episode.each_state(episode.frames), episode.frames[looks])
    single = make_episode()
    assert single.each_state(single.frames) is single.frames


def changed(**facts: object) -> Chunks:
    chunks = make_chunked_episode().chunks
    assert chunks is not None
    return dataclasses.replace(chunks, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        (changed(executed=np.array([3, 3, 2], np.int32)), "executed 8 actions, not 7"),
        (changed(executed=np.array([5, 1, 1], np.int32)), "1 to 5 actions of a chunk of 4"),
        (changed(executed=np.array([4, 3, 0], np.int32)), "0 to 4 actions of a chunk of 4"),
        (changed(executed=np.array([3.0, 3, 1])), "float64"),
        (changed(length=3), r"not int32 \(3, 3, 7\)"),
        (changed(tokens=None), "tokens without log-probabilities, or the reverse"),
        (changed(tokens=np.zeros((3, 4, 7), np.int32)), "not those of the executed actions"),
        (changed(logps=np.zeros((3, 4, 7))), "float64"),
        (changed(support="top-k"), "over 'top-k'"),
        (changed(temperature=0.0), "temperature 0"),
        (changed(temperature=float("nan")), "temperature nan"),
    ],
)
def test_contradictions_are_refused(chunks: Chunks, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        dataclasses.replace(make_chunked_episode(), chunks=chunks)


@pytest.mark.parametrize("name", ["frames", "display", "wrist"])
def test_there_is_an_image_a_decision_and_one_after_the_last(name: str) -> None:
    episode = make_chunked_episode(display=True)
    images = np.zeros((episode.steps + 1, 4, 5, 3), np.uint8)
    with pytest.raises(DataError, match=rf"{name} is \(8,\), not \(4,\)"):
        dataclasses.replace(episode, **({"cameras": {name: images}} if name == "wrist" else {name: images}))


def test_the_main_camera_has_any_name_and_others_their_own() -> None:
    main, wrist = np.zeros((2, 2, 3), np.uint8), np.ones((2, 2, 3), np.uint8)
    observation = Observation(main, np.zeros(3, np.float32), "open the drawer", {"wrist": wrist})
    assert [image[0, 0, 0] for image in observation.images(("agentview", "wrist"))] == [0, 1]
    with pytest.raises(CompatibilityError, match="there is none of side"):
        observation.images(("agentview", "side"))
