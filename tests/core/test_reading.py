"""Files and documents from outside: bounded, regular, plain, and never a traceback."""

import contextlib
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.reading import MAX_DEPTH, open_file, parse_json, parse_yaml, read_file


def test_a_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="named pipe"):
        read_file(tmp_path / "pipe")


def test_a_device_a_folder_and_a_missing_file_are_refused(tmp_path):
    for path, words in ((tmp_path, "folder"), (tmp_path / "none", "does not exist"), ("/dev/zero", "device")):
        with pytest.raises(DataError, match=words):
            read_file(type(tmp_path)(path))


def test_a_sparse_file_of_many_gigabytes_is_refused_by_its_size(tmp_path):
    with (tmp_path / "huge").open("wb") as handle:
        handle.truncate(20 * 2**30)
    with pytest.raises(DataError, match="21,474,836,480 bytes"):
        read_file(tmp_path / "huge")


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_followed(tmp_path):
    (tmp_path / "outside").write_text("secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("fine")
    (folder / "inside").symlink_to("file")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to("loop")
    assert read_file(folder / "inside", within=folder) == b"fine"
    with pytest.raises(DataError, match="leads out of"):
        read_file(folder / "link", within=folder)
    for name in ("loop", "a\0b"):
        with pytest.raises(DataError):
            open_file(folder / name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ("[" * 100_000, "nested"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested"),
        ("9" * 5000, "cannot be read as JSON"),
        ("9" * 30, "64 bits"),
        ('"\\ud800"', "surrogate"),
        ('{"\\ud800": 1}', "surrogate"),
        ("1e999", "not a finite number"),
        ("NaN", "not a finite number"),
        ("{", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
    ],
)
def test_json_that_would_break_later_is_refused(text, words):
    with pytest.raises(DataError, match=words):
        parse_json(text, "file")


def test_json_keeps_its_values():
    assert parse_json('\ufeff{"a": [1, -2.5, true, null, "ü\\ud83d\\ude00"]}'.encode(), "file") == {
        "a": [1, -2.5, True, None, "ü😀"]
    }
    assert math.isnan(parse_json("NaN", "file", allow_nonfinite=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: !!int foo", "line 1.*tags"),
        ("a: !!python/object/apply:os.system [ls]", "tags"),
        ("a: &x 1\nb: *x", "anchors"),
        ("a: 1\nb: 2\na: 3", "line 3.*'a' is given twice"),
        ("[a]: 1", "key must be plain"),
        ("a: 010", "octal"),
        ("a: 1:30", "base 60"),
        ("a: " + "9" * 5000, "5000 digits"),
        ("a: " + "[" * 5000, "nested deeper"),
        ("a: b: c", "line 1"),
        ("a: 1\n---\nb: 2", "single document"),
        ("\0", "cannot be read"),
        (b"\xff\xfe\xfa", "cannot be read"),
        ('"\\ud800"', "surrogate|cannot be read"),
    ],
)
def test_yaml_that_would_break_later_is_refused(text, words):
    with pytest.raises(DataError, match=words):
        parse_yaml(text, "file")


def test_yaml_is_read_as_its_writers_mean_it():
    lines = ["date: 2024-02-31", "rate: 3e-4", "flag: yes", "hex: 0x1F", "odd: 0x_", "none:", "list: [1, .5, -2.]"]
    text = "\n".join([*lines, "2: two", "inf: .inf", "foo: '010'"])
    assert parse_yaml(text, "file") == {
        "date": "2024-02-31",
        "rate": 3e-4,
        "flag": True,
        "hex": 31,
        "odd": "0x_",
        "none": None,
        "list": [1, 0.5, -2.0],
        "2": "two",
        "inf": math.inf,
        "foo": "010",
    }
    assert parse_yaml("", "file") is None


@given(
    st.one_of(
        st.text(max_size=80), st.text(alphabet="[]{}:,-&*!?'\"\n 0x1.e_~<=|>%@#ab", max_size=60), st.binary(max_size=40)
    )
)
def test_any_text_gives_a_value_or_a_data_error(text):
    for parse in (parse_json, parse_yaml):
        with contextlib.suppress(DataError):
            parse(text, "file")
