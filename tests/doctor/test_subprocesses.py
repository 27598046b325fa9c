"""A probe's crash, hang or chatter is an answer, never the caller's problem."""

import time

from grape.doctor.findings import probe


def test_answer_is_the_last_json_line():
    reply = probe(("-c", "print('{not json'); print('{\"a\": 1}'); print('bye')"), 600)
    assert reply.data == {"a": 1}
    assert reply.failure == ""


def test_environment_and_arguments_arrive():
    code = "import json, os, sys; print(json.dumps({'x': os.environ['GRAPE_X'], 'argv': sys.argv[1:]}))"
    assert probe(("-c", code, "word"), 30, {"GRAPE_X": "1"}).data == {"x": "1", "argv": ["word"]}


def test_crash_names_the_signal():
    reply = probe(("-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), 600)
    assert reply.failure == "crashed with SIGSEGV"
    assert not reply.data


def test_exception_gives_its_last_line():
    assert probe(("-c", "raise ValueError('no such driver')"), 600).failure == "exit code 1: ValueError: no such driver"


def test_hang_ends_with_its_children():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(3000)'])"
    began = time.monotonic()
    assert "within 1 s" in probe(("-c", code), 1).failure
    assert time.monotonic() - began < 1500


def test_silence_is_a_failure():
    assert "without an answer" in probe(("-c", "print('hello')"), 600).failure
