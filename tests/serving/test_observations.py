"""Observations of robots under the keys that they send."""

import numpy as np
import pytest

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.serving import ServeSettings
from grape.serving.observations import ObservationKeys
from tests.serving.numpy_policy import NumpyPolicy

ONE, TWO = NumpyPolicy("one").spec, NumpyPolicy("two").spec
IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
LIBERO = {
    "observation/image": IMAGE,
    "observation/wrist_image": IMAGE[::-1],
    "observation/state": np.arange(3.0),
    "prompt": "go",
}


def keys(spec, **changes):
    return ObservationKeys.of(ServeSettings(policy="x", **changes), spec)


def test_the_default_keys_are_those_of_openpi_s_libero_client():
    read = keys(TWO).read(LIBERO, TWO)
    np.testing.assert_array_equal(read.image, IMAGE)
    np.testing.assert_array_equal(read.cameras["wrist"], IMAGE[::-1])
    np.testing.assert_array_equal(read.proprio, np.arange(3, dtype=np.float32))
    assert read.proprio.dtype == np.float32
    assert read.instruction == "go"


def test_a_policy_of_one_image_needs_no_more():
    read = keys(ONE).read(LIBERO, ONE)
    assert not read.cameras
    assert read.proprio.shape == (0,)


def test_states_are_joined_and_maps_walked_into():
    droid = keys(TWO, image_keys=("images/high", "wrist"), state_keys=("joints", "arm/gripper"), prompt_key="task")
    message = {
        "images": {"high": IMAGE.transpose(2, 0, 1)},  # channels first, as some robots have them
        "wrist": IMAGE,
        "joints": np.array([1.0, 2.0]),
        "arm": {"gripper": np.float32(3.0)},
        "task": "go",
    }
    read = droid.read(message, TWO)
    np.testing.assert_array_equal(read.image, IMAGE)
    np.testing.assert_array_equal(read.proprio, np.array([1, 2, 3], np.float32))
    assert droid.to_json()["images"] == {"agentview": "images/high", "wrist": "wrist"}


def test_an_instruction_can_be_the_server_s():
    message = {name: value for name, value in LIBERO.items() if name != "prompt"}
    assert keys(ONE, instruction="stay").read(message, ONE).instruction == "stay"
    with pytest.raises(DataError, match="no 'prompt'") as caught:
        keys(ONE).read(message, ONE)
    assert "observation/image" in str(caught.value)
    assert "--instruction" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"observation/image": IMAGE / 255}, DataError, "float64"),
        ({"observation/image": IMAGE[..., :2]}, DataError, "shape"),
        ({"observation/image": IMAGE.tolist()}, DataError, "list"),
        ({"observation/wrist_image": None}, DataError, "NoneType"),
        ({"observation/state": np.zeros((3, 1))}, DataError, "no vector"),
        ({"observation/state": "1 2 3"}, DataError, "no vector"),
        ({"observation/state": np.array([True])}, DataError, "no vector"),
        ({"observation/state": np.zeros(4)}, CompatibilityError, "reads 3"),
        ({"prompt": np.zeros(3)}, DataError, "no text"),
    ],
)
def test_entries_that_are_not_what_they_should_be_are_refused(change, error, words):
    with pytest.raises(error, match=words):
        keys(TWO).read(LIBERO | change, TWO)


def test_every_missing_entry_is_named_with_the_flag_for_it():
    for name, flag in {"image": "--image-keys", "wrist_image": "--image-keys", "state": "--state-keys"}.items():
        message = {key: value for key, value in LIBERO.items() if key != f"observation/{name}"}
        with pytest.raises(DataError, match=f"no 'observation/{name}'") as caught:
            keys(TWO).read(message, TWO)
        assert flag in str(caught.value)


def test_keys_that_fit_no_policy_are_refused():
    with pytest.raises(SettingsError, match="2 camera"):
        keys(TWO, image_keys=("one",))
    with pytest.raises(SettingsError, match="reads no state"):
        keys(ONE, state_keys=("state",))
    with pytest.raises(SettingsError, match="empty"):
        keys(ONE, prompt_key="")
