"""Merging shards gives the bytes of one run; what does not fit together is refused, and a merge can be resumed."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import grape
from grape.cli.main import main
from grape.collect import CollectSettings, MergeSettings, run_collect, run_merge
from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.core.files import read_json, write_json
from grape.core.trajectories import Observation
from grape.policies.base import ActionBatch
from grape.store import EpisodeStore
from tests.collect.test_collect import Still, collect, store_bytes
from tests.reporters import Hearing

SETTINGS = {"tasks": "0", "initial_states": "0-4", "samples": 2, "operators": "sloppy", "workers": 1}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``whole/run``, the shards ``1``, ``2`` and ``3`` of it, and ``more``: the same from other initial states."""
    place = tmp_path_factory.mktemp("played")
    (place / "whole").mkdir()
    with contextlib.chdir(place / "whole"):
        collect(Path("run"), **SETTINGS)
    for number in (1, 2, 3):
        collect(place / str(number), **SETTINGS, shard=f"{number}/3")
    collect(place / "more", **SETTINGS | {"initial_states": "7", "seed": 5, "operators": "clean"})
    return place


@pytest.fixture
def copies(played: Path, tmp_path: Path) -> Path:
    """Copies of what was played, which a test may damage."""
    return Path(shutil.copytree(played, tmp_path / "copies"))


def merge(out: Path, *stores: Path, **changes: bool) -> dict[str, object]:
    return dict(run_merge(MergeSettings(stores=stores, out=out, **changes)))


def everything(folder: Path) -> dict[str, bytes]:
    """All files of a run but its log, which has the time of day."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "log.jsonl"
    }


def test_shards_join_to_the_files_of_one_run(played: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    summary = merge(Path("run"), *(played / number for number in "312"))
    files = everything(tmp_path / "run")
    assert files == everything(played / "whole" / "run")
    assert {"run.json", "plan.json", "done.json", "settings.yaml", "store/store.json"} < files.keys()
    facts = {"stores": 3, "episodes": 10, "copied": 10, "duplicates": 0, "missing": 0}
    assert facts.items() <= summary["merged"].items()  # type: ignore[attr-defined]
    again = merge(Path("run"), *(played / number for number in "123"))
    assert again["merged"]["copied"] == 0  # type: ignore[index]
    assert everything(tmp_path / "run") == files
    # It is that run: the same command finds it complete.
    assert collect(Path("run"), **SETTINGS)["episodes"] == 10


class BatchDependent(Still):
    """A policy whose log-probabilities tell in which batch they were made, as the last bits of a real one's do."""

    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        batch = super().act(observations, temperature=temperature, seeds=seeds)
        return dataclasses.replace(batch, logps=batch.logps - np.float32(sum(seeds or ()) % 1000 + len(observations)))


def test_a_policy_sees_the_batches_of_one_run(tmp_path: Path) -> None:
    settings = CollectSettings(
        out=tmp_path / "whole",
        suite="toy",
        tasks="0",
        initial_states="0-7",
        samples=3,  # a group of four ends within a state: three groups together end with one
        lanes=4,
        max_steps=2,
        workers=1,
        policy="p",
    )
    run_collect(settings, policy=BatchDependent("one"))
    for number in (1, 2):
        shard = dataclasses.replace(settings, out=tmp_path / str(number), shard=f"{number}/2")
        assert not run_collect(shard, policy=BatchDependent("one"))["divides_states"]
    merge(tmp_path / "out", tmp_path / "1", tmp_path / "2")
    assert store_bytes(tmp_path / "out") == store_bytes(tmp_path / "whole")
    store = EpisodeStore.open(tmp_path / "out")
    assert len({store.read(name, frames=False).logp for name in store.ids()}) >= 6  # the batches differ


def test_links_share_the_files_and_a_dry_run_touches_nothing(played: Path, tmp_path: Path) -> None:
    shards = [played / number for number in "123"]
    plan = merge(tmp_path / "out", *shards, dry_run=True)
    assert (plan["copied"], plan["missing"], plan["joins"]) == (10, 0, "shards or copies of one collection")
    assert plan["bytes"] == sum(path.stat().st_size for path in (played / "whole").rglob("*.parquet"))
    assert not list(tmp_path.iterdir())
    merge(tmp_path / "out", *shards, link=True)
    assert store_bytes(tmp_path / "out") == store_bytes(played / "whole" / "run")
    for path in (tmp_path / "out" / "store" / "episodes").iterdir():
        assert path.stat().st_nlink >= 2


def test_missing_shards_are_named_and_what_is_there_can_be_joined(played: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"of 10 episodes are missing: shards not given: 2-3/3\.") as refused:
        merge(out, played / "1")
    assert "--partial" in refused.value.hint
    assert not out.exists()
    listener = Hearing()
    summary = run_merge(MergeSettings((played / "1", played / "3"), out, partial=True), listener)
    assert summary["merged"]["missing"] == len(store_bytes(played / "2"))
    assert any("shards not given: 2/3: the result is an unfinished collection" in line for line in listener.warnings)
    assert not (out / "done.json").exists()
    merge(out, played / "2")  # what is in the folder counts
    assert store_bytes(out) == store_bytes(played / "whole" / "run")
    assert read_json(out / "done.json")["episodes"] == 10


def test_what_an_unfinished_merge_lacks_can_be_played(played: Path, tmp_path: Path) -> None:
    merge(tmp_path / "out", played / "1", played / "2", partial=True)
    collect(tmp_path / "out", **SETTINGS)
    assert store_bytes(tmp_path / "out") == store_bytes(played / "whole" / "run")


def test_equal_episodes_count_once(copies: Path) -> None:
    shutil.copytree(copies / "2", copies / "2-again")
    summary = merge(copies / "out", *(copies / name for name in ("1", "2", "2-again", "3")))
    assert summary["merged"]["duplicates"] == len(store_bytes(copies / "2"))  # type: ignore[index]
    assert store_bytes(copies / "out") == store_bytes(copies / "whole" / "run")
    with pytest.raises(SettingsError, match="is given twice"):
        merge(copies / "other", copies / "1", copies / "1" / "store")


def change_episode(run: Path) -> str:
    """Put another recording in the place of a store's first one."""
    store = EpisodeStore.open(run)
    trajectory = store.read(store.ids()[0], display=True)
    store.place_of(store.ids()[0]).unlink()
    store.write(dataclasses.replace(trajectory, meta=dataclasses.replace(trajectory.meta, seed=99)))
    return trajectory.meta.episode_id


def test_different_episodes_of_one_name_are_refused(copies: Path) -> None:
    shutil.copytree(copies / "2", copies / "2-again")
    name = change_episode(copies / "2-again")
    with pytest.raises(DataError, match=rf"different episodes of equal names \(1: {name}\)"):
        merge(copies / "out", *(copies / item for item in ("1", "2", "2-again", "3")))
    # So does a result that holds another one.
    merge(copies / "out", *(copies / item for item in "123"))
    change_episode(copies / "out")
    with pytest.raises(DataError, match="different episodes"):
        merge(copies / "out", *(copies / item for item in "123"))


def edit(path: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    data = read_json(path)
    change(data)
    write_json(path, data)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda record: record["settings"].update(seed=3), "--seed 0 in .*1, 3 in .*2"),
        (lambda record: record["settings"].update(samples=3), "--samples 2 in"),
        (lambda record: record["settings"].update(max_steps=4), "--max-steps none in"),
        (lambda record: record["inputs"].update(policy_hash="f" * 64), "policy_hash"),
        (lambda record: record["inputs"].update(computation="cuda"), "computation"),
    ],
)
def test_shards_of_other_settings_are_refused(
    copies: Path, change: Callable[[dict[str, dict[str, object]]], object], named: str
) -> None:
    edit(copies / "2" / "run.json", change)
    with pytest.raises(CompatibilityError, match=named):
        merge(copies / "out", copies / "1", copies / "2", copies / "3")
    assert not (copies / "out").exists()


def test_stores_of_other_contracts_are_refused(copies: Path) -> None:
    edit(copies / "2" / "store" / "store.json", lambda header: header["contract"]["versions"].update(toy="9"))  # type: ignore[attr-defined]
    with pytest.raises(CompatibilityError, match=r"different contracts\. versions: "):
        merge(copies / "out", copies / "1", copies / "2", copies / "3")


def test_truncated_files_are_named_and_nothing_is_lost(copies: Path) -> None:
    shards = [copies / number for number in "123"]
    path = sorted((copies / "3" / "store" / "episodes").iterdir())[-1]
    data = path.read_bytes()
    middle = len(data) // 3
    for broken, message in (
        (data[:-100], f"{path.name} is truncated or damaged"),
        (data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :], path.name),
    ):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=message):
            merge(copies / "out", *shards)
        assert not (copies / "out" / "done.json").exists()
    path.write_bytes(data)
    merge(copies / "out", *shards)
    assert store_bytes(copies / "out") == store_bytes(copies / "whole" / "run")


def test_what_a_store_has_lost_or_never_had_is_counted(copies: Path) -> None:
    shards = [copies / number for number in "123"]
    own = len(store_bytes(copies / "2"))
    sorted((copies / "2" / "store" / "episodes").iterdir())[0].unlink()
    with pytest.raises(DataError, match=rf"1 of 10 episodes are missing: {copies}/2 lacks 1 of {own}\."):
        merge(copies / "out", *shards)
    (copies / "2" / "done.json").unlink()
    with pytest.raises(DataError, match=f"lacks 1 of {own}"):
        merge(copies / "out", *shards)
    collect(copies / "2", **SETTINGS, shard="2/3")
    merge(copies / "out", *shards)
    assert store_bytes(copies / "out") == store_bytes(copies / "whole" / "run")


def test_an_unfinished_collection_of_unknown_size_stays_unfinished(copies: Path) -> None:
    whole = copies / "whole" / "run"
    edit(whole / "plan.json", lambda plan: plan.update(episodes=None))  # as where further rounds depend on outcomes
    (whole / "done.json").unlink()
    with pytest.raises(DataError, match="was not finished"):
        merge(copies / "out", whole)
    merge(copies / "out", whole, partial=True)
    assert not (copies / "out" / "done.json").exists()
    collect(copies / "out", **SETTINGS)
    assert read_json(copies / "out" / "done.json")["episodes"] == 10


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("plan.json", '{"episodes": 4, "shard": "2/3", "whole": 11}', "different numbers of episodes"),
        ("plan.json", '{"episodes": 4, "shard": "2/3", "whole": ', "plan.json"),
        ("run.json", '{"verb": "collect"}', "run.json is damaged"),
        ("run.json", "[]", "holds no JSON object"),
        ("run.json", '{"verb": "collect", "settings": {"shard": [2]}, "inputs": {}}', "run.json is damaged"),
        ("settings.yaml", "suite: toy\nout: x\n", "do not agree"),
        ("settings.yaml", "nothing: 1\n", "cannot be read"),
        ("store/store.json", "{}", "store.json"),
    ],
)
def test_damaged_records_are_refused(copies: Path, file: str, text: str, message: str) -> None:
    (copies / "2" / file).write_text(text)
    with pytest.raises(GrapeError, match=message):
        merge(copies / "out", copies / "2", copies / "1", copies / "3")


def test_a_full_disk_is_seen_before_anything_is_written(
    played: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [played / number for number in "123"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**20, 2**20, 1000))  # type: ignore[attr-defined]
    with pytest.raises(GrapeError, match="MiB left"):
        merge(tmp_path / "out", *shards)
    assert not (tmp_path / "out").exists()
    merge(tmp_path / "linked", *shards, link=True)


def test_a_disk_that_fills_up_half_way_loses_nothing(
    played: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [played / number for number in "123"]
    fsync, count = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += 1
        if count > 14:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(GrapeError, match="No space left"):
            merge(tmp_path / "out", *shards)
    assert 0 < len(store_bytes(tmp_path / "out")) < 10
    merge(tmp_path / "out", *shards)
    assert store_bytes(tmp_path / "out") == store_bytes(played / "whole" / "run")


def test_links_need_one_file_system(played: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(*paths: object, **options: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across)
    with pytest.raises(GrapeError, match="cannot be linked") as refused:
        merge(tmp_path / "out", *(played / number for number in "123"), link=True)
    assert "leave --link out" in refused.value.hint


def test_collections_that_were_played_alike_are_joined(copies: Path) -> None:
    whole, more = copies / "whole" / "run", copies / "more"
    summary = merge(copies / "out", whole, more)
    assert summary["episodes"] == 12
    expected = store_bytes(whole) | store_bytes(more)
    assert store_bytes(copies / "out") == expected
    record = read_json(copies / "out" / "run.json")
    assert record["verb"] == "merge"
    assert merge(copies / "out", more, whole)["merged"]["copied"] == 0  # type: ignore[index]
    with pytest.raises(CompatibilityError, match="another run"):
        merge(copies / "out", more)
    with pytest.raises(CompatibilityError, match=r"is shard 1/3 of a collection.*--initial-states"):
        merge(copies / "other", copies / "1", more)
    # What was merged knows what its collections had in common.
    edit(more / "run.json", lambda item: item["settings"].update(max_steps=4))
    with pytest.raises(CompatibilityError, match=r"not collected alike: --max-steps none in .*out, 4 in .*more"):
        merge(copies / "other", copies / "out", more)


def test_a_store_without_a_record_is_compared_by_what_its_episodes_say(copies: Path) -> None:
    shutil.copytree(copies / "more" / "store", copies / "bare")
    listener = Hearing()
    run_merge(MergeSettings((copies / "whole" / "run", copies / "bare"), copies / "out"), listener)
    assert any("bare does not say how it was collected" in line for line in listener.warnings)
    change_meta(copies / "bare", policy_hash="a" * 64)
    with pytest.raises(CompatibilityError, match="policy_hash of"):
        merge(copies / "other", copies / "whole" / "run", copies / "bare")


def change_meta(place: Path, **changes: object) -> None:
    store = EpisodeStore.open(place)
    for name in store.ids():
        trajectory = store.read(name, display=True)
        store.place_of(name).unlink()
        store.write(dataclasses.replace(trajectory, meta=dataclasses.replace(trajectory.meta, **changes)))  # type: ignore[arg-type]


def test_the_result_does_not_lie_among_the_stores(copies: Path) -> None:
    for out in (copies / "1", copies / "1" / "store", copies / "1" / "store" / "merged", copies):
        with pytest.raises(SettingsError, match="lie in each other"):
            merge(out, copies / "1", copies / "2", copies / "3")
    with pytest.raises(SettingsError, match="No stores"):
        merge(copies / "out")


def test_a_program_merges_what_it_collected(played: Path, tmp_path: Path) -> None:
    stores = [EpisodeStore.open(played / "1"), played / "2", str(played / "3")]
    merged = grape.merge(stores, out=tmp_path / "out")
    assert isinstance(merged, grape.CollectResult)
    assert (merged.episodes, merged.missing, len(merged.store)) == (10, 0, 10)
    part = grape.merge(settings=grape.MergeSettings(stores=(played / "1",), out=tmp_path / "part"), partial=True)
    assert part.missing == 10 - part.episodes > 0


def test_the_command_takes_the_stores_as_words(
    played: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = [str(played / number) for number in "123"]
    assert main(["merge", *shards, "--out", str(tmp_path / "out"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["episodes"], summary["merged"]["stores"]) == (10, 3)
    assert main(["merge", shards[0], "--out", str(tmp_path / "part")]) == 2
    assert "shards not given: 2-3/3" in capsys.readouterr().err
