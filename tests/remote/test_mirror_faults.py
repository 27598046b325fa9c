"""Processes killed while they upload, mirrors that are deleted, several writers and readers: nothing is lost."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.core.remote import writer_claims
from grape.core.remote.addresses import remote_address
from grape.core.remote.folders import RemoteFolder
from grape.core.remote.mirror_index import MirrorIndex
from grape.core.remote.mirrors import Mirror
from grape.core.remote.publishing import mirrored_folder, publishing, with_local_folders
from grape.core.remote.writer_claims import WriterClaim
from grape.preferences import ScoreSettings
from tests.remote.memory import edit_here, edit_there, here, there


class Killed(BaseException):
    pass


def killed_before(monkeypatch, kind, method, name):
    """Let a process end where a method is called for a file."""
    original = getattr(kind, method)

    def fail(self, called, *args, **options):
        if called == name:
            raise Killed
        return original(self, called, *args, **options)

    monkeypatch.setattr(kind, method, fail)


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_run_that_goes_on_is_not_whole_there_until_it_is(address, monkeypatch, how):
    mirror = Mirror(address)
    for name in ("run.json", "done.json", "episode"):
        edit_here(mirror, name, b"1")
    mirror.push()
    edit_here(mirror, "run.json", b"22")
    edit_here(mirror, "done.json", b"22" if how == "changed" else None)
    killed_before(monkeypatch, RemoteFolder, "upload", "run.json")
    with pytest.raises(Killed):
        mirror.push()
    assert set(there(address)) == {"run.json", "episode"}
    monkeypatch.undo()


@pytest.mark.parametrize("later", [b"1\n2\n3\n", b"another", b"1\n2\n"])
@pytest.mark.parametrize("when", ["before the next file is there", "before it can be noted"])
def test_what_changes_after_a_kill_is_no_conflict(address, cache, monkeypatch, when, later):
    """A log grows, or a state is replaced, before the same command can upload again."""
    mirror = Mirror(address)
    edit_here(mirror, "a.log", b"1\n")
    mirror.push()
    edit_here(mirror, "a.log", b"1\n2\n")
    edit_here(mirror, "run.json", b"{}")
    with monkeypatch.context() as patch:
        if when == "before it can be noted":
            killed_before(patch, MirrorIndex, "agree", "a.log")
        else:
            edit_here(mirror, "z/done.json", b"large")
            killed_before(patch, RemoteFolder, "upload", "z/done.json")
        with pytest.raises(Killed):
            mirror.push()
    assert there(address)["a.log"] == b"1\n2\n"
    edit_here(mirror, "a.log", later)
    again = Mirror(address)
    again.pull()
    assert here(again)["a.log"] == later
    again.push(compare=True)
    assert there(address) == here(again)


def test_what_somebody_else_wrote_after_a_kill_is_a_conflict(address, monkeypatch):
    mirror = Mirror(address)
    edit_here(mirror, "a", b"1")
    with monkeypatch.context() as patch:
        killed_before(patch, MirrorIndex, "agree", "a")
        with pytest.raises(Killed):
            mirror.push()
    edit_there(address, "a", b"theirs")
    edit_here(mirror, "a", b"mine")
    with pytest.raises(CompatibilityError, match="was changed there"):
        Mirror(address).pull()


def test_a_journal_that_ends_within_a_line_is_read(tmp_path):
    index = MirrorIndex(tmp_path)
    index.send("a", "digest")
    with (tmp_path / "index.journal").open("ab") as journal:
        journal.write(b'["b", "ma')
    assert MirrorIndex(tmp_path).sent("a") == "digest"
    index.compact()
    assert MirrorIndex(tmp_path).sent("a") == "digest"
    (tmp_path / "index.journal").write_bytes(b'["b", 3]\n')
    with pytest.raises(DataError, match="is no journal"):
        MirrorIndex(tmp_path)


@pytest.mark.parametrize("what", ["folder", "content"])
def test_a_mirror_that_is_deleted_while_it_grows_deletes_nothing_there(address, what):
    mirror = Mirror(address)
    for name in ("a", "b"):
        edit_here(mirror, name, b"1")
    mirror.push()
    shutil.rmtree(getattr(mirror, what))
    edit_here(mirror, "c", b"1")
    for _ in range(2):
        with pytest.raises(GrapeError, match="was deleted while it was written"):
            mirror.push()
    assert set(there(address)) == {"a", "b"}


def test_a_new_folder_in_the_place_of_an_empty_one_is_uploaded(address, tmp_path):
    mirror = Mirror(address)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "a").write_bytes(b"1")
    (tmp_path / "export").rename(mirror.content)
    mirror.push()
    assert there(address) == {"a": b"1"}


def test_of_two_that_claim_at_once_one_is_refused(address, monkeypatch):
    """The slower one asks before the faster one's claim is there, and writes long after it."""
    monkeypatch.setattr(writer_claims, "_SETTLED", 0.0)
    slow, fast = WriterClaim(RemoteFolder(address)), WriterClaim(RemoteFolder(address))
    has_looked, made = threading.Event(), threading.Event()
    create = slow._remote.create

    def slowly(name, content):
        has_looked.set()
        assert made.wait(30)
        return create(name, content)

    monkeypatch.setattr(slow._remote, "create", slowly)
    errors = []

    def claim():
        try:
            slow.make()
        except CompatibilityError as error:
            errors.append(error)

    thread = threading.Thread(target=claim)
    thread.start()
    assert has_looked.wait(30)
    fast.make()
    made.set()
    thread.join(30)
    assert len(errors) == 1
    fast.refuse_others()
    fast.end()
    assert there(address) == {}


def test_a_claim_of_another_machine_with_the_same_name_is_kept(address, monkeypatch):
    monkeypatch.setattr(writer_claims, "_SETTLED", 0.0)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with monkeypatch.context() as patch:
        patch.setattr(writer_claims.os, "getpid", lambda: ended.pid)
        patch.setattr(writer_claims, "_MACHINE_FILES", ())
        WriterClaim(RemoteFolder(address)).make()
    with pytest.raises(CompatibilityError, match=f"process {ended.pid} of"):
        WriterClaim(RemoteFolder(address)).make()
    with monkeypatch.context() as patch:
        patch.setattr(writer_claims, "_MACHINE_FILES", ())
        WriterClaim(RemoteFolder(address)).make()  # the machine on which that process has ended


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[" * 100_000,
        b"\xff",
        b"[]",
        b'{"host": "h", "machine": "m", "process": 1e999, "time": 1.0, "token": "t"}',
        b'{"host": "h", "machine": "m", "process": 1, "time": NaN, "token": "t"}',
        b'{"host": "h", "machine": "m", "process": -1, "time": 1.0, "token": "t"}',
        b'{"host": "h", "machine": "m", "process": 1, "time": 1e999, "token": "t"}',
    ],
)
def test_a_claim_that_says_something_else_is_named(address, content):
    edit_there(address, ".grape-writer.json", content)
    with pytest.raises(DataError, match=r"grape-writer\.json"):
        WriterClaim(RemoteFolder(address)).make()


def test_what_another_process_reads_is_not_replaced_under_it(address):
    for name in ("a", "b"):
        edit_there(address, name, b"1")
    program = (
        "import sys; from grape.core.folder_locks import lock_folder; from pathlib import Path; "
        "kept = lock_folder(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    place = Mirror(address).folder / ".readers" / "0-reader"
    place.mkdir(parents=True)
    reader = subprocess.Popen(
        [sys.executable, "-c", program, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout.readline() == "held\n"
    with publishing():
        folder = mirrored_folder(address)
    edit_there(address, "c", b"1")
    with publishing():
        assert (mirrored_folder(address) / "c").exists()  # what is added hurts nobody
    edit_there(address, "a", b"22")
    edit_there(address, "b", None)
    with publishing(), pytest.raises(CompatibilityError, match="began to read it"):
        mirrored_folder(address)
    assert ((folder / "a").read_bytes(), (folder / "b").read_bytes()) == (b"1", b"1")
    reader.communicate("")
    with publishing():
        mirrored_folder(address)
    assert ((folder / "a").read_bytes(), (folder / "b").exists(), place.exists()) == (b"22", False, False)


@pytest.mark.parametrize("name", ["a", "new"])
def test_a_reader_never_takes_what_is_here_alone(address, name):
    edit_there(address, "a", b"1")
    with publishing():
        mirrored_folder(address)
    edit_here(Mirror(address), name, b"only here")
    with publishing(), pytest.raises(DataError, match=f"{name} and 0 more were never uploaded"):
        mirrored_folder(address)


def test_names_that_no_folder_here_could_hold_are_refused(address):
    edit_there(address, "x" * 300, b"1")
    with pytest.raises(DataError, match="holds a file named"):
        Mirror(address).pull()
    edit_there(address, "x" * 300, None)
    edit_there(address, "a/b", b"1")
    remote = RemoteFolder(address)
    listed = remote._filesystem.find(str(address), detail=True)
    [path] = listed
    remote._filesystem = type("Both", (), {})()
    remote._filesystem.invalidate_cache = lambda: None
    remote._filesystem._strip_protocol = lambda text: path.removesuffix("/a/b")
    remote._filesystem.find = lambda text, detail: {**listed, path.removesuffix("/b"): {"type": "file", "size": 1}}
    with pytest.raises(DataError, match="holds a file and a folder named 'a'"):
        remote.listed()


def test_protocols_are_taken_in_any_case_and_unknown_ones_are_no_folders(tmp_path, monkeypatch):
    assert str(remote_address("S3://Bucket/run")) == "s3://Bucket/run"
    assert str(remote_address("sftp://me@host:22/run")) == "sftp://me@host:22/run"
    assert str(remote_address("abfss://container@account.dfs.core.windows.net/run")).startswith("abfss://container@")
    for text in ("sftp://me:word@host/run", "sftp://me:wo/rd@host/run", "abfs://me:word@host/run"):
        with pytest.raises(SettingsError, match="user or password"):
            remote_address(text)
    monkeypatch.chdir(tmp_path)
    with publishing(), pytest.raises(SettingsError, match=r"--out s4:/.*cannot be written"):
        with_local_folders(ScoreSettings(store="unused", out=Path("s4://bucket/run")))
    assert list(tmp_path.iterdir()) == []


def test_claims_of_former_writers_expire(address, monkeypatch):
    monkeypatch.setattr(writer_claims, "_SETTLED", 0.0)
    claim = {"host": "other", "machine": "m", "process": 7, "time": time.time() - 301, "token": "x"}
    edit_there(address, ".grape-writer.json", json.dumps(claim).encode())
    WriterClaim(RemoteFolder(address)).make()
    assert json.loads(there(address)[".grape-writer.json"])["process"] == os.getpid()
