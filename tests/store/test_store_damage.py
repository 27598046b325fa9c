"""Kills, full disks, truncated files and flipped bits: nothing half-written, nothing wrong believed."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from grape.core.errors import DataError
from grape.store import EpisodeStore
from grape.store.episode_encoding import encode_episode
from tests.store.episodes import assert_equal, make_episode

HERE = str(Path(__file__).parents[2])
WRITER = f"""
import sys
sys.path.insert(0, {HERE!r})
from pathlib import Path
from tests.loop.killing import FileOperations
from tests.store.episodes import make_episode
from grape.store import EpisodeStore
store = EpisodeStore.create(Path(sys.argv[1]), "toy", {{}})
operations = FileOperations(due=8, late=int(sys.argv[2]), pipe=sys.stdout.fileno())
for number in range(100_000):
    if f"e{{number}}" not in store:
        store.write(make_episode(f"e{{number}}", seed=number, size=(48, 48)))
    if number % 7 == 0:
        store.metas()
"""


def test_kill_in_the_middle_of_writing_loses_only_the_open_episode(tmp_path: Path) -> None:
    path, before = tmp_path / "s", 0
    for late in (0, 1, 2, 0):  # before a rename, before its folder is synced, with the next file half-written
        command = [sys.executable, "-c", WRITER, str(path), str(late)]
        killed = subprocess.run(command, capture_output=True, text=True, check=False)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert killed.stdout.startswith(str(path))
        store = EpisodeStore.open(path)
        assert all(".tmp" in problem for problem in store.verify())
        assert len(store.metas()) == len(store) >= before + 3
        before = len(store)
    last = store.metas()[-1]
    assert_equal(store.read(last.episode_id), make_episode(last.episode_id, seed=last.seed, size=(48, 48)))


def full_disk(path: Path, limit: int) -> subprocess.CompletedProcess[str]:
    code = f"""
import resource, sys
sys.path.insert(0, {HERE!r})
from pathlib import Path
from tests.store.episodes import make_episode
from grape.core.errors import GrapeError
from grape.store import EpisodeStore
store = EpisodeStore.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    store.write(make_episode("big", size=(64, 64)))
except GrapeError as error:
    print(error.exit_code, error)
"""
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("limit", [0, 5000, 60000])
def test_a_full_disk_leaves_nothing_half_written(store: EpisodeStore, limit: int) -> None:
    store.write(make_episode())
    result = full_disk(store.path, limit)
    assert result.stdout.startswith("1 Could not write")
    assert "Free space" in result.stdout
    assert os.listdir(store.path / "episodes") == ["drawer-open-0000-00.parquet"]
    assert store.verify() == []


def test_truncated_files_are_named_and_replaced(store: EpisodeStore) -> None:
    trajectory = make_episode(steps=12)
    store.write(trajectory)
    path = store.path / "episodes" / "drawer-open-0000-00.parquet"
    whole = path.read_bytes()
    rng = random.Random(1)
    for length in [0, 3, 4, 11, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(60))]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=str(path)) as caught:
            store.read("drawer-open-0000-00")
        assert "Move the file away" in str(caught.value)
        with pytest.raises(DataError, match=str(path)):
            store.metas()
        assert len(store.verify()) == 1
    store.write(trajectory)
    assert path.read_bytes() == whole
    assert store.metas() == (trajectory.meta,)


def test_flipped_bits_are_noticed_or_harmless(store: EpisodeStore) -> None:
    trajectory = make_episode(steps=9, display=True)
    store.write(trajectory)
    path = store.path / "episodes" / "drawer-open-0000-00.parquet"
    whole = path.read_bytes()
    rng = random.Random(2)
    noticed, trials = 0, 600
    for _ in range(trials):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read_back = store.read("drawer-open-0000-00", display=True)
        except DataError as error:
            noticed += str(path) in str(error)
        else:  # a bit that carries nothing, e.g. the name of the writing program
            assert_equal(read_back, trajectory)
    assert noticed > 0.9 * trials


def test_every_flip_in_the_content_is_noticed(store: EpisodeStore) -> None:
    store.write(make_episode())
    path = store.path / "episodes" / "drawer-open-0000-00.parquet"
    whole = path.read_bytes()
    for marker in (b'"checksum": "', b'"success":true', b'"instruction":"'):
        place = whole.index(marker) + len(marker) - 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match=str(path)):
            store.metas()


def test_files_that_are_no_episodes_are_named(store: EpisodeStore) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = store.path / "episodes"
    folder.mkdir()
    pq.write_table(pa.table({"a": [1]}), folder / "foreign.parquet")
    with pytest.raises(DataError, match=r"foreign\.parquet is damaged or foreign\. It is a Parquet file but not"):
        store.metas()
    (folder / "foreign.parquet").unlink()
    (folder / "moved.parquet").write_bytes(encode_episode(make_episode("original"))[0])
    with pytest.raises(DataError, match="It holds episode original"):
        store.read("moved")
    (folder / "notes.txt").write_text("hello")
    assert len(store.verify()) == 2


def test_a_damaged_file_does_not_count_as_another_episode(store: EpisodeStore) -> None:
    store.write(make_episode())
    path = store.path / "episodes" / "drawer-open-0000-00.parquet"
    data = bytearray(path.read_bytes())
    data[200] ^= 4
    path.write_bytes(data)
    store.write(make_episode(seed=9))
    assert_equal(store.read("drawer-open-0000-00"), make_episode(seed=9))
