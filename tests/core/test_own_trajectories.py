"""Trajectories of anyone's simulator or robot, from arrays."""

import base64
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grape.core.chunks import Chunks
from grape.core.errors import DataError, SettingsError
from grape.core.film_strips import film_strip, strip_rows
from grape.core.tables import Table
from grape.core.trajectories import Trajectory
from grape.store import EpisodesInMemory, save_trajectories

STEPS = 4


def build(**changes: Any) -> Trajectory:
    given: dict[str, Any] = {
        "task": "stack the cups",
        "instruction": "stack the cups",
        "images": np.zeros((STEPS + 1, 8, 6, 3), np.uint8),
        "actions": [[0.0, 0.5]] * STEPS,
        "success": True,
        "initial_state": 3,
        "sample": 1,
    }
    return Trajectory.from_arrays(**(given | changes))


@pytest.mark.parametrize("task", ["_hidden/../x", "+1", "." * 9, "long " * 99, "stack a+b", "\u62bd\u5c49", ""])
def test_any_name_of_a_task_gives_an_id_that_a_store_takes(task: str, tmp_path: Path) -> None:
    trajectory = build(task=task)
    store = save_trajectories(tmp_path / "store", [trajectory])
    assert store.read(trajectory.meta.episode_id).meta.task == task


def test_names_in_another_script_are_told_apart() -> None:
    texts = (
        "\u62bd\u5c49",
        "\u676f\u5b50",
        "\u62bd cup",
        "\u676f cup",
        "Pick \xe9",
        "Pick \xe8",
        "long " * 30,
        "long " * 31,
    )
    assert len({build(task=text).meta.episode_id for text in texts}) == len(texts)


def test_names_that_differ_in_nothing_a_file_name_holds_are_told() -> None:
    with pytest.raises(DataError, match="stack-the-cups-i000003-k01") as caught:
        EpisodesInMemory([build(), build(task="stack the/cups")])
    assert "stack the cups and stack the/cups" in caught.value.hint


def test_lists_become_a_trajectory() -> None:
    trajectory = build(tokens=[[1, 2]] * STEPS, logps=[[-0.5, -0.25]] * STEPS, keypoints={"cup": [[0, 0, 1]] * 5})
    assert trajectory.actions.dtype == np.float32
    assert trajectory.meta.episode_id == "stack-the-cups-i000003-k01"
    assert trajectory.signals["success"].tolist() == [0, 0, 0, 0, 1]
    assert trajectory.logp == -3.0
    assert np.array_equal(trajectory.labels, trajectory.actions)
    assert repr(trajectory) == (
        "Trajectory('stack-the-cups-i000003-k01', own/stack the cups, success, 4 control steps, images 8x6, "
        "1 keypoints, R_self -3)"
    )


def test_an_unknown_outcome_is_no_failure() -> None:
    trajectory = build(success=None, proprio=np.zeros((5, 3)))
    assert trajectory.meta.success is None
    assert np.isnan(trajectory.signals["success"]).all()
    assert "outcome unknown" in repr(trajectory)
    assert np.isnan(trajectory.logp)


def test_a_chunk_is_one_decision() -> None:
    shape = (2, 3, 2)
    chunks = Chunks(
        np.array([3, 1], np.int32), 3, np.ones(shape, np.int32), np.full(shape, -1, np.float32), "window", 1.6
    )
    trajectory = build(images=np.zeros((3, 8, 6, 3), np.uint8), chunks=chunks, temperature=1.6)
    assert (trajectory.decisions, trajectory.steps, trajectory.logp) == (2, 4, -8.0)
    assert "2 decisions" in repr(trajectory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((STEPS, 8, 6, 3), np.uint8)}, "images: 4 for 4 decisions.*\n.*repeat the one before"),
        ({"images": np.zeros((STEPS + 1, 8, 6, 3))}, r"images: float64 \(5, 8, 6, 3\), not uint8"),
        ({"cameras": {"wrist": np.zeros((2, 8, 6, 3), np.uint8)}}, "camera wrist: 2 for 4"),
        ({"actions": [0.0] * STEPS}, r"actions: the shape is \(4,\), not one of 2 axes"),
        ({"actions": [[0.0], [0.0, 1.0]]}, "actions: no array of numbers"),
        ({"actions": [[np.nan, 0.0]] * STEPS}, "actions: a number is not finite"),
        ({"actions": np.zeros((0, 2))}, "actions are empty"),
        ({"tokens": [[1, 2]] * STEPS}, "tokens, logps and chunks do not go together"),
        ({"tokens": [[1, 2]] * 3, "logps": [[-1, -2]] * 3}, r"action_tokens is \(3, 2\), not \(4, 2\)"),
        ({"keypoints": {"cup": np.zeros((STEPS, 3))}}, r"keypoint cup is \(4, 3\), not \(5, 3\)"),
        ({"polcy_hash": "x"}, "Unknown fact 'polcy_hash'.*\n.*Did you mean 'policy_hash'"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(**changes)


class _Numbers(Table):
    def __init__(self, count: int) -> None:
        self.count = count

    def __repr__(self) -> str:
        return f"{self.count} <numbers>"

    def __len__(self) -> int:
        return self.count

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        for number in range(self.count):
            self.made = number + 1
            yield {"n": number, "half": number / 2, "none": None, "why": "word " * 20}


def test_a_table_is_escaped_html_of_its_first_rows() -> None:
    numbers = _Numbers(1000)
    page = numbers._repr_html_()
    assert numbers.made == 10  # no row is made that is not shown
    assert "1000 &lt;numbers&gt;" in page
    right = '<td style="text-align: right">'
    assert f'{right}9</td>{right}4.5</td><td style="white-space: nowrap"></td>' in page
    assert f'<td style="text-align: left; min-width: 30em">{"word " * 20}</td>' in page
    assert ">10</td>" not in page
    assert "and 990 more" in page
    assert "table" not in _Numbers(0)._repr_html_()


def test_a_notebook_shows_a_trajectory_as_its_line_and_a_film_strip_with_the_last_image() -> None:
    images = np.zeros((21, 24, 32, 3), np.uint8)
    images[20] = 255
    trajectory = build(task="<push>", images=images, actions=np.zeros((20, 2)))
    page = trajectory._repr_html_()
    assert "&lt;push&gt;" in page
    assert "<push>" not in page
    assert 'alt="images 0, 3, 6, 9, 12, 15, 18, 20 of the episode"' in page
    data = base64.b64decode(page.partition("base64,")[2].partition('"')[0])
    strip = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    cell = strip.shape[1] // 8
    assert strip[:, : 7 * cell - 8].max() < 30 < 225 < strip[:, 7 * cell + 8 :].min()
    assert "<img" not in strip_rows([("no images", np.zeros((4, 0, 0, 3), np.uint8))])


@pytest.mark.parametrize(("high", "wide"), [(1, 2000), (1, 30_000), (2000, 1), (30_000, 1), (1, 1)])
def test_images_much_longer_than_the_other_way_stay_within_their_cells(high: int, wide: int) -> None:
    trajectory = build(images=np.full((5, high, wide, 3), 255, np.uint8), actions=np.zeros((4, 2)))
    data = base64.b64decode(trajectory._repr_html_().partition("base64,")[2].partition('"')[0])
    strip = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    cell = {1: 80, 2000: 320, 30_000: 320}[wide] if wide >= high else 20
    assert strip.shape == (80, 5 * cell)
    assert (strip.reshape(80, 5, cell).max(axis=(0, 2)) > 200).all()  # each image is still seen


def test_a_panorama_is_shown_whole_in_its_proportions() -> None:
    images = np.full((2, 10, 160, 3), 255, np.uint8)
    images[:, :, 80:] = 0
    strip = np.asarray(Image.open(io.BytesIO(film_strip(images))).convert("L"))
    assert strip.shape == (80, 640)
    assert np.count_nonzero(strip[:, 40] > 128) == 20  # 320 by 20 pixels, in the middle of the cell
    assert [bool(strip[40, column] > 128) for column in (80, 240, 400, 560)] == [True, False, True, False]


def test_a_data_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SettingsError, match="pip install pandas"):
        _Numbers(2).to_pandas()


def test_a_data_frame_has_the_rows() -> None:
    pandas = pytest.importorskip("pandas")
    frame = _Numbers(3).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["half"].tolist() == [0, 0.5, 1]
