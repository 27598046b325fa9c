"""Statistics in LeRobot's form against NumPy on the values themselves."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from grape.store.lerobot.tables import QUANTILES, count_values, image_statistics, number_statistics

IMAGES = arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.just(3)))


@settings(max_examples=60, deadline=None)
@given(IMAGES)
def test_counted_images_give_the_statistics_of_their_values(images):
    figures = image_statistics(count_values(images), len(images))
    values = images.reshape(-1, 3) / 255
    expected = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    expected |= {name: np.quantile(values, share, axis=0) for name, share in QUANTILES.items()}
    assert figures.pop("count") == [len(images)]
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert np.shape(figures[name]) == (3, 1, 1)
        np.testing.assert_allclose(np.ravel(figures[name]), value, atol=1e-9, err_msg=name)


def test_numbers_of_one_dimension_give_lists_of_one():
    figures = number_statistics(np.array([False, True, True]))
    assert figures["mean"] == [2 / 3]
    assert (figures["min"], figures["max"], figures["count"], figures["q50"]) == ([0.0], [1.0], [3], [1.0])
    assert len(number_statistics(np.zeros((2, 7), np.float32))["q99"]) == 7
