"""Chunks cut from control steps."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from grape.core.chunks import cut_chunks


@given(steps=st.integers(1, 12), length=st.integers(1, 6), data=st.data())
def test_chunks_hold_the_steps_that_follow_and_say_where_the_episode_ends(steps, length, data):
    starts = np.array(data.draw(st.lists(st.integers(0, steps - 1), min_size=1, max_size=5)))
    values = np.arange(2 * steps, dtype=np.float32).reshape(steps, 2)
    chunks, inside = cut_chunks(values, starts, length)
    assert chunks.shape == (len(starts), length, 2)
    assert inside.shape == chunks.shape[:2]
    for start, chunk, mask in zip(starts, chunks, inside, strict=True):
        assert mask.sum() == min(length, steps - start)
        np.testing.assert_array_equal(chunk[mask], values[start : start + length])
        np.testing.assert_array_equal(chunk[~mask], np.repeat(values[-1:], (~mask).sum(), axis=0))
