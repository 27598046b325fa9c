"""Fields of settings: ranges, defaults taken over, identity."""

import dataclasses
import math
from dataclasses import dataclass

import pytest

from grape.core.errors import SettingsError
from grape.core.runs import identity_of
from grape.core.settings import Range, check_ranges, setting, with_default
from grape.evaluation.settings import EvaluateSettings
from grape.training.settings import SftSettings, TrainSettings


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
