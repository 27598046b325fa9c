"""Packs: many episodes in one file, which every reader takes as it takes single files."""

import io
import os
import shutil
import signal
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from grape.cli.main import main
from grape.collect import CollectSettings, MergeSettings, run_collect, run_merge
from grape.core.errors import DataError, GrapeError, SettingsError
from grape.preferences import PairSettings, ScoreSettings, read_pairs, run_pair, run_score
from grape.store import EpisodeFile, EpisodeStore, open_stores
from grape.store.packs import Packs, write_pack
from tests.loop.killing import FileOperations
from tests.store.episodes import assert_equal, make_chunked_episode, make_episode

EPISODES = [
    make_episode("a", 5, display=True, seed=1),
    make_chunked_episode((3, 3, 1), episode_id="b", seed=2),
    *(make_episode(name, 4, seed=number + 3) for number, name in enumerate("cdefg")),
]


@pytest.fixture
def single(tmp_path: Path) -> EpisodeStore:
    """Seven episodes, a file each."""
    store = EpisodeStore.create(tmp_path / "single", "toy", {"kind": "test"})
    for episode in EPISODES:
        store.write(episode)
    return store


@pytest.fixture
def packed(single: EpisodeStore, tmp_path: Path) -> EpisodeStore:
    """The same, three in a file."""
    run_merge(MergeSettings(stores=(single.path,), out=tmp_path / "packed", pack=3))
    return EpisodeStore.open(tmp_path / "packed")


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``run`` of eight rollouts, ``packed`` of the same with five in a file."""
    place = tmp_path_factory.mktemp("rollouts")
    settings = {"suite": "toy", "tasks": "push-block", "initial_states": "0-3", "samples": 2, "operators": "sloppy"}
    run_collect(CollectSettings(out=place / "run", **settings, workers=1))
    run_merge(MergeSettings(stores=(place / "run",), out=place / "packed", pack=5))
    return place


def packs_of(store: EpisodeStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((store.path / "packs").iterdir())}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def test_packed_episodes_are_those_that_were_packed(single: EpisodeStore, packed: EpisodeStore) -> None:
    assert [path.name for path in packed.packs.paths()] == [f"pack-{number:06d}.zip" for number in range(3)]
    assert not (packed.path / "episodes").exists()
    assert len(packed) == 7
    assert packed.ids() == single.ids()
    assert packed.metas() == single.metas()
    assert packed.digest() == single.digest()
    assert packed.verify() == []
    assert "a" in packed
    assert "z" not in packed
    assert "../a" not in packed
    for episode in EPISODES:
        name = episode.meta.episode_id
        assert packed.meta(name) == single.meta(name)
        assert_equal(packed.read(name), episode)
        assert_equal(packed.read(name, frames=False), single.read(name, frames=False), frames=False)
        assert packed.display_files(name) == single.display_files(name)
        np.testing.assert_array_equal(packed.decisions(name).tokens, single.decisions(name).tokens)
        np.testing.assert_array_equal(packed.images(name, [2, 0]), single.images(name, [2, 0]))
    with pytest.raises(DataError, match="no episode 'z'"):
        packed.read("z")


def test_any_program_unpacks_the_very_bytes(single: EpisodeStore, packed: EpisodeStore, tmp_path: Path) -> None:
    for path in packed.packs.paths():
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            archive.extractall(tmp_path / "unpacked")
    assert files_of(tmp_path / "unpacked") == files_of(single.path / "episodes")
    run_merge(MergeSettings(stores=(packed.path,), out=tmp_path / "again"))
    assert files_of(tmp_path / "again" / "store" / "episodes") == files_of(single.path / "episodes")


def test_the_index_is_used_and_may_be_lost(packed: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = packed.metas()
    monkeypatch.setattr("grape.store.episode_store.read_header", lambda place: pytest.fail("a header was read"))
    assert EpisodeStore.open(packed.path).metas() == expected
    monkeypatch.undo()
    shutil.rmtree(packed.path / ".cache")
    assert EpisodeStore.open(packed.path).metas() == expected


def test_a_store_may_hold_both(packed: EpisodeStore, tmp_path: Path) -> None:
    added = make_episode("h", 3, seed=20)
    packed.write(added)
    packed.write(EPISODES[0])  # is there: nothing happens
    assert [path.name for path in (packed.path / "episodes").iterdir()] == ["h.parquet"]
    assert packed.ids() == tuple("abcdefgh")
    with pytest.raises(DataError, match="another episode a"):
        packed.write(make_episode("a", 5, seed=99))
    other = EpisodeStore.create(tmp_path / "other", "toy", {"kind": "test"})
    other.write(make_episode("i", 3, seed=21))
    both = open_stores((packed.path, other.path))
    assert both.ids() == tuple("abcdefghi")
    assert_equal(both.read("b"), EPISODES[1])
    write_pack(packed.packs.next_path(), [("j", EpisodeFile.encode(make_episode("j", 2)).data)])
    assert packed.ids() == tuple("abcdefghj")  # a store that is open sees what comes later


def test_equal_stores_give_equal_packs_whichever_comes_first(single: EpisodeStore, tmp_path: Path) -> None:
    halves = [EpisodeStore.create(tmp_path / name, "toy", {"kind": "test"}) for name in ("one", "two")]
    for number, episode in enumerate(EPISODES):
        halves[number % 2].write(episode)
    stores = []
    for name, sources in (("x", halves), ("y", halves[::-1]), ("z", [single])):
        run_merge(MergeSettings(stores=tuple(store.path for store in sources), out=tmp_path / name, pack=4))
        stores.append(EpisodeStore.open(tmp_path / name))
    assert packs_of(stores[0]) == packs_of(stores[1]) == packs_of(stores[2])


@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_killed_merge_resumes_to_the_same_bytes(
    single: EpisodeStore, packed: EpisodeStore, tmp_path: Path, late: int
) -> None:
    settings = MergeSettings(stores=(single.path,), out=tmp_path / "killed", pack=3)
    kills = 0
    for due in range(1, 20):
        shutil.rmtree(settings.out, ignore_errors=True)
        child = os.fork()
        if not child:
            try:
                FileOperations(due, late, os.open(os.devnull, os.O_WRONLY))
                run_merge(settings)
            finally:
                os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            break
        kills += 1
        run_merge(settings)
        assert packs_of(EpisodeStore.open(settings.out)) == packs_of(packed)
    assert kills >= 4  # three packs and more


def test_scores_and_pairs_are_those_of_single_files(rollouts: Path, tmp_path: Path) -> None:
    rows = {}
    for name in ("run", "packed"):
        run_score(ScoreSettings(store=rollouts / name, out=tmp_path / name / "scores"))
        run_pair(PairSettings(scores=tmp_path / name / "scores", out=tmp_path / name / "pairs"))
        assert read_pairs(tmp_path / name / "pairs")
        rows[name] = [(tmp_path / name / file).read_bytes() for file in ("scores/scores.jsonl", "pairs/pairs.jsonl")]
    assert rows["run"] == rows["packed"]


def test_the_result_is_the_collection_that_was_packed(rollouts: Path, tmp_path: Path) -> None:
    assert (rollouts / "packed" / "run.json").read_bytes() == (rollouts / "run" / "run.json").read_bytes()
    shutil.copytree(rollouts / "packed", tmp_path / "run")
    settings = {"suite": "toy", "tasks": "push-block", "samples": 2, "operators": "sloppy", "out": tmp_path / "run"}
    summary = run_collect(CollectSettings(**settings, initial_states="0-3", workers=1))
    assert summary["episodes"] == 8
    assert not (tmp_path / "run" / "store" / "episodes").exists()
    run_collect(CollectSettings(**settings, initial_states="0-4", workers=1, extend=True))
    assert len(list((tmp_path / "run" / "store" / "episodes").iterdir())) == 2
    assert len(EpisodeStore.open(tmp_path / "run")) == 10


@pytest.mark.needs("hub")
def test_packs_are_pushed_as_they_are(rollouts: Path, tmp_path: Path) -> None:
    words = ["push", str(rollouts / "packed"), "--to", "lab/packed", "--license", "mit", "--offline"]
    assert main([*words, "--out", str(tmp_path / "parcel")]) == 0
    (store,) = (path.parent for path in tmp_path.rglob("store.json"))
    assert packs_of(EpisodeStore.open(store)) == packs_of(EpisodeStore.open(rollouts / "packed"))
    assert EpisodeStore.open(store).digest() == EpisodeStore.open(rollouts / "run").digest()


def test_the_command_line(single: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["merge", str(single.path), "--out", str(tmp_path / "out"), "--pack", "256"]
    assert main([*words, "--dry-run"]) == 0
    assert not (tmp_path / "out").exists()
    assert main(words) == 0
    assert "copied      7" in capsys.readouterr().out
    assert len(EpisodeStore.open(tmp_path / "out").packs.paths()) == 1
    assert main([*words, "--link"]) == 2
    assert "--pack copies" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="--pack is -1"):
        run_merge(MergeSettings(stores=(single.path,), out=tmp_path / "x", pack=-1))
    packed = EpisodeStore.open(tmp_path / "out")
    with pytest.raises(GrapeError, match=r"cannot be linked: it is a part of .*pack-000000\.zip"):
        run_merge(MergeSettings(stores=(packed.path,), out=tmp_path / "linked", link=True))


def test_a_damaged_episode_is_found_and_can_be_replaced(packed: EpisodeStore, tmp_path: Path) -> None:
    place = packed.place_of("d")
    pack = bytearray(place.pack.read_bytes())
    pack[place.header + 60] ^= 1
    place.pack.write_bytes(pack)
    damaged = EpisodeStore.open(packed.path)
    (problem,) = damaged.verify()
    assert "d.parquet in pack" in problem
    assert "pack-000001.zip" in problem
    with pytest.raises(DataError) as caught:
        damaged.read("d")
    assert "Restore the pack" in caught.value.hint  # moving the pack away would lose its other episodes, too
    with pytest.raises(DataError, match="checksum does not fit"):
        run_merge(MergeSettings(stores=(packed.path,), out=tmp_path / "copy"))
    damaged.write(EPISODES[3])
    assert damaged.verify() == []
    assert_equal(damaged.read("d"), EPISODES[3])


def foreign_packs() -> dict[str, bytes]:
    """Files that are no packs, or hold what packs do not."""

    def archive(name: str) -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as made:
            made.writestr(name, EpisodeFile.encode(EPISODES[0]).data)
        return target.getvalue()

    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 2**31, 0, 0)
    return {
        "empty": b"",
        "no archive": b"x" * 5000,
        "a path that climbs": archive("../a.parquet"),
        "no episode": archive("notes.txt"),
        "a large directory": bytes(2**20) + end,
    }


@pytest.mark.parametrize("what", foreign_packs())
def test_what_is_no_pack_is_refused_by_name(packed: EpisodeStore, what: str, capsys: pytest.CaptureFixture) -> None:
    (packed.path / "packs" / "x.zip").write_bytes(foreign_packs()[what])
    for read in (packed.ids, packed.metas, lambda: packed.read("zzz")):
        with pytest.raises(DataError, match=r"Pack .*x\.zip"):
            read()
    (problem,) = packed.verify()
    assert "x.zip" in problem
    assert main(["score", "--store", str(packed.path), "--out", str(packed.path.parent / "scores")]) in (1, 2)
    assert "x.zip" in capsys.readouterr().err


def test_compressed_and_repeated_members_are_refused(packed: EpisodeStore) -> None:
    data = EpisodeFile.encode(make_episode("z", 3)).data
    with zipfile.ZipFile(packed.path / "packs" / "z.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("z.parquet", data)
    assert "z" in packed
    with pytest.raises(DataError, match="compressed"):
        packed.read("z")
    write_pack(packed.path / "packs" / "z.zip", [("y", data), ("z", data)])
    pack = (packed.path / "packs" / "z.zip").read_bytes().replace(b"y.parquet", b"z.parquet")
    (packed.path / "packs" / "z.zip").write_bytes(pack)
    with pytest.raises(DataError, match="two episodes of one name"):
        packed.ids()


def test_no_damage_ends_in_anything_but_an_error(packed: EpisodeStore, tmp_path: Path) -> None:
    """Bytes of the archive's own structure, changed and cut off at random places."""
    sound = packed.packs.paths()[0].read_bytes()
    headers = [packed.place_of(name).header for name in "abc"]
    directory = sound.index(b"PK\x01\x02")
    rng = np.random.default_rng(0)
    places = [header + offset for header in headers for offset in range(0, 40, 2)]
    places += rng.integers(directory, len(sound), 150).tolist()
    path = tmp_path / "packs" / "x.zip"
    path.parent.mkdir()
    outcomes = set()
    for number, place in enumerate(places):
        pack = bytearray(sound)
        pack[place] ^= int(rng.integers(1, 256))
        path.write_bytes(pack[: int(rng.integers(0, len(pack)))] if number % 10 == 9 else pack)
        os.utime(path, ns=(number, number))
        try:
            for file in Packs(path.parent).files().values():
                EpisodeFile.parse(file.read(), "x")
            outcomes.add("read")
        except GrapeError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}  # some bytes mean nothing, as those of dates
