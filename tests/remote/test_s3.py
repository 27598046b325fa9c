"""Runs in a bucket, through the command line in processes of their own, against a real S3 server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grape.core.errors import GrapeError
from grape.core.remote import folders
from grape.core.remote.addresses import RemoteAddress
from grape.core.remote.mirrors import Mirror

COLLECT = ["collect", "--suite", "toy", "--initial-states", "0-5", "--samples", "2"]
# As the command, but that it looks for finished files all the time.
PROGRAM = (
    "import sys; from grape.core.remote import publishing, writer_claims; "
    "publishing._ROUND = 0.05; writer_claims._SETTLED = 0.1; "
    "from grape.cli.main import main; sys.exit(main())"
)


def start(words, environment):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, words)], env=environment, stderr=subprocess.PIPE, text=True
    )


def grape(words, environment, status=0):
    process = start(words, environment)
    output = process.communicate()[1]
    assert process.returncode == status, output
    assert "Traceback" not in output
    return output


def contents(files, folder):
    """Content of every file of a bucket's folder but logs, by its name within it."""
    return {
        path.removeprefix(f"{folder}/"): files.cat_file(path)
        for path in files.find(folder)
        if not path.endswith(("log.jsonl", "settings.yaml"))
    }


def local_contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.name not in ("log.jsonl", "settings.yaml")
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The run in a folder."""
    out = tmp_path_factory.mktemp("local") / "run"
    grape([*COLLECT, "--out", out], dict(os.environ))
    return {name: content for name, content in local_contents(out).items() if not Path(name).parts[0].startswith(".")}


def test_a_run_in_a_bucket_is_that_in_a_folder_and_another_machine_goes_on_with_it(bucket, machine, expected, tmp_path):
    name, files = bucket
    run, scores = f"s3://{name}/runs/a", f"s3://{name}/runs/scores"
    grape([*COLLECT, "--out", run], machine("first"))
    assert contents(files, f"{name}/runs/a") == expected
    assert f"out: {run}" in files.cat_file(f"{name}/runs/a/settings.yaml").decode()
    assert "already complete" in grape([*COLLECT, "--out", run], machine("second"))

    grape(["score", "--store", run, "--scorer", "success", "--out", scores], machine("second"))
    assert json.loads(files.cat_file(f"{name}/runs/scores/done.json"))["store"] == run
    output = grape(["export", "rlds", "--collection", run, "--out", tmp_path / "rlds"], machine("third"))
    assert "fetch s3://" in output
    secret = machine("x")["AWS_SECRET_ACCESS_KEY"].encode()
    kept = [*contents(files, name).values(), *(path.read_bytes() for path in tmp_path.rglob("*.json*"))]
    assert not any(secret in content for content in kept)


def test_a_run_that_was_killed_goes_on_on_another_machine_to_the_same_bytes(bucket, machine, expected):
    name, files = bucket
    run = f"s3://{name}/run"
    process = start([*COLLECT, "--workers", "1", "--out", run], machine("first"))
    deadline = time.monotonic() + 120
    while not files.glob(f"{name}/run/store/episodes/*.parquet"):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not files.exists(f"{name}/run/done.json")
    uploaded = {path: files.info(path)["LastModified"] for path in files.glob(f"{name}/run/store/episodes/*.parquet")}
    grape([*COLLECT, "--out", run], machine("second"))
    assert contents(files, f"{name}/run") == expected
    assert uploaded  # what was there was not played again
    assert {path: files.info(path)["LastModified"] for path in uploaded} == uploaded


def test_a_connection_that_is_cut_loses_nothing(bucket, machine, connection, expected):
    name, files = bucket
    run = f"s3://{name}/run"
    process = start([*COLLECT, "--workers", "1", "--out", run], machine("first"))
    while not files.exists(f"{name}/run/store/store.json"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    connection.cut()
    output = process.communicate(timeout=600)[1]
    assert process.returncode == 1
    assert "Traceback" not in output
    assert "run the same command again to upload the rest" in " ".join(output.split())
    mirror = next((Path(machine("first")["XDG_CACHE_HOME"]) / "grape" / "mirrors").iterdir()) / "run"
    assert local_contents(mirror) == expected
    connection.open()
    assert "already complete" in grape([*COLLECT, "--out", run], machine("first"))
    assert contents(files, f"{name}/run") == expected


def test_an_upload_to_a_server_that_never_answers_ends(machine, monkeypatch):
    """s3fs alone waits without end here: it asks whether it may send the file, and its limits begin after that."""
    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name, value in machine("any").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(folders, "_UPLOAD_GRACE", 1.0)
        s3fs.S3FileSystem.clear_instance_cache()
        mirror = Mirror(RemoteAddress("s3", "bucket/run"))
        (mirror.content / "file.txt").write_text("text")
        with pytest.raises(GrapeError, match="did not answer in time") as caught:
            mirror.push()
    s3fs.S3FileSystem.clear_instance_cache()
    assert "run the same command again" in str(caught.value.hint)
    assert (mirror.content / "file.txt").read_text() == "text"


def test_a_file_is_made_only_where_there_is_none(bucket, machine, monkeypatch):
    import s3fs

    name, files = bucket
    for variable, value in machine("any").items():
        monkeypatch.setenv(variable, value)
    s3fs.S3FileSystem.clear_instance_cache()
    remote = folders.RemoteFolder(RemoteAddress("s3", f"{name}/run"))
    assert remote.create("claim", b"first")
    assert not remote.create("claim", b"second")
    assert files.cat_file(f"{name}/run/claim") == b"first"
    s3fs.S3FileSystem.clear_instance_cache()


def test_what_cannot_be_reached_is_said(bucket, machine, connection, tmp_path):
    name, files = bucket
    assert "bucket must exist" in grape([*COLLECT, "--out", "s3://no-such-bucket/run"], machine("a"), 1)
    assert "holds nothing" in grape(["score", "--store", f"s3://{name}/none", "--out", tmp_path / "s"], machine("a"), 2)
    files.pipe_file(f"{name}/folder/file.txt", b"text")
    for marker in ("folder/", "folder/deep/"):  # as consoles make folders
        files.call_s3("put_object", Bucket=name, Key=marker, Body=b"")
    said_so = grape(["score", "--store", f"s3://{name}/folder/file.txt", "--out", tmp_path / "s"], machine("a"), 2)
    assert "is a file" in said_so
    assert "a report could show" in grape(["report", f"s3://{name}/folder", "--out", tmp_path / "r"], machine("a"), 2)
    connection.cut()
    assert "cannot be reached" in grape(
        ["score", "--store", f"s3://{name}/folder", "--out", tmp_path / "s"], machine("a"), 1
    )
    connection.open()


def test_two_writers_at_once_are_refused(bucket, machine):
    name, files = bucket
    other = {"host": "other", "machine": "m", "process": 7, "time": time.time(), "token": "x"}
    files.pipe_file(f"{name}/run/.grape-writer.json", json.dumps(other).encode())
    output = grape([*COLLECT, "--out", f"s3://{name}/run"], machine("a"), 2)
    assert "process 7 of other" in output
    assert not files.exists(f"{name}/run/run.json")
    files.pipe_file(f"{name}/run/.grape-writer.json", json.dumps({**other, "time": time.time() - 400}).encode())
    grape([*COLLECT, "--initial-states", "0", "--out", f"s3://{name}/run"], machine("a"))
    assert not files.exists(f"{name}/run/.grape-writer.json")
