"""``grape export rlds``: what it writes, when it refuses, and what stands where it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.exchange import RldsExportSettings, run_export_rlds
from grape.preferences import read_pairs
from grape.store import EpisodeStore
from grape.store.rlds import comparison, open_rlds
from grape.store.rlds.joining import join_pairs
from grape.store.rlds.standardize import RULES, gripper_from_loader, rule_for, standard_episodes
from tests.exchange.recordings import CONTRACT, loader_actions, make_recordings
from tests.store.episodes import make_episode

SIDES = ("chosen", "rejected")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return make_recordings(tmp_path_factory.mktemp("run"))


def export(recordings, out, **options):
    return run_export_rlds(RldsExportSettings(**({"pairs": recordings[1], "out": out} | options)))


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_both_sides_correspond(recordings, tmp_path):
    store, folder = recordings
    summary = export(recordings, tmp_path / "out", val_fraction=0.5, shards=2)
    assert summary["pairs"] == 4
    assert summary["splits"]["val"] == {"pairs": 2, "shard_lengths": [1, 1]}
    assert summary["steps"] == {"chosen": 3 + 4 + 5 + 6, "rejected": 24}
    by_id = {pair.pair_id: pair for pair in read_pairs(folder)}
    order = {}
    for side in SIDES:
        dataset = open_rlds(tmp_path / "out" / side / "rlds_np_rollout" / "1.0.0")
        order[side] = {split: [episode.file_path for episode in dataset.read(split)] for split in ("train", "val")}
        for episode in dataset.read("all"):
            expected = store.read(getattr(by_id[episode.file_path], side))
            assert episode.length == expected.steps
            np.testing.assert_array_equal(episode.steps["observation/image"].decode(), expected.frames[:-1])
            np.testing.assert_allclose(episode.steps["action"], loader_actions(expected.actions), atol=1e-6)
            assert set(episode.steps["language_instruction"]) == {"öffne the drawer"}
            assert episode.steps["reward"].tolist() == [0] * (expected.steps - 1) + [float(expected.meta.success)]
            assert episode.steps["is_terminal"].tolist() == [False] * (expected.steps - 1) + [expected.meta.success]
            assert episode.steps["is_last"].tolist() == [False] * (expected.steps - 1) + [True]
            assert episode.steps["is_first"].tolist() == [True] + [False] * (expected.steps - 1)
    assert order["chosen"] == order["rejected"]
    assert sorted(order["chosen"]["train"] + order["chosen"]["val"]) == sorted(by_id)


def test_pairs_come_back_through_the_published_rule(recordings, tmp_path):
    export(recordings, tmp_path / "out")
    sides = [open_rlds(tmp_path / "out" / side / "rlds_np_rollout") for side in SIDES]
    assert {rule_for(side).name for side in sides} == {"rlds_np_rollout"}
    pairs = join_pairs(*sides, RULES["rlds_np_rollout"], warn=pytest.fail)
    written = json.loads((tmp_path / "out" / "dataset_statistics.json").read_text())
    assert written == {"rlds_np_rollout": pairs.statistics()}
    assert len(pairs) == 3  # one state of four is in val


def test_states_stay_together_in_one_split(tmp_path):
    store, folder = make_recordings(tmp_path, states=2)
    rows = (folder / "pairs.jsonl").read_text().splitlines()
    more = [json.loads(row) | {"pair_id": f"q{index}"} for index, row in enumerate(rows)]
    (folder / "pairs.jsonl").write_text("\n".join([*rows, *map(json.dumps, more)]) + "\n")
    export((store, folder), tmp_path / "out", val_fraction=0.1)
    val = open_rlds(tmp_path / "out" / "chosen" / "rlds_np_rollout").read("val")
    assert [episode.file_path[1] for episode in val] in (["0", "0"], ["1", "1"])


def test_equal_exports_have_equal_bytes_and_a_repetition_returns_at_once(recordings, tmp_path):
    first = export(recordings, tmp_path / "a")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    assert export(recordings, tmp_path / "a") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.tfrecord*")}.items() <= before.items()
    export(recordings, tmp_path / "b")
    a, b = files(tmp_path / "a"), files(tmp_path / "b")
    assert a.pop("settings.yaml") != b.pop("settings.yaml")  # names the folder
    assert a == b
    assert not [name for name in a if "/." in f"/{name}"], "nothing hidden is published"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_another_export_is_not_overwritten(recordings, tmp_path):
    export(recordings, tmp_path / "out")
    before = files(tmp_path / "out")
    with pytest.raises(CompatibilityError, match="another run"):
        export(recordings, tmp_path / "out", seed=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(CompatibilityError, match="there already"):
        export(recordings, tmp_path / "other")
    assert files(tmp_path / "out") == before
    assert files(tmp_path / "other") == {"file": b""}


@pytest.mark.parametrize("pictures", ["png", "jpeg"])
def test_a_collection_becomes_one_flat_data_set(recordings, tmp_path, pictures):
    store, _ = recordings
    summary = export(recordings, tmp_path / "out", pairs=None, collection=store.path, pictures=pictures, name="mine")
    assert (summary["episodes"], summary["successes"]) == (8, 4)
    dataset = open_rlds(tmp_path / "out" / "mine")
    for episode in dataset.read("all"):
        expected = store.read(episode.file_path)
        pixels = episode.steps["observation/image"].decode()
        assert pixels.shape == expected.frames[:-1].shape
        assert pictures == "jpeg" or np.array_equal(pixels, expected.frames[:-1])
        np.testing.assert_array_equal(episode.steps["observation/state"], expected.proprio[:-1])
        np.testing.assert_allclose(episode.steps["action"], loader_actions(expected.labels), atol=1e-6)
        facts = {path.removeprefix("episode_metadata/"): column[0] for path, column in episode.facts.items()}
        assert facts["success"] == expected.meta.success
        assert (facts["task"], facts["initial_state"]) == (expected.meta.task, expected.meta.initial_state)
    assert set(json.loads((dataset.path / "dataset_statistics.json").read_text())) == {"mine"}
    standard = next(standard_episodes(dataset.read("train"), RULES["plain"]))
    back = gripper_from_loader(standard.actions, "+1 closes")
    expected = store.read(standard.file_path).labels.copy()
    expected[:, 6] = np.clip(expected[:, 6], -1, 1)
    np.testing.assert_allclose(back, expected, atol=1e-6)


def test_successes_only_and_no_val(recordings, tmp_path):
    store, _ = recordings
    options = {"pairs": None, "collection": store.path, "only_successes": True, "actions": "executed"}
    summary = export(recordings, tmp_path / "out", val_fraction=0.0, **options)
    assert summary["splits"] == {"train": {"episodes": 4, "shard_lengths": [4]}}
    episode = next(open_rlds(tmp_path / "out" / "toy").read())
    np.testing.assert_allclose(
        episode.steps["action"], loader_actions(store.read(episode.file_path).actions), atol=1e-6
    )


def test_dry_run_touches_nothing(recordings, tmp_path):
    plan = export(recordings, tmp_path / "out", dry_run=True)
    assert (plan["episodes"], plan["steps"]) == (8, 42)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pairs": None}, "either --pairs or --collection"),
        ({"shards": 0}, "--shards is 0"),
        ({"val_fraction": 1.0}, "--val-fraction is 1"),
        ({"val_fraction": 0.0}, "--val-fraction is 0"),
        ({"name": "A B"}, "--name is 'A B'"),
        ({"name": "mine", "pictures": "jpeg"}, "--name, --pictures: for collections only"),
        ({"gripper": "+1 close"}, "'[+]1 closes'"),
    ],
)
def test_settings_that_make_no_sense(recordings, tmp_path, options, words):
    with pytest.raises(SettingsError, match=words):
        export(recordings, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported(tmp_path):
    store, folder = make_recordings(tmp_path, states=1)
    with pytest.raises(DataError, match="cannot be divided"):
        export((store, folder), tmp_path / "out")
    (store.path / "episodes" / "drawer-open-0000-01.parquet").unlink()
    with pytest.raises(DataError, match="lacks 1 episodes"):
        export((store, folder), tmp_path / "out")
    silent = EpisodeStore.create(tmp_path / "silent", "toy", {})
    silent.write(make_episode())
    with pytest.raises(SettingsError, match="does not say what its gripper means"):
        run_export_rlds(RldsExportSettings(tmp_path / "out", collection=silent.path))
    assert not (tmp_path / "out").exists()


def test_a_pair_of_another_state_is_refused(tmp_path):
    store, folder = make_recordings(tmp_path, states=2)
    text = (folder / "pairs.jsonl").read_text()
    (folder / "pairs.jsonl").write_text(text.replace('"initial_state": 1', '"initial_state": 0'))
    with pytest.raises(DataError, match="starts from drawer-open, state 1"):
        export((store, folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", [{"rejected_steps": [0, 2]}, {"weight": 2.0}])
def test_pairs_that_are_cut_or_weighted_are_refused(tmp_path, part):
    store, folder = make_recordings(tmp_path, states=2)
    first, *others = (folder / "pairs.jsonl").read_text().splitlines()
    (folder / "pairs.jsonl").write_text("\n".join([json.dumps(json.loads(first) | part), *others]) + "\n")
    with pytest.raises(CompatibilityError, match="stage-wise, cut or weighted"):
        export((store, folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_of_several_sizes_are_refused(tmp_path):
    store = EpisodeStore.create(tmp_path / "store", "toy", CONTRACT)
    store.write(make_episode("a", size=(8, 8)))
    store.write(make_episode("b", size=(8, 9)))
    with pytest.raises(CompatibilityError, match="'observation/image' is of shape"):
        run_export_rlds(RldsExportSettings(tmp_path / "out", collection=store.path))


def test_processes_that_share_the_episodes_write_the_same_bytes(tmp_path):
    """Six episodes a side are two shards of four and two; a collection's twelve are three."""
    store, pairs = make_recordings(tmp_path / "more", states=6)
    for kind, given in {"pairs": {"pairs": pairs}, "collection": {"pairs": None, "collection": store.path}}.items():
        written = []
        for workers in (1, 2):
            out = tmp_path / f"{kind}-{workers}"
            export((store, pairs), out, workers=workers, val_fraction=0.2, shards=2, **given)
            assert not list(out.rglob(".*"))
            written.append(
                {name: data for name, data in files(out).items() if name not in ("settings.yaml", "log.jsonl")}
            )
        assert written[0] == written[1]
        assert len(written[0]) > 8


def test_data_that_comes_back_altered_is_not_published(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "_equal", lambda column, due, encoding: False)
    with pytest.raises(DataError, match="does not come back as it was written"):
        export(recordings, tmp_path / "out")
    assert not list(tmp_path.iterdir())


_EXPORT = """
import resource, sys
from pathlib import Path
from grape.core.errors import GrapeError
from grape.exchange import RldsExportSettings, run_export_rlds
from grape.store.rlds import writer
pairs, out, held, limit = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "held", int(sys.argv[4])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
framed = writer.frame_record
def when_told(payload):
    print("record", flush=True)
    if held:
        sys.stdin.readline()
    return framed(payload)
writer.frame_record = when_told
try:
    run_export_rlds(RldsExportSettings(out, pairs=pairs))
    print("published", flush=True)
except GrapeError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(error.exit_code)
"""


def start(recordings, out, held=False, limit=0):
    """An export in a process of its own; a held one waits for a line of input before each record."""
    command = [sys.executable, "-c", _EXPORT, str(recordings[1]), str(out), "held" if held else "", str(limit)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=os.environ | {"PYTHONPATH": "src"}, **pipes)


@pytest.mark.parametrize("records", [1, 5, 8])
def test_a_killed_export_leaves_nothing_under_the_name(recordings, tmp_path, records):
    process = start(recordings, tmp_path / "out", held=True)
    process.stdin.write("\n" * (records - 1))
    process.stdin.flush()
    for _ in range(records):
        assert process.stdout.readline() == "record\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == [".out.exporting"]
    export(recordings, tmp_path / "out")  # the next one sweeps and works
    export(recordings, tmp_path / "whole")
    killed, whole = files(tmp_path / "out"), files(tmp_path / "whole")
    assert killed.pop("settings.yaml") != whole.pop("settings.yaml")
    assert killed == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


_EXPORT_KILLED_AT_THE_END = """
import os, shutil, signal, sys
from pathlib import Path
from grape.exchange import RldsExportSettings, run_export_rlds
shutil.rmtree = lambda *where, **how: os.kill(os.getpid(), signal.SIGKILL)
run_export_rlds(RldsExportSettings(Path(sys.argv[2]), pairs=Path(sys.argv[1])))
"""


def test_what_an_export_killed_after_its_end_leaves_is_cleared_by_the_next_call(recordings, tmp_path):
    command = [sys.executable, "-c", _EXPORT_KILLED_AT_THE_END, str(recordings[1]), str(tmp_path / "out")]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": "src"}, check=False).returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.exporting", "out"]
    before = files(tmp_path / "out")
    export(recordings, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert files(tmp_path / "out") == before
    foreign = tmp_path / ".out.exporting" / "mine.txt"
    foreign.parent.mkdir()
    foreign.write_text("x")
    export(recordings, tmp_path / "out")
    assert foreign.exists()


def test_a_full_disk_is_reported_with_what_is_kept(recordings, tmp_path):
    process = start(recordings, tmp_path / "out", limit=6000)
    output, _ = process.communicate()
    assert process.returncode == 1
    assert f"GrapeError Could not export to {tmp_path / 'out'}: File too large." in output
    assert "Nothing stands under that name" in output
    assert "episodes, scores and pairs are untouched" in output
    assert not list(tmp_path.iterdir())
    assert not recordings[0].verify()


def test_of_two_exports_to_one_path_one_wins_and_the_other_says_so(recordings, tmp_path):
    first = start(recordings, tmp_path / "out", held=True)
    assert first.stdout.readline() == "record\n"
    with pytest.raises(CompatibilityError, match="Another process is exporting to"):
        export(recordings, tmp_path / "out")
    output, _ = first.communicate()  # the end of its input lets it go on
    assert output.endswith("published\n")
    assert export(recordings, tmp_path / "out")["pairs"] == 4  # it is there now


def test_many_exports_at_once_publish_one_whole_folder(recordings, tmp_path):
    processes = [start(recordings, tmp_path / "out") for _ in range(4)]
    outputs = [process.communicate()[0] for process in processes]
    assert any(output.endswith("published\n") for output in outputs)
    for output, process in zip(outputs, processes, strict=True):
        assert process.returncode == 0 or "CompatibilityError" in output
    export(recordings, tmp_path / "alone")
    published, expected = files(tmp_path / "out"), files(tmp_path / "alone")
    assert published.pop("settings.yaml") != expected.pop("settings.yaml")
    assert published == expected
    deadline = time.monotonic() + 600
    while (tmp_path / ".out.exporting").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "out"]


def test_a_folder_without_permission(recordings, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GrapeError, match="Could not export to"):
        export(recordings, tmp_path / "file" / "out")
