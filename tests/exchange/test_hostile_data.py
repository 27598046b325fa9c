"""Data from outside that is damaged or made to do harm: each ends within seconds in a sentence, whatever reads it."""

import gzip
import io
import json
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from grape.cli.main import main
from grape.store.rlds.example import encode_example
from grape.store.rlds.tfrecord import frame_record, masked_crc32c
from tests.store.rlds.datasets import write_dataset

NAME = "success_episode_0.npy"
HEADER = "time,x,y,z,gripper"
ROWS = "".join(f"\n{5 + 0.1 * row:.1f},{0.4 + 0.01 * row:.2f},0,0.1,0.04" for row in range(6))


def run_refused(words, capsys):
    """Exit status of a command, which must be 0, 1 or 2 with a sentence and no traceback."""
    status = main([str(word) for word in words])
    errors = capsys.readouterr().err
    assert status in (0, 1, 2), errors
    assert "Traceback" not in errors, errors
    assert "defect of grape" not in errors.lower(), errors
    return status, errors


def npy(description: str, content: bytes, version: int = 1) -> bytes:
    head = description.encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    size = struct.pack("<H", len(head)) if version == 1 else struct.pack("<I", len(head))
    return b"\x93NUMPY" + bytes([version, 0]) + size + head + content


OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
NUMBERS = "{'descr': '<f8', 'fortran_order': False, 'shape': %s, }"


def deep_tuples() -> bytes:
    return b"\x80\x04)" + b"\x85" * 100_000 + b"."


def doubled_tuples() -> bytes:
    return b"\x80\x04)\x94" + b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86\x94" for n in range(200)) + b"."


PICKLES = {
    "call": pickle.dumps(print),
    "system": b"cos\nsystem\n(S'true'\ntR.",
    "deep": deep_tuples(),
    "doubled": doubled_tuples(),
    "long": b"\x80\x04\x8b\xff\xff\xff\x7f" + b"\x01" * 8 + b".",
    "long of minus": b"\x80\x04\x8b\xff\xff\xff\xff.",
    "bytes8": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "unicode8": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.",
    "bytearray8": b"\x80\x05\x96" + b"\xff" * 8 + b".",
    "frame": b"\x80\x04\x95" + b"\xff" * 8 + b".",
    "memo": b"\x80\x04]r\xff\xff\xff\xff.",
    "missing memo": b"\x80\x04hZ.",
    "empty": b"",
    "stop": b".",
    "no stop": b"\x80\x04]",
    "protocol": b"\x80\xff].",
    "persistent": b"\x80\x04Pname\n.",
    "marks": b"\x80\x04" + b"(" * 1_000_000 + b".",
    "setitems": b"\x80\x04}(]]u.",
    "digits": b"I" + b"9" * 100_000 + b"\n.",
    "long text": b"L" + b"9" * 100_000 + b"L\n.",
    "build": b"\x80\x04]}b.",
    "inst": b"(ios\nsystem\n.",
    "surrogate": b"\x80\x04\x8c\x03\xed\xa0\x80.",
    "nested dict key": b"\x80\x04}}}s.",
}
ARRAYS = {
    "huge shape": npy(NUMBERS % "(10000000000000,)", b""),
    "negative shape": npy(NUMBERS % "(-1,)", b"\0" * 8),
    "overflowing shape": npy(NUMBERS % "(4294967296, 4294967296, 4294967296)", b""),
    "shape of text": npy(NUMBERS % "'a'", b""),
    "code in the header": npy("__import__('os').getcwd()", b""),
    "deep header": npy("(" * 5_000, b""),
    "long header": b"\x93NUMPY\x02\0" + struct.pack("<I", 2**32 - 1) + b"{",
    "unknown version": b"\x93NUMPY\x09\x09\x10\0" + b" " * 16,
    "only magic": b"\x93NUMPY",
    "nothing": b"",
    "structured": npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
    "text type": npy("{'descr': '<U4000000000', 'fortran_order': False, 'shape': (1,), }", b""),
    "object shape": npy(OBJECTS.replace("(1,)", "(1000000000,)"), pickle.dumps([])),
    **{f"pickle {name}": npy(OBJECTS, data) for name, data in PICKLES.items()},
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_hostile_rollout_is_left_out(name, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / NAME).write_bytes(ARRAYS[name])
    assert run_refused(["lint", tmp_path / "in"], capsys)[0] == 0
    assert run_refused(["import", "grape-npy", tmp_path / "in", "--out", tmp_path / "out"], capsys)[0] in (1, 2)


def place_odd_file(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "way out":
        (path.parent.parent / "elsewhere").write_text("secret")
        path.symlink_to("../elsewhere")
    elif kind == "nowhere":
        path.symlink_to("no such file")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as handle:
            handle.truncate(20 * 10**9)


ODD = ("pipe", "device", "circle", "way out", "nowhere", "folder", "holes")


@pytest.mark.parametrize("kind", ODD)
def test_a_rollout_that_is_no_plain_file_is_left_out(kind, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    place_odd_file(tmp_path / "in" / NAME, kind)
    run_refused(["lint", tmp_path / "in"], capsys)
    assert run_refused(["import", "grape-npy", tmp_path / "in", "--out", tmp_path / "out"], capsys)[0] in (1, 2)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "set-train.tfrecord-00000-of-00001"])
def test_a_data_set_with_a_file_that_is_no_plain_one_is_refused(kind, file, tmp_path, capsys):
    place_odd_file(write_dataset(tmp_path, {"train": ["a"]}, name="set").path / file, kind)
    status, errors = run_refused(["lint", tmp_path / "set"], capsys)
    assert status in (1, 2)
    assert "secret" not in errors


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("file", ["take.mp4", "depth.npy", "camera.yaml", "log.csv"])
def test_a_recording_with_a_file_that_is_no_plain_one_is_refused(kind, file, folder, capsys):
    place_odd_file(folder / file, kind)
    status, errors = run_refused(["import", "video", folder / "episodes.yaml", "--out", folder.parent / "out"], capsys)
    assert status in (1, 2)
    assert "secret" not in errors


def split(*content: str) -> bytes:
    return ('{"name": "set", "splits": [' + ", ".join(content) + "]}").encode()


INFOS = {
    "no JSON": b"{",
    "deep": b"[" * 100_000,
    "list": b"[]",
    "no name": b'{"splits": []}',
    "name outside": b'{"name": "../../etc/x", "splits": [{"name": "train", "shardLengths": ["1"]}]}',
    "NUL": b'{"name": "a\\u0000b", "splits": [{"name": "train", "shardLengths": ["1"]}]}',
    "surrogate": b'{"name": "\\ud800", "splits": [{"name": "train", "shardLengths": ["1"]}]}',
    "digits": split('{"name": "train", "shardLengths": ["' + "9" * 5_000 + '"]}'),
    "negative": split('{"name": "train", "shardLengths": ["-1"]}'),
    "fraction": split('{"name": "train", "shardLengths": [1.5]}'),
    "text of lengths": split('{"name": "train", "shardLengths": "12"}'),
    "too many files": split('{"name": "train", "numShards": "999999999"}'),
    "unknown word": split('{"name": "train", "shardLengths": ["1"], "filepathTemplate": "{A}"}'),
    "template of a number": split('{"name": "train", "shardLengths": ["1"], "filepathTemplate": 1}'),
    "more than there are": split('{"name": "train", "shardLengths": ["2"]}'),
    "two numbers": split('{"name": "train", "shardLengths": ["1"], "statistics": {"numExamples": "2"}}'),
    "wrong number": split('{"name": "train", "numShards": "1", "statistics": {"numExamples": "2"}}'),
    "a split twice": split('{"name": "train", "shardLengths": ["1"]}, {"name": "train", "shardLengths": ["1"]}'),
    "no files": b'{"name": "other", "splits": []}',
    "splits of numbers": b'{"name": "set", "splits": [1, 2]}',
    "other format": b'{"name": "set", "fileFormat": "riegeli"}',
    "Latin-1": '{"name": "sét"}'.encode("latin-1"),
}


@pytest.mark.parametrize("name", INFOS)
def test_a_hostile_description_is_refused(name, tmp_path, capsys):
    path = write_dataset(tmp_path, {"train": ["a"]}, name="set").path
    (path / "dataset_info.json").write_bytes(INFOS[name])
    for words in (["lint", tmp_path / "set"], ["sft", "--data", f"rlds+plain:{path}", "--out", tmp_path / "sft"]):
        assert run_refused(words, capsys)[0] in (1, 2)


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(name: bytes, feature: bytes) -> bytes:
    return field(1, field(1, field(1, name) + field(2, feature)))


RECORDS = {
    "empty": b"",
    "noise": bytes(range(256)),
    "length beyond": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "endless number": b"\x0a" + b"\xff" * 20,
    "groups": b"\x0b" * 1_000,
    "deep": field(1, field(1, field(1, field(1, field(1, b"x"))))),
    "no name": example(b"", field(3, field(1, b"\x01"))),
    "name of bytes": example(b"\xff\xfe", b""),
    "text of numbers": encode_example({"steps/action": [b"text"], "steps/is_first": np.ones(1)}),
    "numbers of text": encode_example({"steps/is_first": [b"1"]}),
    "floats for flags": encode_example({"steps/is_first": np.ones(3, np.float32)}),
    "floats cut": example(b"steps/action", field(2, field(1, b"\0" * 7))),
    "integers cut": example(b"steps/is_first", field(3, field(1, b"\xff"))),
    "long integers": example(b"steps/is_first", field(3, field(1, b"\xff" * 30 + b"\x01"))),
    "too many flags": encode_example({"steps/is_first": np.ones(1_000_001, np.int64)}),
    "many items": example(b"steps/is_first", field(1, b"\x0a\x00" * 1_000_002)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_hostile_record_is_refused(name, tmp_path, capsys):
    path = write_dataset(tmp_path, {"train": ["a"]}, name="set").path
    (path / "set-train.tfrecord-00000-of-00001").write_bytes(frame_record(RECORDS[name]))
    for words in (["lint", tmp_path / "set"], ["sft", "--data", f"rlds+plain:{path}", "--out", tmp_path / "sft"]):
        status, errors = run_refused(words, capsys)
        assert status in (1, 2)
        assert "record 0" in errors


def announced(length: int) -> bytes:
    head = length.to_bytes(8, "little")
    return head + struct.pack("<I", masked_crc32c(head))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("length", [1, 2**31, 2**40, 2**64 - 1])
def test_a_record_that_announces_more_than_there_is_is_refused(pack, length, tmp_path, capsys):
    path = write_dataset(tmp_path, {"train": ["a"]}, name="set").path
    (path / "set-train.tfrecord-00000-of-00001").write_bytes(pack(announced(length)))
    assert run_refused(["lint", tmp_path / "set"], capsys)[0] in (1, 2)


def test_a_small_gzip_file_is_not_unpacked_to_gigabytes(tmp_path, capsys):
    path = write_dataset(tmp_path, {"train": ["a"]}, name="set").path
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as handle:
        handle.write(announced(1_900_000_000))
        handle.write(bytes(2**24))
    (path / "set-train.tfrecord-00000-of-00001").write_bytes(packed.getvalue())
    status, errors = run_refused(["lint", tmp_path / "set"], capsys)
    assert status in (1, 2)
    assert "1,900,000,000" in errors


LOGS = {
    "too many fields": (HEADER + ROWS + ",1", "line 7"),
    "too few fields": (HEADER + ROWS + "\n6.0,1", "line 8"),
    "trailing commas": (HEADER + ROWS.replace("0.04", "0.04,"), "comma too many"),
    "column twice": (HEADER + ",x" + ROWS.replace("\n", ",1\n").replace(",1\n", "\n", 1) + ",1", "'x'"),
    "semicolons": ((HEADER + ROWS).replace(",", ";"), "';'"),
    "tabs": ((HEADER + ROWS).replace(",", "\t"), "'\\t'"),
    "decimal commas": ("time,x,y,z,gripper\n5,0,0,4,0,0,1,0", "line 2"),
    "quoted decimal comma": (HEADER + '\n"5,0",0.4,0,0.1,0.04', "line 2, column 'time'"),
    "open quote": (HEADER + ROWS + '\n"6.0,1,0,0,0\n' * 3, "line 8"),
    "NUL": (HEADER + ROWS.replace("0.1", "0.\0001", 1), "line 2"),
    "huge field": (HEADER + ROWS + "\n" + "9" * 200_000 + ",1,0,0,0", "line 8"),
    "no rows": (HEADER, "no rows"),
    "nothing": ("", "no rows"),
    "words": (HEADER + ROWS.replace("0.04", "open"), "gripper"),
    "unnamed columns": (HEADER + ",," + ROWS, "no name"),
    "many columns": (HEADER + "".join(f",c{number}" for number in range(3_000)), "columns"),
    "infinite": (HEADER + ROWS.replace("0.04", "inf", 1), "gripper"),
    "hexadecimal": (HEADER + ROWS.replace("0.04", "0x1", 1), "gripper"),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_hostile_table_names_file_and_place(name, folder, capsys):
    text, words = LOGS[name]
    (folder / "log.csv").write_text(text)
    status, errors = run_refused(["import", "video", folder / "episodes.yaml", "--out", folder.parent / "out"], capsys)
    assert status in (1, 2)
    assert "log.csv" in errors
    assert words in errors, errors


def test_a_byte_order_mark_and_empty_lines_are_no_fault(folder, capsys):
    text = (folder / "log.csv").read_text()
    (folder / "log.csv").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n\n")
    assert run_refused(["import", "video", folder / "episodes.yaml", "--out", folder.parent / "out"], capsys)[0] == 0


LINE = {"time": 5.0, "x": 0.4, "y": 0, "z": 0.1, "gripper": 0.04}
LINES = {
    "twice": '{"time": 5, "time": 6}',
    "text for a number": json.dumps(LINE | {"x": "0.4"}),
    "list for a number": json.dumps(LINE | {"x": [1]}),
    "no object": "[1]",
    "no JSON": "{",
    "deep": "[" * 100_000,
    "digits": '{"time": ' + "9" * 5_000 + "}",
    "beyond range": '{"time": 1e999, "x": 1, "y": 1, "z": 1, "gripper": 0}',
    "nothing": "",
    "many keys": json.dumps(dict.fromkeys(map(str, range(3_000)), 1)),
}


@pytest.mark.parametrize("name", LINES)
def test_a_hostile_log_of_objects_is_refused(name, folder, capsys):
    (folder / "log.jsonl").write_text(f"{LINES[name]}\n" if LINES[name] else "")
    listed = (folder / "episodes.yaml").read_text().replace("log.csv", "log.jsonl")
    (folder / "episodes.yaml").write_text(listed)
    status, errors = run_refused(["import", "video", folder / "episodes.yaml", "--out", folder.parent / "out"], capsys)
    assert status in (1, 2)
    assert "log.jsonl" in errors
