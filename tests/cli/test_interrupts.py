"""Ctrl-C and SIGTERM, sent to real processes at moments that these announce."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NUMBERS = [(signal.SIGINT, "Interrupted"), (signal.SIGTERM, "Terminated")]


#: Started in the background of a shell without job control, or by nohup, a process ignores SIGINT, and so do its
#: children: these tests want it heard however they are run.
HEAR_SIGINT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def start(code: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HEAR_SIGINT + code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line_of(stream: Any) -> str:
    assert stream is not None
    return str(stream.readline())


def until(condition: Callable[[], Any], process: "subprocess.Popen[str]") -> Any:
    """The condition's value, as soon as it is true; the process must not end before."""
    while not (value := condition()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return value


SLOW_TO_CLEAN = """
import sys, time
from grape.cli.main import guarded

def work():
    try:
        print("ready", flush=True)
        time.sleep(600)
    finally:
        print("cleaning", flush=True)
        sys.stdin.readline()
        print("clean", flush=True)

sys.exit(guarded([], work, whole_process=True))
"""


@pytest.mark.parametrize(("number", "word"), NUMBERS)
def test_a_second_signal_lets_the_first_one_end_in_order(number: signal.Signals, word: str) -> None:
    process = start(SLOW_TO_CLEAN)
    assert line_of(process.stdout) == "ready\n"
    process.send_signal(number)
    assert line_of(process.stdout) == "cleaning\n"
    process.send_signal(number)
    assert line_of(process.stderr).startswith("Stopping")
    out, err = process.communicate("go on\n")
    assert out == "clean\n"
    assert err == f"error: {word}. What was finished is kept: run the same command again to go on.\n"
    assert process.returncode == 128 + number


def test_a_third_signal_ends_at_once() -> None:
    process = start(SLOW_TO_CLEAN)
    assert line_of(process.stdout) == "ready\n"
    process.send_signal(signal.SIGINT)
    assert line_of(process.stdout) == "cleaning\n"
    process.send_signal(signal.SIGTERM)
    assert line_of(process.stderr).startswith("Stopping")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "")


def test_a_signal_while_the_process_leaves_prints_nothing() -> None:
    code = """
import atexit, sys
from grape.cli.main import guarded

def leave():
    print("leaving", flush=True)
    sys.stdin.readline()

atexit.register(leave)
sys.exit(guarded([], lambda: 0, whole_process=True))
"""
    process = start(code)
    assert line_of(process.stdout) == "leaving\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate() == ("", "")
    assert process.returncode == 130


FALLS_INTO_A_DESTRUCTOR = """
import os, signal, sys, time
from grape.cli.main import guarded

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

def work():
    Dropped()
    AFTERWARDS

sys.exit(guarded([], work, whole_process=True))
"""


@pytest.mark.parametrize("afterwards", ["time.sleep(600)", "os.kill(os.getpid(), signal.SIGINT); time.sleep(600)"])
def test_a_signal_that_falls_into_a_destructor_is_not_lost(afterwards: str) -> None:
    process = start(FALLS_INTO_A_DESTRUCTOR.replace("AFTERWARDS", afterwards))
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.count("\n") == 1


def test_ctrl_c_while_a_verb_is_imported_prints_one_line() -> None:
    code = """
import importlib, os, signal, sys
import grape.cli.main
heavy = {"rich", "tyro", "numpy", "importlib.metadata"} & set(sys.modules)
assert not heavy, heavy
importlib.import_module = lambda name: os.kill(os.getpid(), signal.SIGINT)
sys.exit(grape.cli.main.main())
"""
    process = start(code, "loop", "--dry-run", "--suite", "toy", "--out", "q")
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.count("\n") == 1
    assert err.startswith("error: Interrupted.")


def test_ctrl_c_while_the_command_itself_is_imported_prints_one_line(tmp_path: Path) -> None:
    script = tmp_path / "grape"
    script.write_text(
        HEAR_SIGINT
        + """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "grape.core.errors":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from grape.cli.main import main
sys.exit(main())
"""
    )
    done = subprocess.run([sys.executable, str(script), "doctor"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: Interrupted.\n")


def test_signals_that_others_handle_stay_theirs() -> None:
    from grape.cli import leave_early
    from grape.cli.main import guarded

    before, interrupt = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def own_handler(number: int, frame: object) -> None:
        """Somebody else's."""

    signal.signal(signal.SIGTERM, own_handler)
    try:
        assert guarded([], lambda: int(signal.getsignal(signal.SIGTERM) is own_handler), whole_process=False) == 1
        assert signal.getsignal(signal.SIGTERM) is own_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.getsignal(signal.SIGINT) is interrupt is not leave_early


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("elsewhere", [False, True], ids=["own", "env-python"])
@pytest.mark.parametrize(("number", "word"), NUMBERS)
def test_a_run_with_workers_ends_with_all_of_them(
    number: signal.Signals, word: str, elsewhere: bool, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["collect", "--suite", "toy", "--samples", "2000", "--workers", "2", "--out", str(out)]
    words += ["--env-python", sys.executable] if elsewhere else []
    process = start("import sys; from grape.cli.main import main; sys.exit(main())", *words)
    until(lambda: list(out.rglob("*.parquet")), process)
    workers = children(process.pid)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 128 + number
    assert f"error: {word}." in err
    assert "Traceback" not in err
    assert len(workers) == 2
    assert not [pid for pid in workers if is_there(pid)]
    assert not list(out.rglob("*.tmp"))
