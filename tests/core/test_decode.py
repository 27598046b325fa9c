"""One strict decoder for records."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.reading import decode, encode, record


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
