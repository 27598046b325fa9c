from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import SettingsError
from grape.core.settings import load_settings, save_settings, settings_from_dict, settings_to_dict


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-3
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    out: Path = Path("x")
    mode: Literal["a", "b"] = "a"
    count: int = 1
    limit: float | None = None
    weights: dict[str, float] = field(default_factory=dict)
    inner: Inner = Inner()
    flag: bool = False


@given(
    st.builds(
        Outer,
        out=st.text("abc/", min_size=1).map(Path),
        mode=st.sampled_from(["a", "b"]),
        count=st.integers(-(10**9), 10**9),
        limit=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        weights=st.dictionaries(st.text("xyz", min_size=1), st.floats(-1e6, 1e6)),
        inner=st.builds(Inner, rate=st.floats(1e-9, 1.0), names=st.lists(st.text(max_size=4)).map(tuple)),
        flag=st.booleans(),
    )
)
def test_settings_survive_the_way_through_plain_values(settings: Outer) -> None:
    assert settings_from_dict(Outer, settings_to_dict(settings)) == settings


def test_yaml_round_trip_and_numbers_that_yaml_reads_as_text(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    save_settings(path, Outer(count=3))
    assert load_settings(Outer, path) == Outer(count=3)
    path.write_text("inner:\n  rate: 3e-4\n")
    assert load_settings(Outer, path).inner.rate == 3e-4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"cuont": 2}, "Did you mean 'count'"),
        ({"inner": {"rat": 2}}, "inner.rat"),
        ({"mode": "c"}, "Known: a, b"),
        ({"count": "many"}, "needs int"),
        ({"count": True}, "whole number"),
        ({"inner": 3}, "expected a mapping"),
        ({"weights": [1]}, "needs a mapping"),
    ],
)
def test_wrong_settings_are_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_from_dict(Outer, data)


def test_missing_file_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(Outer, tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(SettingsError, match="cannot be read as YAML"):
        load_settings(Outer, tmp_path / "bad.yaml")
