"""What is written comes back bit for bit."""

import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grape.core.errors import CompatibilityError, DataError
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.store import EpisodeStore
from grape.store.episode_encoding import encode_episode
from grape.store.frames import decode_frames, encode_frames
from tests.store.episodes import assert_equal, make_episode

NAMES = st.text(min_size=1, max_size=6)
TEXT = st.text(max_size=20)
INTEGERS = st.integers(1 - 2**63, 2**63 - 1)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**63, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    steps, dim = draw(st.integers(0, 70)), draw(st.integers(1, 8))
    proprio = draw(st.integers(0, 3))
    height, width = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    rows = steps + 1
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))

    def floats(*shape: int) -> np.ndarray:
        return draw(hnp.arrays(np.float32, shape, elements=FLOATS, fill=FLOATS))

    keypoints = draw(st.lists(NAMES, max_size=3, unique=True))
    signals = ["success", *draw(st.lists(NAMES.filter(lambda name: name != "success"), max_size=2, unique=True))]
    meta = EpisodeMeta(
        episode_id=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._=+@,-]{0,20}", fullmatch=True)),
        suite="toy",
        task=draw(TEXT),
        task_index=draw(st.integers(0, 9)),
        instruction=draw(TEXT),
        initial_state=draw(st.integers(0, 2**40)),
        sample=draw(st.integers(0, 99)),
        seed=draw(st.integers(0, 2**63 - 1)),
        success=draw(st.booleans()),
        steps=steps,
        actor=draw(st.sampled_from(["policy", "expert"])),
        operator=draw(TEXT),
        temperature=draw(st.floats(0, 2)),
        prompt=draw(TEXT),
        versions=draw(st.dictionaries(TEXT, TEXT, max_size=2)),
        extra=draw(st.dictionaries(TEXT, JSON, max_size=2)),
    )
    return Trajectory(
        meta=meta,
        frames=rng.integers(0, 256, (rows, height, width, 3), dtype=np.uint8),
        proprio=floats(rows, proprio),
        actions=floats(steps, dim),
        labels=floats(steps, dim),
        action_tokens=rng.integers(-1, 2**31 - 1, (steps, dim), dtype=np.int32),
        token_logps=floats(steps, dim),
        keypoints={name: floats(rows, 3) for name in keypoints},
        signals={name: floats(rows) for name in signals},
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(trajectories())
def test_round_trip_is_exact(trajectory: Trajectory) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore.create(Path(folder) / "s", "toy", {})
        store.write(trajectory)
        name = trajectory.meta.episode_id
        reopened = EpisodeStore.open(store.path)
        assert_equal(reopened.read(name), trajectory)
        bare = reopened.read(name, frames=False)
        assert_equal(bare, trajectory, frames=False)
        assert bare.frames.shape == (trajectory.steps + 1, 0, 0, 3)
        assert reopened.meta(name) == reopened.metas()[0] == trajectory.meta
        assert reopened.verify() == []


@settings(deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(0, 9), st.integers(0, 9), st.just(3))),
)
def test_frames_are_lossless(frames: np.ndarray) -> None:
    decoded = decode_frames(encode_frames(frames), frames.shape[1:])
    assert decoded.tobytes() == frames.tobytes()
    assert decoded.shape == frames.shape


def test_a_still_scene_costs_next_to_nothing() -> None:
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8), 10, axis=0)
    blobs = encode_frames(frames)
    assert max(map(len, blobs[1:])) < 64 < len(blobs[0])


def test_frames_of_another_size_are_refused_before_they_are_decoded() -> None:
    blobs = encode_frames(np.zeros((2, 64, 64, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="size"):
        decode_frames(blobs, (4, 4, 3))


def test_display_is_optional_and_close(store: EpisodeStore) -> None:
    smooth = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None] * 8, (6, 32, 20, 3))
    trajectory = dataclasses.replace(make_episode(), display=smooth)
    store.write(trajectory)
    store.write(make_episode("without"))
    display = store.read(trajectory.meta.episode_id, display=True).display
    assert display is not None
    assert np.abs(display.astype(int) - smooth).max() <= 8
    assert store.read(trajectory.meta.episode_id).display is None
    assert store.read("without", display=True).display is None


def test_decision_columns_are_null_in_the_last_row(store: EpisodeStore) -> None:
    import pyarrow.parquet as pq

    store.write(make_episode(steps=3))
    table = pq.read_table(store.path / "episodes" / "drawer-open-0000-00.parquet")
    for name in ("action", "label", "action_token", "token_logp"):
        values = table.column(name).to_pylist()
        assert [value is None for value in values] == [False, False, False, True]
    assert table.column("keypoint:gripper").null_count == 0
    assert b"grape.episode" in table.schema.metadata


def test_same_episode_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tests.store.episodes import make_episode;"
        "from grape.store.episode_encoding import encode_episode; import hashlib;"
        "print(hashlib.sha256(encode_episode(make_episode(display=True))[0]).hexdigest())"
    )
    here = str(Path(__file__).parents[2])
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code, here], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(hashes) == 1
    assert encode_episode(make_episode())[0] == encode_episode(make_episode())[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.zeros((5, 7))}, "actions? is float64"),
        ({"signals": {"success": np.zeros(6)}}, "signal:success is float64"),
        ({"frames": np.zeros((6, 8, 8, 4), dtype=np.uint8)}, "frames are"),
        ({"display": np.zeros((6, 0, 8, 3), dtype=np.uint8)}, "display images are empty"),
    ],
)
def test_arrays_that_would_not_come_back_are_refused(store: EpisodeStore, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        store.write(dataclasses.replace(make_episode(), **change))
    assert store.ids() == ()


@pytest.mark.parametrize(
    "facts",
    [
        {"seed": np.int64(3)},
        {"extra": {"a": (1, 2)}},
        {"extra": {1: 2}},
        {"extra": {"a": float("nan")}},
        {"success": 1},
        {"versions": None},
        {"task": 3},
    ],
)
def test_facts_that_would_not_come_back_are_refused(store: EpisodeStore, facts: dict) -> None:
    with pytest.raises(DataError):
        store.write(make_episode(**facts))
    assert store.ids() == ()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 300, "ä"])
def test_ids_that_are_no_file_names_are_refused(store: EpisodeStore, name: str) -> None:
    with pytest.raises(DataError, match="file name"):
        store.write(make_episode(name))
    assert name not in store


def test_an_episode_never_changes(store: EpisodeStore) -> None:
    store.write(make_episode())
    before = (store.path / "episodes" / "drawer-open-0000-00.parquet").stat().st_mtime_ns
    store.write(make_episode())
    assert (store.path / "episodes" / "drawer-open-0000-00.parquet").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="another episode"):
        store.write(make_episode(seed=1))
    with pytest.raises(CompatibilityError, match="suite 'other'"):
        store.write(make_episode("b", suite="other"))


def test_unknown_ids_are_named(store: EpisodeStore) -> None:
    store.write(make_episode())
    for read in (store.read, store.meta):
        with pytest.raises(DataError, match="no episode 'drawer-open-0000-01'") as caught:
            read("drawer-open-0000-01")
        assert "Episodes it holds: 1." in str(caught.value)
