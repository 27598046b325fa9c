"""Shards of a plan are disjoint, together they are the plan, and played apart they give the bytes of one run."""

from pathlib import Path

import pytest
from hypothesis import given, strategies
from hypothesis import settings as hypothesis_settings

from grape.collect.plan import Group, make_plan
from grape.collect.settings import CollectSettings
from grape.collect.sharding import Shard, groups_of_shard, parse_shard, shard_facts
from grape.core.errors import CompatibilityError, SettingsError
from grape.core.files import read_json
from grape.envs.registry import get_suite
from tests.collect.test_collect import collect, store_bytes


def plan(states: int, samples: int, lanes: int, tasks: str) -> tuple[Group, ...]:
    settings = CollectSettings(
        out=Path("unused"), suite="toy", tasks=tasks, initial_states=f"0-{states - 1}", samples=samples, lanes=lanes
    )
    return make_plan(settings, get_suite("toy"))


def states_of(groups: tuple[Group, ...]) -> set[tuple[str, int]]:
    return {(group.task.name, episode.initial_state) for group in groups for episode in group.episodes}


@hypothesis_settings(deadline=None, max_examples=150)
@given(
    states=strategies.integers(1, 12),
    samples=strategies.integers(1, 7),
    lanes=strategies.integers(1, 9),
    tasks=strategies.sampled_from(["0", "0,1"]),
    count=strategies.integers(1, 12),
)
def test_shards_are_a_partition_of_the_plan(states: int, samples: int, lanes: int, tasks: str, count: int) -> None:
    groups = plan(states, samples, lanes, tasks)
    if count > len(groups):
        with pytest.raises(SettingsError, match=f"the plan has {len(groups)} groups"):
            groups_of_shard(groups, Shard(1, count))
        return
    shards = [groups_of_shard(groups, Shard(number, count)) for number in range(1, count + 1)]
    assert all(shards)
    assert sorted(group.number for shard in shards for group in shard) == list(range(len(groups)))
    for shard in shards:
        assert [group.number for group in shard] == sorted(group.number for group in shard)
    divided = any(states_of(one) & states_of(other) for one in shards for other in shards if one is not other)
    facts = shard_facts(groups, Shard(1, count))
    assert facts["whole"] == sum(len(group.episodes) for group in groups)
    assert facts["divides_states"] or not divided
    if lanes % samples == 0:  # each group ends with a state's last episode: then no shard needs to divide one
        assert not facts["divides_states"]


def test_what_was_given_as_one_shard_is_read_back() -> None:
    assert parse_shard("") is None
    assert parse_shard("2/8") == Shard(2, 8)
    assert str(parse_shard("2/8")) == "2/8"


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "1/9999999", "٢/٨", " 1/2"])
def test_what_names_no_shard_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--shard"):
        parse_shard(text)


def test_further_rounds_are_refused_in_a_shard() -> None:
    settings = CollectSettings(
        out=Path("unused"), suite="toy", tasks="0", samples=4, mixed_episodes=8, shard="1/2", initial_states="0-7"
    )
    with pytest.raises(SettingsError, match="outcomes of all shards"):
        make_plan(settings, get_suite("toy"))


def test_a_shard_has_the_episodes_of_one_run_and_says_what_it_is_part_of(tmp_path: Path) -> None:
    changes = {"tasks": "0", "initial_states": "0-4", "samples": 2, "operators": "sloppy", "workers": 1}
    collect(tmp_path / "whole", **changes)
    whole = store_bytes(tmp_path / "whole")
    summary = collect(tmp_path / "second", **changes, shard="2/2")
    own = store_bytes(tmp_path / "second")
    assert 0 < len(own) < len(whole) == 10
    assert own.items() <= whole.items()
    assert (summary["shard"], summary["whole"], summary["episodes"]) == ("2/2", 10, len(own))
    assert read_json(tmp_path / "second" / "plan.json") == {
        "divides_states": False,
        "episodes": len(own),
        "shard": "2/2",
        "whole": 10,
    }
    recorded, expected = (read_json(tmp_path / name / "run.json") for name in ("second", "whole"))
    assert recorded["settings"].pop("shard") == "2/2"
    assert recorded == expected
    with pytest.raises(CompatibilityError, match="give --shard 2/2"):
        collect(tmp_path / "second", **changes, shard="1/2")
    plan = collect(tmp_path / "second", **changes, shard="1/2", dry_run=True)
    assert (plan["episodes"], plan["whole"]) == (10 - len(own), 10)
