"""Episodes of policies that decide on several actions at once: version 2 of the format."""

import contextlib
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grape.core.chunks import Chunks
from grape.core.errors import DataError
from grape.core.trajectories import Trajectory
from grape.store import EpisodeStore
from grape.store.episode_encoding import encode_episode
from grape.store.episode_file import read_episode, read_header
from grape.store.header import HEADER_KEY, digest_of
from tests.store.episodes import assert_equal, make_chunked_episode, make_episode

ID = "drawer-open-0000-00"
RECORDED = Path(__file__).parents[1] / "recorded" / "release_0_1" / "sampled" / "store"


@st.composite
def episodes(draw: st.DrawFn) -> Trajectory:
    length = draw(st.integers(1, 5))
    return make_chunked_episode(
        tuple(draw(st.lists(st.integers(1, length), max_size=40))),
        length,
        support=draw(st.sampled_from(["vocabulary", "window"])),
        temperature=draw(st.sampled_from([1.0, 1.6])),
        cameras=tuple(draw(st.lists(st.sampled_from(["wrist", "left", "ä"]), unique=True))),
        sampled=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(episodes(), st.data())
def test_round_trip_is_exact(trajectory: Trajectory, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = EpisodeStore.create(Path(folder) / "s", "toy", {})
        store.write(trajectory)
        again = store.read(ID)
        if trajectory.chunks is not None and trajectory.chunks.is_plain:
            trajectory = dataclasses.replace(trajectory, chunks=None)
        assert_equal(again, trajectory)
        assert encode_episode(again)[0] == encode_episode(trajectory)[0]
        assert store.verify() == []
        bare = store.read(ID, frames=False)
        assert_equal(bare, trajectory, frames=False)
        assert bare.frames.shape == (trajectory.decisions + 1, 0, 0, 3)
        decisions = store.decisions(ID)
        assert decisions.tokens.tobytes() == trajectory.action_tokens.tobytes()
        assert (decisions.chunks is None) == (trajectory.chunks is None)
        if trajectory.decisions:
            rows = data.draw(st.lists(st.integers(0, trajectory.decisions - 1), max_size=6))
            assert np.array_equal(store.images(ID, rows), trajectory.frames[rows])
            for name, images in trajectory.cameras.items():
                assert np.array_equal(store.images(ID, rows, name), images[rows])


def header_of(data: bytes, folder: Path) -> dict[str, Any]:
    (folder / "e.parquet").write_bytes(data)
    value = json.loads(pq.read_metadata(folder / "e.parquet").metadata[HEADER_KEY])["header"]
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    ("episode", "version"),
    [
        (make_episode(), 1),
        (make_chunked_episode(), 2),
        (dataclasses.replace(make_episode(), cameras={"wrist": np.zeros((6, 2, 2, 3), np.uint8)}), 2),
        (make_chunked_episode((1, 1), 1, cameras=(), support="window", temperature=1.0), 2),
        (make_chunked_episode((1, 1), 1, cameras=(), support="vocabulary", temperature=1.6), 2),
        (make_chunked_episode((1, 1), 1, cameras=(), support="vocabulary", temperature=1.0), 1),
        (make_chunked_episode((1, 1), 1, cameras=(), sampled=False), 2),
    ],
)
def test_version_2_is_written_only_where_it_says_more(episode: Trajectory, version: int, tmp_path: Path) -> None:
    assert header_of(encode_episode(episode)[0], tmp_path)["format_version"] == version


@pytest.mark.parametrize("path", sorted((RECORDED / "episodes").glob("*.parquet")), ids=lambda path: path.stem)
def test_recorded_episodes_of_version_1_are_written_as_they_were(path: Path) -> None:
    """To equal checksums, on which scores and pairs build; only pyarrow's version may change the bytes around them."""
    assert encode_episode(read_episode(path))[1].checksum == read_header(path).checksum


def test_images_and_decisions_stand_in_the_rows_where_the_policy_looked(store: EpisodeStore) -> None:
    store.write(make_chunked_episode((3, 3, 1), 4))
    table = pq.read_table(store.path / "episodes" / f"{ID}.parquet")
    looked = [True, False, False, True, False, False, True, True]
    for name in ("frame", "frame:wrist"):
        assert [value is not None for value in table.column(name).to_pylist()] == looked
    for name in ("chunk_token", "chunk_logp"):
        assert [value is not None for value in table.column(name).to_pylist()] == [*looked[:-1], False]
    assert "action_token" not in table.column_names
    assert table.column("proprio").null_count == 0


def rewritten(episode: Trajectory, path: Path, change: dict[str, Any], columns: dict[str, Any] | None = None) -> None:
    """Write an episode whose header says something else, under a checksum that fits."""
    path.write_bytes(encode_episode(episode)[0])
    table = pq.read_table(path)
    header = json.loads(table.schema.metadata[HEADER_KEY])["header"] | change
    header["columns"] |= columns or {}
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"))
    text = f'{{"checksum": "{digest_of(canonical.encode())}", "header": {canonical}}}'
    with pq.ParquetWriter(path, table.schema.remove_metadata(), compression="none", store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({HEADER_KEY.decode(): text})


def chunks_of(**change: Any) -> dict[str, Any]:
    stated = {"executed": [3, 3, 1], "length": 4, "support": "window", "temperature": 1.6}
    return {"chunks": {name: value for name, value in (stated | change).items() if value is not ...}}


SHAPE = [3, 4, 7]


@pytest.mark.parametrize(
    ("change", "columns", "sentence"),
    [
        (chunks_of(executed=[3, 3, 2]), {}, "executed 8 actions, not 7"),
        (chunks_of(executed=[5, 1, 1]), {}, "less than 1 or more than 4"),
        (chunks_of(executed=[4, 3, 0]), {}, "less than 1 or more than 4"),
        (chunks_of(executed=[4, 4, -1]), {}, "less than 1 or more than 4"),
        (chunks_of(executed=[2**70]), {}, "less than 1|integer|int"),
        (chunks_of(executed=[4, 3]), {}, "rows of which 5 are empty"),
        (chunks_of(executed=[1, 3, 3]), {}, "rows of which 5 are empty"),
        (chunks_of(executed="3"), {}, "executed"),
        (chunks_of(executed=...), {}, "executed"),
        (chunks_of(length=3), {}, r"not int32 \(3, 3, 7\)"),
        (chunks_of(length=2**40), {}, "less than 1 or more than"),
        (chunks_of(support="top-k"), {}, "over 'top-k'"),
        (chunks_of(support="", temperature=0.0), {}, "beside what its decisions say"),
        (chunks_of(temperature=-1.0), {}, "at temperature -1"),
        ({"chunks": None}, {}, "no column action_token, token_logp"),
        ({"format_version": 1}, {}, "version 1 has neither chunks nor several cameras"),
        ({}, {"chunk_token": [[3, 4], "00"]}, "column 'chunk_token' has the shape"),
        ({}, {"chunk_token": [[3, 2, 14], "00"]}, "checksum|shape"),
        ({"camera_shapes": {"side": [4, 5, 3]}}, {}, "no column frame:side"),
        ({"camera_shapes": {"wrist": [4, 5, 4]}}, {}, "no shape of an RGB image"),
        ({"camera_shapes": {"wrist": [4, 6, 3]}}, {}, "size is not that of 4x6"),
    ],
)
def test_contradicting_headers_are_refused(
    store: EpisodeStore, change: dict[str, Any], columns: dict[str, Any], sentence: str
) -> None:
    path = store.path / "episodes" / f"{ID}.parquet"
    path.parent.mkdir()
    rewritten(make_chunked_episode(), path, change, columns)
    with pytest.raises(DataError, match=sentence) as caught:
        store.read(ID)
    assert str(path) in str(caught.value)
    assert len(store.verify()) == 1


def test_a_camera_that_was_not_recorded_has_no_images(store: EpisodeStore) -> None:
    store.write(make_chunked_episode())
    with pytest.raises(DataError, match="no images of a camera 'side'"):
        store.images(ID, [0], "side")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_truncated_and_altered_files_are_refused(data: st.DataObject) -> None:
    whole = encode_episode(make_chunked_episode())[0]
    place = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    damaged = whole[:place] if cut else whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{ID}.parquet"
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            assert_equal(read_episode(path), make_chunked_episode())  # a bit that no reader looks at
            assert not cut


def test_the_chunk_is_part_of_what_makes_two_episodes_equal() -> None:
    episode = make_chunked_episode()
    assert isinstance(episode.chunks, Chunks)
    other = dataclasses.replace(episode, chunks=dataclasses.replace(episode.chunks, temperature=1.0))
    checksums = {encode_episode(item)[1].checksum for item in (episode, other)}
    assert len(checksums) == 2


@pytest.mark.parametrize("decision", [-1, 3, 99])
def test_decisions_that_it_does_not_hold_have_no_images(tmp_path: Path, decision: int) -> None:
    store = EpisodeStore.create(tmp_path / "s", "toy", {})
    store.write(make_chunked_episode((2, 1, 2), 2))
    with pytest.raises(DataError, match="holds 3 decisions"):
        store.images(ID, [0, decision])
