"""Run folders, their locks, and the process group of a launcher."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.runs import load_summary, open_run


@dataclass(frozen=True)
class Settings:
    rate: float = 1.0
    workers: int = field(default=1, metadata={"identity": False})


def test_a_run_folder_resumes_with_equal_settings_only(tmp_path: Path) -> None:
    run = open_run(tmp_path / "run", "score", Settings(), {"input": "abc"})
    assert run.done is None
    open_run(tmp_path / "run", "score", Settings(workers=8), {"input": "abc"}).finish({"n": 1})
    assert load_summary(tmp_path / "run", "score") == {"n": 1}
    with pytest.raises(CompatibilityError, match=r"settings\.rate was 1\.0, now 2\.0"):
        open_run(tmp_path / "run", "score", Settings(rate=2.0), {"input": "abc"})
    with pytest.raises(CompatibilityError, match=r"inputs\.input"):
        open_run(tmp_path / "run", "score", Settings(), {"input": "xyz"})
    with pytest.raises(DataError, match="written by 'grape score'"):
        load_summary(tmp_path / "run", "pair")


@dataclass(frozen=True)
class Optional:
    rate: float = 1.0
    name: str = ""
    limit: float | None = None
    floor: float = field(default=0.0, metadata={"identity": "unless default"})


def test_the_flags_named_to_resume_are_all_that_differs(tmp_path: Path) -> None:
    def refusal(begun: Optional, now: Optional) -> str:
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        open_run(folder, "score", begun)
        (folder / "scores.jsonl").write_text("")
        with pytest.raises(CompatibilityError) as refused:
            open_run(folder, "score", now)
        return str(refused.value.hint)

    assert refusal(Optional(rate=2.0, name="a b"), Optional()).endswith("give --name 'a b' --rate 2.0.")
    assert refusal(Optional(name=""), Optional(name="other")).endswith("give --name ''.")
    assert refusal(Optional(floor=3.0), Optional()).endswith("give --floor 3.0.")
    # What was not given is given now: the flags of the others alone would be refused again.
    assert "To go on" not in refusal(Optional(rate=2.0), Optional(limit=1.0))
    assert "To go on" not in refusal(Optional(rate=2.0), Optional(floor=1.0))


def test_a_run_that_ended_before_it_wrote_anything_leaves_its_folder_to_any_other(tmp_path: Path) -> None:
    out = tmp_path / "run"
    open_run(out, "score", Settings())
    (out / "log.jsonl").write_text("{}\n")
    (out / "scorers" / "empty").mkdir(parents=True)
    open_run(out, "score", Settings(rate=2.0))
    open_run(out, "pair", Settings(rate=3.0))
    (out / "scorers" / "empty" / "values.jsonl").write_text("")
    with pytest.raises(CompatibilityError, match=r"settings\.rate was 3\.0, now 1\.0"):
        open_run(out, "score", Settings())
    open_run(out, "pair", Settings(rate=3.0))


def test_a_foreign_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(CompatibilityError, match="not made by"):
        open_run(tmp_path, "score", Settings())


def test_an_unfinished_run_has_no_summary(tmp_path: Path) -> None:
    open_run(tmp_path / "run", "score", Settings())
    with pytest.raises(DataError, match="not complete"):
        load_summary(tmp_path / "run", "score")


HOLDER = """
import sys, time
from pathlib import Path
from grape.core.runs import open_run
run = open_run(Path(sys.argv[1]), "score", {"rate": 1.0})
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_process_is_kept_out_until_the_first_is_gone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(CompatibilityError, match="Another process is working in"):
                open_run(out, "score", {"rate": 1.0})
        finally:
            os.kill(holder.pid, signal.SIGKILL)
    run = open_run(out, "score", {"rate": 1.0})
    assert (out / ".lock").exists()
    again = open_run(out, "score", {"rate": 1.0})  # within one process a folder may be opened twice
    del run
    assert (out / ".lock").exists()
    del again
    assert sorted(path.name for path in out.iterdir()) == ["run.json", "settings.yaml"]


def test_children_do_not_keep_a_folder(tmp_path: Path) -> None:
    run = open_run(tmp_path, "score", {})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        del run
        check = "import sys; from pathlib import Path; from grape.core.runs import open_run; "
        check += "open_run(Path(sys.argv[1]), 'score', {})"
        assert subprocess.run([sys.executable, "-c", check, str(tmp_path)], check=False).returncode == 0
        child.communicate(b"\n")


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match="is a file"):
            open_run(path, "score", Settings())


def test_a_lock_is_released_in_an_orderly_way_at_exit_and_not_by_a_forked_child(tmp_path: Path) -> None:
    program = (
        "import os, sys, tempfile\nfrom pathlib import Path\nscratch = tempfile.TemporaryDirectory()\n"
        "from grape.core.folder_locks import lock_folder\nlock = lock_folder(Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if child == 0:\n    sys.exit(0)\n"  # an orderly end, with all of its exit handlers
        "os.waitpid(child, 0)\n"
        "assert (Path(sys.argv[1]) / '.lock').exists()\n"
        "import subprocess\ntry_it = 'import sys, pathlib; from grape.core.folder_locks import lock_folder;'\n"
        "try_it += 'lock_folder(pathlib.Path(sys.argv[1]))'\n"
        "done = subprocess.run([sys.executable, '-c', try_it, sys.argv[1]], stderr=subprocess.PIPE)\n"
        "assert b'Another process is working' in done.stderr, done.stderr\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=300)
    assert not list(tmp_path.iterdir())


SOFT_HOLDER = """
import errno, fcntl, sys, time
from pathlib import Path

def refuse(descriptor, operation):
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")

fcntl.flock = refuse
from grape.core.folder_locks import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print("held", flush=True)
input()
del lock
"""


def test_without_locks_of_the_file_system_a_file_keeps_others_out(tmp_path: Path) -> None:
    call = [sys.executable, "-c", SOFT_HOLDER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(call, **pipes) as holder:  # type: ignore[call-overload]
        try:
            assert holder.stdout.readline() == "held\n"
            second = subprocess.run(call, input="\n", capture_output=True, text=True, timeout=300, check=False)
            assert "Another process is working" in second.stderr
            assert "has no locks (Operation not supported)" in second.stderr
        finally:
            holder.kill()
    third = subprocess.run(call, input="\n", capture_output=True, text=True, timeout=300, check=False)
    assert third.stdout == "held\n", third.stderr  # what a killed process left behind is no lock
    assert not list(tmp_path.iterdir())
