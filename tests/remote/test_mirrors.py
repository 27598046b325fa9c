"""Mirrors of ``memory://``: any sequence of changes on either side ends with equal content."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import grape
from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.core.remote import publishing as publishing_module
from grape.core.remote import writer_claims
from grape.core.remote.addresses import RemoteAddress, path_text, remote_address
from grape.core.remote.mirror_names import address_in_mirror, with_addresses
from grape.core.remote.mirrors import Mirror
from grape.core.remote.publishing import addresses_in, mirrored_folder, publishing, with_local_folders
from grape.preferences import ScoreSettings
from grape.preferences.records import portable_path
from tests.remote.memory import NUMBERS, edit_here, edit_there, here, there

NAMES = st.sampled_from(["run.json", "done.json", "store/a.parquet", "store/b.parquet", "deep/er/c.txt"])
EDITS = st.lists(st.tuples(NAMES, st.one_of(st.none(), st.binary(max_size=3))), max_size=4)


@given(rounds=st.lists(st.tuples(st.booleans(), EDITS), min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_both_sides_are_equal_after_every_round(rounds, cache):
    address = RemoteAddress("memory", f"bucket/{next(NUMBERS)}")
    model = {}
    for from_there, edits in rounds:
        mirror = Mirror(address)  # as another command would open it
        mirror.pull()
        for name, content in edits:
            model = {**model, name: content} if content is not None else {k: v for k, v in model.items() if k != name}
            edit_there(address, name, content) if from_there else edit_here(mirror, name, content)
        mirror.pull() if from_there else mirror.push()
        assert here(mirror) == there(address) == model


def test_what_is_ahead_here_is_kept_and_a_conflict_is_refused(address):
    mirror = Mirror(address)
    edit_here(mirror, "a", b"1")
    mirror.push()
    edit_here(mirror, "a", b"22")
    edit_here(mirror, "b", b"new")
    Mirror(address).pull()
    assert here(mirror) == {"a": b"22", "b": b"new"}
    edit_there(address, "a", b"333")
    with pytest.raises(CompatibilityError, match=r"memory://bucket/\d+/a was changed there"):
        Mirror(address).pull()
    assert here(mirror)["a"] == b"22"


def test_what_was_uploaded_before_a_crash_is_no_conflict(address):
    mirror = Mirror(address)
    edit_here(mirror, "a", b"1")
    edit_there(address, "a", b"1")  # uploaded, but the index does not say so
    mirror.pull()
    assert Mirror(address).push() == 0


def test_locks_unfinished_files_and_stores_caches_stay_here(address):
    mirror = Mirror(address)
    for name in ("kept", ".lock", "store/.cache/index", ".kept.12.ab.tmp"):
        edit_here(mirror, name, b"x")
    mirror.push()
    assert set(there(address)) == {"kept"}
    edit_there(address, ".hidden", b"x")
    mirror.pull()
    assert not (mirror.content / ".hidden").exists()


def test_what_says_that_a_run_is_whole_goes_up_last(address, monkeypatch):
    mirror = Mirror(address)
    for name in ("done.json", "stage/done.json", "run.json", "stage/episodes/a", "z"):
        edit_here(mirror, name, b"x")
    order = []
    upload = Mirror._upload
    monkeypatch.setattr(Mirror, "_upload", lambda self, name: (order.append(name), upload(self, name)))
    mirror.push()
    assert order[0] == "run.json"
    assert order[-2:] == ["stage/done.json", "done.json"]


def test_a_truncated_file_is_not_taken(address, monkeypatch):
    edit_there(address, "a", b"whole")
    mirror = Mirror(address)
    monkeypatch.setattr(
        type(mirror.remote._filesystem), "get_file", lambda _, name, path: Path(path).write_bytes(b"who")
    )
    with pytest.raises(GrapeError, match="came with 3 of 5 bytes"):
        mirror.pull()
    assert here(mirror) == {}


def test_a_mirror_that_is_deleted_deletes_nothing_there(address):
    mirror = Mirror(address)
    edit_here(mirror, "a", b"1")
    mirror.push()
    shutil.rmtree(mirror.content)
    with pytest.raises(GrapeError, match="was deleted while it was written"):
        mirror.push()
    assert there(address) == {"a": b"1"}


def test_what_somebody_else_changed_meanwhile_is_not_replaced(address):
    mirror = Mirror(address)
    for name in ("a", "b"):
        edit_here(mirror, name, b"1")
    mirror.push()
    edit_here(mirror, "a", b"22")
    edit_here(mirror, "b", None)
    edit_there(address, "a", b"333")
    with pytest.raises(CompatibilityError, match="a was changed there by somebody else"):
        mirror.push(compare=True)
    edit_there(address, "a", b"22")
    edit_there(address, "b", b"4")
    with pytest.raises(CompatibilityError, match="b was changed there by somebody else"):
        mirror.push(compare=True)
    assert there(address) == {"a": b"22", "b": b"4"}


@pytest.mark.parametrize("content", ["{", '{"files": 3}', '{"files": {"a": [1]}}'])
def test_a_damaged_index_is_named(address, content):
    mirror = Mirror(address)
    (mirror.folder / "index.json").write_text(content)
    with pytest.raises(DataError, match=r"index\.json"):
        Mirror(address)


def test_one_command_writes_one_folder_and_no_file(address, monkeypatch):
    monkeypatch.setattr(writer_claims, "_SETTLED", 0.0)

    @publishing()
    def write(*names):
        for name in names:
            with_local_folders(ScoreSettings(store="unused", out=Path(f"memory:/{address.path}/{name}")))

    write("a", "a")
    with pytest.raises(SettingsError, match="is a second --out"):
        write("a", "b")
    with pytest.raises(SettingsError, match="an address is a folder"):
        write("page.html")


def test_addresses_are_seen_at_any_depth():
    settings = grape.LoopSettings(out=Path("runs/x"), policy="s3://bucket/policy")
    assert addresses_in(settings) == ("s3://bucket/policy",)
    both = addresses_in(grape.SftSettings(data=(Path("s3:/b/d"),), out=Path("gs:/b/o")))
    assert set(both) == {"s3://b/d", "gs://b/o"}
    assert addresses_in(grape.ScoreSettings(store=Path("runs/a"), out=Path("runs/b"))) == ()


def test_names_that_lead_out_are_refused(address, monkeypatch):
    edit_there(address, "a", b"x")
    mirror = Mirror(address)
    listed = {f"/{address.path}/../../x": {"type": "file", "size": 1}}
    monkeypatch.setattr(type(mirror.remote._filesystem), "find", lambda *_, **__: listed)
    with pytest.raises(DataError, match="holds a file named"):
        mirror.pull()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/run", "s3://bucket/run"),
        ("s3:/bucket/run/", "s3://bucket/run"),
        ("memory://x", "memory://x"),
        ("hf://lab/store", None),
        ("runs/a", None),
        ("/abs/olute", None),
        ("ws://localhost:8000", None),
        ("C:/data", None),
        ("rlds:/data/set", None),
        ("rlds+plain:/data/set", None),
        ("lerobot:/data/set", None),
        ("mine:/weights", None),
    ],
)
def test_addresses(text, expected):
    address = remote_address(text)
    assert (None if address is None else str(address)) == expected


@pytest.mark.parametrize(
    "text",
    ["s3://", "s3://a/../b", "s3://a//b", "file:///tmp/x", "s3://user:word@bucket/run", "s3://user:wo/rd@bucket/run"],
)
def test_addresses_that_name_no_folder_or_hold_secrets(text):
    with pytest.raises(SettingsError) as caught:
        remote_address(text)
    assert "word" not in caught.value.message.replace("password", "")


def test_paths_are_written_as_addresses_where_they_are_some():
    assert path_text(Path("s3://bucket/run")) == "s3://bucket/run"
    assert path_text(Path("hf://lab/store")) == "hf://lab/store"
    assert path_text(Path("rlds:/data/set")) == "rlds:/data/set"
    assert path_text(Path("runs/a")) == "runs/a"


def test_a_missing_package_and_an_unknown_protocol_are_named(monkeypatch):
    with pytest.raises(SettingsError, match="'s4' is unknown"):
        mirrored_folder(RemoteAddress("s4", "bucket/run"))
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(SettingsError) as caught:
        mirrored_folder(RemoteAddress("gs", "bucket/run"))
    assert "grape-vla[gs]" in caught.value.hint


def test_paths_in_mirrors_are_recorded_as_addresses(address, tmp_path):
    edit_there(address, "store/store.json", b"{}")
    folder = mirrored_folder(address)
    assert address_in_mirror(folder / "store") == str(address)
    assert address_in_mirror(tmp_path) == ""
    assert portable_path(folder / "store", tmp_path) == str(address)
    own = RemoteAddress("memory", f"{address.path}/store")
    assert address_in_mirror(mirrored_folder(own)) == str(own)
    assert portable_path(folder / "store", folder / "scores") == "../store"
    assert with_addresses({"out": str(folder), "others": [str(tmp_path), 3]}) == {
        "out": str(address),
        "others": [str(tmp_path), 3],
    }


def test_the_python_interface_writes_and_reads_addresses(address, monkeypatch):
    monkeypatch.setattr(publishing_module, "_ROUND", 0.05)
    result = grape.collect(suite="toy", initial_states="0-1", out=f"memory://{address.path}/run")
    assert result.episodes > 0
    names = set(there(address / "run"))
    assert {"done.json", "run.json", "store/store.json"} <= names
    assert len(grape.EpisodeStore.open(f"memory://{address.path}/run")) == result.episodes
    scored = grape.score(store=f"memory://{address.path}/run", scorer=("success",), out=f"memory://{address.path}/s")
    assert scored.episodes == result.episodes


def test_a_reader_waits_for_one_that_fetches_and_takes_what_a_writer_has(address, monkeypatch):
    """Both are other processes: locks within one process are shared."""
    edit_there(address, "a", b"1")
    mirror = Mirror(address)
    program = (
        "import sys, time; from pathlib import Path; from grape.core.folder_locks import lock_folder; "
        "kept = lock_folder(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )

    def holding(folder):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "held\n"
        return process

    fetching = holding(mirror.folder)
    waited = []
    monkeypatch.setattr("grape.core.remote.mirrors.time.sleep", lambda _: (waited.append(1), fetching.communicate("")))
    assert (mirrored_folder(address) / "a").read_bytes() == b"1"
    assert waited
    edit_there(address, "a", b"22")
    mirror.lock_content()
    writing = holding(mirror.folder / ".writer")
    assert (mirrored_folder(address) / "a").read_bytes() == b"1"
    with pytest.raises(CompatibilityError, match="is writing to memory://"):
        mirror.lock_content()
    writing.communicate("")


def test_a_writer_that_was_taken_over_leaves_the_other_alone(address, monkeypatch):
    monkeypatch.setattr(writer_claims, "_SETTLED", 0.0)
    other = {"host": "other", "machine": "m", "process": 7, "time": time.time(), "token": "x"}

    @publishing()
    def write():
        chosen = with_local_folders(ScoreSettings(store="unused", out=Path(f"memory:/{address.path}")))
        (chosen.out / "part").write_text("x")
        edit_there(address, ".grape-writer.json", json.dumps(other).encode())

    with pytest.raises(CompatibilityError, match="process 7 of other") as caught:
        write()
    assert "Everything is in" in caught.value.hint
    assert json.loads(there(address)[".grape-writer.json"]) == other
    assert "part" not in there(address)


def test_a_failed_verb_uploads_what_it_finished(address, monkeypatch):
    def fail():
        chosen = with_local_folders(ScoreSettings(store="unused", out=f_path))
        (chosen.out / "part").write_text("x")
        raise DataError("It failed.")

    f_path = Path(f"memory:/{address.path}")
    with pytest.raises(DataError, match="It failed"), publishing():
        fail()
    assert there(address) == {"part": b"x"}
