"""Episode files that would hang, are links out of the store, or announce more than they hold."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from grape.core.errors import DataError
from grape.store import EpisodeStore
from grape.store.episode_encoding import encode_episode
from grape.store.frames import decode_display, decode_frames
from grape.store.header import digest_of, header_from_json, header_to_json
from tests.store.episodes import make_episode

NAME = "drawer-open-0000-00"


@pytest.fixture
def written(store):
    store.write(make_episode())
    return store, store.path / "episodes" / f"{NAME}.parquet"


def test_an_episode_that_is_a_pipe_a_link_out_or_huge_is_refused_at_once(written, tmp_path):
    store, path = written
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    for make in (
        lambda: path.symlink_to(elsewhere),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.write_bytes(b"") or os.truncate(path, 20 * 2**30),
    ):
        make()
        with pytest.raises(DataError, match=NAME):
            store.read(NAME)
        path.unlink()
    os.mkfifo(path)
    for read in (store.read, store.meta):
        with pytest.raises(DataError):
            read(NAME)
    with pytest.raises(DataError):
        EpisodeStore.open(store.path).metas()


def test_a_footer_that_announces_more_than_the_file_holds_is_refused(written):
    store, path = written
    table = pa.table({"frame": pa.array([bytes(2**20)] * 20, pa.binary())})
    pq.write_table(table, path, compression="zstd")
    with pytest.raises(DataError, match="announces"):
        store.read(NAME)


@pytest.mark.parametrize("value", [{}, [], None, "x", -1, 2**62, [[1]], True])
def test_every_field_of_a_header_is_checked(value):
    text, _ = header_to_json(encode_episode(make_episode())[1])
    header = json.loads(text)["header"]
    for holder, key in ((header, "frame_shape"), (header, "columns"), (header["columns"], "action")):
        kept, holder[key] = holder[key], value
        canonical = json.dumps(header, sort_keys=True, separators=(",", ":"))
        damaged = json.dumps({"checksum": digest_of(canonical.encode()), "header": header})
        with pytest.raises(DataError):
            header_from_json(damaged)
        holder[key] = kept


def test_images_are_bounded_before_anything_is_allocated():
    for decode in (decode_frames, decode_display):
        with pytest.raises(DataError, match="more than an episode may hold"):
            decode([b"x"] * 1000, (16_384, 16_384, 3))


def test_a_broken_or_foreign_index_is_left_aside(written):
    store, _ = written
    metas = store.metas()
    index = store.path / ".cache" / "index.jsonl"
    for text in ("[" * 100_000, "[]", '{"episodes": [1]}', "9" * 5000):
        index.write_text(text)
        assert EpisodeStore.open(store.path).metas() == metas
    index.unlink()
    os.mkfifo(index)
    assert EpisodeStore.open(store.path).metas() == metas
