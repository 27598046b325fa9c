"""Settings: reading, writing, ranges and identity."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import SettingsError
from grape.core.runs import identity_of
from grape.core.settings import (
    Range,
    check_ranges,
    load_settings,
    save_settings,
    setting,
    settings_from_dict,
    settings_to_dict,
    with_default,
)
from grape.evaluation.settings import EvaluateSettings
from grape.training.settings import SftSettings, TrainSettings


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
        inner=st.builds(
            Inner,
            rate=st.floats(1e-9, 1.0),
            names=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)).map(
                tuple
            ),
        ),
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
        ({"count": "many"}, "needs a whole number"),
        ({"count": "7"}, "needs a whole number"),
        ({"inner": {"rate": 10**400}}, "needs a number"),
        ({"mode": True}, "Known: a, b"),
        ({"inner": {"names": "one"}}, "needs a list, found 'one'"),
        ({"inner": {"names": [7]}}, "quotes"),
        ({"out": None}, "found nothing"),
        ({"flag": 1}, "Write true or false"),
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


@dataclass(frozen=True)
class Words:
    center_crop: Literal["auto", "yes", "no"] = "auto"
    tracker: Literal["none", "off"] = "none"
    release: Literal["1", "2"] = "1"
    level: Literal[1, 2] = 1
    initial_states: str = ""
    tasks: tuple[str, ...] = ()
    out: Path = Path("x")
    either: int | str = 0
    maybe: str | None = None
    flag: bool = False
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("center_crop: yes", "center_crop", "yes"),
        ("center_crop: Yes", "center_crop", "yes"),
        ("center_crop: on", "center_crop", "yes"),
        ("center_crop: true", "center_crop", "yes"),
        ("center_crop: No", "center_crop", "no"),
        ("center_crop: 'yes'", "center_crop", "yes"),
        ("tracker: off", "tracker", "off"),
        ("tracker: no", "tracker", "off"),
        ("release: 2", "release", "2"),
        ("level: 2", "level", 2),
        ("initial_states: 7", "initial_states", "7"),
        ("initial-states: 7", "initial_states", "7"),
        ("initial_states: 1e3", "initial_states", "1e3"),
        ("initial_states: 0x10", "initial_states", "0x10"),
        ("initial_states: 1.50", "initial_states", "1.50"),
        ("initial_states: No", "initial_states", "No"),
        ("initial_states: 2024-02-31", "initial_states", "2024-02-31"),
        ("tasks: [0, yes, a-b]", "tasks", ("0", "yes", "a-b")),
        ("out: 2026", "out", Path("2026")),
        ("either: 7", "either", 7),
        ("either: on", "either", "on"),
        ("maybe: 1", "maybe", "1"),
        ("maybe: ~", "maybe", None),
        ("flag: on", "flag", True),
        ("flag: 'no'", "flag", False),
        ("inner: {names: [1, off]}", "inner", Inner(names=("1", "off"))),
    ],
)
def test_a_word_is_taken_as_it_is_written(tmp_path: Path, text: str, name: str, value: object) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text + "\n")
    loaded = getattr(load_settings(Words, path), name)
    assert (loaded, type(loaded)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("initial-states: 1\ninitial_states: 2", "settings.yaml, line 2. is given twice"),
        ("flag: yes\ncenter_crop: maybe", "'center_crop' .*settings.yaml, line 2. is 'maybe'|is maybe"),
        ("center_crop: 1.50", "is 1.50"),
        ("level: yes", "is yes"),
        ("level: 1.0", "is 1.0"),
        ("\n\ninner:\n  rate: fast", "'inner.rate' .*line 4. needs a number .float., found fast"),
        ("inner: on", "'inner' .*line 1.: expected a mapping of settings, found on"),
        ("tasks: push", "needs a list, found push"),
        ("tasks:\n- a\n-", r"'tasks\[1\]' .*line 3. needs a text, found nothing"),
        ("initial_states:", "needs a text, found nothing"),
        ("flga: 1", "'flga' .*line 1"),
    ],
)
def test_wrong_values_are_quoted_as_written_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text + "\n")
    with pytest.raises(SettingsError, match=message):
        load_settings(Words, path)


@dataclass(frozen=True)
class Base:
    rate: float = setting(0.5, group="Speed", range=Range(0, 1, open_low=True))
    place: str = setting("", identity=False)


@dataclass(frozen=True)
class Faster(Base):
    thing: str = setting()
    rate: float = with_default(Base, "rate", 0.9)
    count: int | None = setting(None, range=Range(1), identity="unless default")


def test_a_taken_over_field_keeps_its_range_and_group_and_required_ones_come_first():
    settings = Faster("box")
    assert (settings.thing, settings.rate) == ("box", 0.9)
    (rate,) = (field for field in dataclasses.fields(Faster) if field.name == "rate")
    assert (rate.metadata["group"], rate.metadata["range"]) == ("Speed", Range(0, 1, open_low=True))
    with pytest.raises(TypeError):
        Faster()


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.5, math.nan, math.inf])
def test_a_number_out_of_range_is_refused_by_its_flag(rate):
    with pytest.raises(SettingsError, match=rf"--rate is {rate}.*\n.*above 0 and at most 1"):
        check_ranges(Faster("box", rate=rate))


def test_numbers_in_range_and_absent_ones_pass():
    check_ranges(Faster("box", rate=1.0))
    check_ranges(Faster("box", count=1))


def test_identity_leaves_out_what_changes_nothing():
    assert identity_of(Faster("box", place="here")) == {"rate": 0.9, "thing": "box"}
    assert identity_of(Faster("box", count=3)) == {"rate": 0.9, "thing": "box", "count": 3}


def test_a_default_may_stand_in_the_identity_as_older_runs_hold_it():
    def identity(**changes):
        return identity_of(SftSettings((), out="x", **changes))["soft_bins"]

    assert [identity(), identity(soft_bins=0.5), identity(soft_bins=0.0)] == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("accepted", "text"),
    [
        (Range(0), "at least 0"),
        (Range(0, open_low=True), "above 0"),
        (Range(0, 1_000_000), "between 0 and 1000000"),
        (Range(0, 1, open_high=True), "at least 0 and below 1"),
    ],
)
def test_a_range_says_what_it_accepts(accepted, text):
    assert str(accepted) == text


def test_shared_settings_of_trainers_and_rollouts_are_declared_in_one_place():
    def declared(kind):
        return set(vars(kind).get("__annotations__", {}))

    for kind in (TrainSettings, SftSettings):
        assert not declared(kind) & {"device", "dtype", "lora_rank", "report_to", "keep_checkpoints", "threads", "seed"}
    assert not declared(EvaluateSettings) & {"suite", "tasks", "lanes", "workers", "timeout", "env_python", "device"}
