"""Files and documents from outside: bounded, regular, plain, and never a traceback."""

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.reading import MAX_DEPTH, decode, encode, open_file, parse_json, parse_yaml, read_file, record


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


@record
@dataclass(frozen=True)
class Part:
    name: str
    cost: float
    tags: tuple[str, ...] = ()


@record
@dataclass(frozen=True)
class Whole:
    index: int
    solved: bool | None
    parts: tuple[Part, ...]
    terms: Mapping[str, float] = field(default_factory=dict)
    kind: Literal["a", "b"] = "a"


GOOD = {"index": 3, "solved": None, "parts": [{"name": "x", "cost": 1, "tags": ["t"]}], "terms": {"self": 0.5}}


def test_a_record_is_read_with_its_parts():
    assert decode(Whole, GOOD, "file") == Whole(3, None, (Part("x", 1.0, ("t",)),), {"self": 0.5})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": "3"}, r"line 2: index is '3': should be a valid integer"),
        ({"index": 3.5}, "index is 3.5"),
        ({"index": True}, "index is True"),
        ({"solved": 1}, "solved is 1"),
        ({"parts": {}}, "parts is"),
        ({"parts": [{"name": "x"}]}, r"field 'parts\[0\].cost' is missing"),
        ({"parts": [{"name": None, "cost": 1}]}, r"parts\[0\].name is None"),
        ({"terms": {"self": "x"}}, "terms.self is 'x'"),
        ({"kind": "c"}, "kind is 'c': should be 'a' or 'b'"),
        ({"indx": 3}, r"(?s)field 'indx' is unknown. Did you mean 'index'"),
        ({"parts": [{"nam": "x"}]}, r"(?s)field 'parts\[0\].nam' is unknown. Did you mean 'name'"),
        ({"terms": {"self": float("nan")}}, "file|NaN"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(DataError, match=message):
        decode(Whole, GOOD | change, "file, line 2")


@pytest.mark.parametrize("value", [None, 3, "x", [], [GOOD]])
def test_other_values_are_refused(value):
    with pytest.raises(DataError, match="file"):
        decode(Whole, value, "file")


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


PARTS = st.builds(Part, st.text(st.characters(exclude_categories=["Cs"])), NUMBERS, st.lists(st.just("t")).map(tuple))


@given(st.builds(Whole, st.integers(-(2**63), 2**63 - 1), st.none() | st.booleans(), st.lists(PARTS).map(tuple)))
def test_what_is_written_is_read_back(value):
    assert decode(Whole, encode(value), "file") == value


def test_pydantic_is_imported_by_who_reads_a_record_only():
    program = (
        "import sys, grape.cli.main, grape.preferences.records, grape.evaluation.results, grape.store.header\n"
        "try:\n    grape.cli.main.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit('pydantic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=300)
