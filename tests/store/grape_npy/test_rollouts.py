"""Rollout files of the first implementation."""

import hashlib
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from grape.core.errors import DataError
from grape.store.grape_npy import read_rollout
from tests.store.rlds.golden import expected, golden, needs_golden

FILES = sorted(name for name, facts in expected().get("npy", {}).items() if facts["num_steps"])


def write(path, steps):
    value = np.empty(len(steps), dtype=object)
    value[:] = steps
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, {"descr": "|O", "fortran_order": False, "shape": value.shape})
    path.write_bytes(sink.getvalue() + pickle.dumps(value, 4))
    return path


def step(kind="image", prompt="put it there", **changes):
    pixels = np.full((4, 6, 3), 7, np.uint8)
    return {
        "images": Image.fromarray(pixels) if kind == "image" else pixels,
        "prompt": prompt,
        "action": [0.1, 0, 0, 0, 0, 0, 1.0],
    } | changes


@needs_golden
@pytest.mark.parametrize("name", FILES or [""])
def test_golden_files(name):
    rollout, due = read_rollout(golden(name)), expected()["npy"][name]
    assert rollout.steps == due["num_steps"]
    assert rollout.prompt == due["prompt"]
    assert hashlib.sha256(rollout.actions.tobytes()).hexdigest() == due["actions_f32_sha256"]
    assert hashlib.sha256(rollout.images.tobytes()).hexdigest() == due["frames_sha256"]
    assert rollout.flavor.name == ("simplerenv" if due["image_type"] == "Image" else "libero")
    assert rollout.success == ("success" in name)


@pytest.mark.parametrize(
    ("file", "kind", "flavor", "facts"),
    [
        ("success_episode_3_success_num_1_cost_5.npy", "image", "simplerenv", (True, 3, 1, 5)),
        ("failure_episode_12_fail_num_2_cost_-3.npy", "image", "simplerenv", (False, 12, 2, -3)),
        ("success_episode_0.npy", "array", "libero", (True, 0, 0, None)),
        ("renamed.npy", "array", "libero", (None, 0, 0, None)),
        ("renamed.npy", "image", "simplerenv", (None, 0, 0, None)),
    ],
)
def test_names_and_images_tell_the_collector(tmp_path, file, kind, flavor, facts):
    rollout = read_rollout(write(tmp_path / file, [step(kind), step(kind)]))
    assert rollout.flavor.name == flavor
    assert (rollout.success, rollout.episode, rollout.number, rollout.cost_hint) == facts
    assert rollout.actions.tolist() == [pytest.approx([0.1, 0, 0, 0, 0, 0, 1])] * 2
    assert rollout.images.shape == (2, 4, 6, 3)


def test_name_and_images_that_disagree(tmp_path):
    path = write(tmp_path / "success_episode_0.npy", [step("image")])
    with pytest.raises(DataError, match="libero and simplerenv"):
        read_rollout(path)
    assert read_rollout(path, "libero").flavor.name == "libero"


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([], "no steps"),
        ([step(action=[1, 2])], "Step 0: the action is of shape"),
        ([step(action=[0, 0, 0, 0, 0, 0, float("nan")])], "not finite"),
        ([step(action="left")], "no list of numbers"),
        ([step(action=[[0.0] * 7])], "no list of numbers"),
        ([step(action=[10**400] * 7)], "too large"),
        ([step(action=[1e300] * 7)], "not finite"),
        ([step(), {"prompt": "x"}], "Step 1 has no images, prompt and action"),
        ([step(images=np.zeros((4, 6, 3)))], "float64"),
        ([step(images=None)], "no image"),
        ([step(), step(images=Image.new("RGB", (2, 2)))], "several sizes"),
        ([step(), step(prompt="something else")], "different prompts"),
    ],
)
def test_files_that_hold_something_else(tmp_path, steps, words):
    path = write(tmp_path / "success_episode_0_success_num_1_cost_5.npy", steps)
    with pytest.raises(DataError, match=words) as caught:
        read_rollout(path)
    assert str(path) in caught.value.message


def test_an_action_that_stands_twice_within_itself_is_never_walked_along(tmp_path):
    action = (0.0, 0.0)
    for _ in range(60):
        action = (action, action)  # numpy would make an array of 2 ** 61 numbers
    path = write(tmp_path / "success_episode_0_success_num_1_cost_5.npy", [step(action=action)])
    with pytest.raises(DataError, match="no list of numbers"):
        read_rollout(path)


def test_one_image_named_very_often_is_not_copied_beyond_bounds(tmp_path):
    image = np.zeros((1024, 1024, 3), np.uint8)
    path = write(tmp_path / "success_episode_0.npy", [step(images=image)] * 1000)
    assert path.stat().st_size < 4 << 20
    with pytest.raises(DataError, match="more than 2 GiB"):
        read_rollout(path)


def test_files_that_are_no_arrays_of_steps(tmp_path):
    np.save(tmp_path / "numbers.npy", np.zeros(3))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "cut.npy").write_bytes(write(tmp_path / "x.npy", [step()]).read_bytes()[:-40])
    for name, words in [
        ("numbers", "float64"),
        ("text", r"no \.npy file"),
        ("cut", "damaged"),
        ("absent", "not exist"),
    ]:
        with pytest.raises(DataError, match=words):
            read_rollout(tmp_path / f"{name}.npy")
