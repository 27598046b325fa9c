"""Joining, opening and indexing a store's folder."""

import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

from grape.core.errors import CompatibilityError, DataError
from grape.store import EpisodeStore
from grape.store.episode_encoding import encode_episode
from grape.store.index import load_index
from tests.store.episodes import make_episode


def test_create_joins_equal_and_refuses_other_contracts(store: EpisodeStore) -> None:
    store.write(make_episode())
    assert EpisodeStore.create(store.path, "toy", {"action_dim": 7}).ids() == store.ids()
    with pytest.raises(CompatibilityError, match="action_dim was 7, now 6"):
        EpisodeStore.create(store.path, "toy", {"action_dim": 6})
    with pytest.raises(CompatibilityError, match="camera was null, now"):
        EpisodeStore.create(store.path, "toy", {"action_dim": 7, "camera": [1, 2]})
    with pytest.raises(CompatibilityError, match="suite 'toy', not 'metaworld'"):
        EpisodeStore.create(store.path, "metaworld", {"action_dim": 7})


def test_tuples_in_a_contract_equal_lists(tmp_path: Path) -> None:
    for _ in range(2):
        store = EpisodeStore.create(tmp_path / "s", "toy", {"low": (-1.0, 1.0)})
    assert store.contract == {"low": [-1.0, 1.0]}


def test_open_finds_the_store_in_an_output_folder(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "run" / "store", "toy", {})
    assert EpisodeStore.open(tmp_path / "run").path == store.path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "store.json is missing"),
        ("{", "cannot be read as JSON"),
        ('{"format": "zarr"}', "not the header"),
        ("[]", "not the header"),
        ('{"format": "grape-episode-store", "format_version": 1}', "damaged"),
        ('{"format": "grape-episode-store"}', "damaged"),
    ],
)
def test_foreign_folders_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    if content is not None:
        (tmp_path / "store.json").write_text(content)
    with pytest.raises(DataError, match=message):
        EpisodeStore.open(tmp_path)
    with pytest.raises(DataError):
        EpisodeStore.create(tmp_path, "toy", {})
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_missing_folder_and_empty_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        EpisodeStore.open(tmp_path / "nowhere")
    store = EpisodeStore.create(tmp_path / "s", "toy", {})
    assert (store.ids(), store.metas(), store.verify(), len(store)) == ((), (), [], 0)
    with pytest.raises(DataError, match="empty"):
        store.read("a")


def test_a_newer_format_is_refused(store: EpisodeStore) -> None:
    header = json.loads((store.path / "store.json").read_text())
    (store.path / "store.json").write_text(json.dumps({**header, "format_version": 2}))
    with pytest.raises(CompatibilityError, match="version 2") as caught:
        EpisodeStore.open(store.path)
    assert "Install a newer release" in str(caught.value)


def test_an_episode_of_a_newer_format_is_refused(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grape.store.header.Header.version", 3)
    data, _ = encode_episode(make_episode())
    monkeypatch.undo()
    (store.path / "episodes").mkdir()
    path = store.path / "episodes" / "drawer-open-0000-00.parquet"
    path.write_bytes(data)
    with pytest.raises(CompatibilityError, match=str(path)):
        store.read("drawer-open-0000-00")
    assert "newer" in store.verify()[0]


def index_path(store: EpisodeStore) -> Path:
    return store.path / ".cache" / "index.jsonl"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"episodes": {}}', '{"format_version": 1, "episodes": 3}'])
def test_a_broken_index_is_rebuilt(store: EpisodeStore, damage: str) -> None:
    for sample in range(3):
        store.write(make_episode(f"e{sample}", sample=sample))
    expected = store.metas()
    good = index_path(store).read_bytes()
    index_path(store).write_text(damage)
    assert EpisodeStore.open(store.path).metas() == expected
    assert index_path(store).read_bytes() == good


def test_an_index_with_altered_facts_is_not_believed(store: EpisodeStore) -> None:
    store.write(make_episode())
    store.metas()
    index_path(store).write_text(index_path(store).read_text().replace('"success":true', '"success":false'))
    assert EpisodeStore.open(store.path).metas()[0].success is True


def test_a_stale_index_is_brought_up_to_date(store: EpisodeStore) -> None:
    for sample in range(3):
        store.write(make_episode(f"e{sample}", sample=sample))
    other = EpisodeStore.open(store.path)
    assert len(other.metas()) == 3
    store.write(make_episode("e3", sample=3))
    (store.path / "episodes" / "e0.parquet").unlink()
    replaced = make_episode("e1", sample=77)
    (store.path / "episodes" / "e1.parquet").write_bytes(encode_episode(replaced)[0])
    for reader in (other, EpisodeStore.open(store.path)):
        assert [meta.sample for meta in reader.metas()] == [77, 2, 3]
        assert reader.meta("e1").sample == 77


def test_the_index_may_be_unwritable(store: EpisodeStore) -> None:
    store.write(make_episode())
    (store.path / ".cache").write_text("a file where the folder should be")
    assert len(store.metas()) == 1


def test_digest_tells_content_not_place(store: EpisodeStore, tmp_path: Path) -> None:
    store.write(make_episode("a"))
    before = store.digest()
    shutil.copytree(store.path, tmp_path / "copy")
    assert EpisodeStore.open(tmp_path / "copy").digest() == before
    store.write(make_episode("b"))
    assert store.digest() != before


def _write_many(path: str, worker: int, count: int) -> None:
    store = EpisodeStore.create(Path(path), "toy", {})
    for number in range(count):
        store.write(make_episode(f"w{worker}-{number}", seed=worker * 1000 + number))
        store.write(make_episode("shared", seed=5))
        store.metas()


def test_writers_in_several_processes_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_many, args=(str(tmp_path / "s"), number, 12)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    store = EpisodeStore.open(tmp_path / "s")
    assert len(store.ids()) == 37
    assert len(store.metas()) == 37
    assert store.verify() == []
    assert {meta.seed for meta in store.metas()} == {w * 1000 + n for w in range(3) for n in range(12)} | {5}


def test_joining_sweeps_what_dead_processes_left(store: EpisodeStore) -> None:
    store.write(make_episode())
    dead = multiprocessing.get_context("fork").Process(target=int)
    dead.start()
    dead.join()
    folder, old = store.path / "episodes", time.time() - 3600
    kinds = {"dead": (dead.pid, old), "young": (dead.pid, time.time()), "alive": (os.getpid(), old)}
    for name, (process, modified) in kinds.items():
        path = folder / f".{name}.parquet.{process}.00ff.tmp"
        path.write_bytes(b"half")
        os.utime(path, (modified, modified))
    assert len(store.verify()) == 3
    EpisodeStore.create(store.path, "toy", {"action_dim": 7})
    assert sorted(path.name.split(".")[1] for path in folder.glob(".*")) == ["alive", "young"]
    assert len(store.ids()) == 1


def test_episodes_share_equal_facts(store: EpisodeStore) -> None:
    """A store of many episodes holds each instruction, hash and set of versions once."""
    for sample in range(2):
        store.write(make_episode(f"e{sample}", sample=sample))
    for reader in (store, EpisodeStore.open(store.path)):
        one, other = reader.metas()
        assert one.instruction is other.instruction
        assert one.versions is other.versions
        assert one != other


def test_the_index_is_read_once(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(make_episode())
    store.metas()
    reader, read = EpisodeStore.open(store.path), []
    monkeypatch.setattr("grape.store.episode_store.load_index", lambda *given: read.append(given) or load_index(*given))
    assert reader.metas() == reader.metas() == store.metas()
    assert len(read) == 1
