import dataclasses
from pathlib import Path

import pytest

from grape.collect.plan import make_plan
from grape.collect.settings import CollectSettings
from grape.core.errors import SettingsError
from grape.envs.registry import get_suite


def settings(**changes: object) -> CollectSettings:
    return CollectSettings(out=Path("unused"), suite="toy", tasks="0", **changes)  # type: ignore[arg-type]


def test_every_episode_is_planned_once_with_a_seed_of_its_own() -> None:
    groups = make_plan(settings(initial_states="0-9", samples=3, lanes=4), get_suite("toy"))
    episodes = [episode for group in groups for episode in group.episodes]
    assert len(episodes) == 30
    assert len({episode.episode_id for episode in episodes}) == 30
    assert len({episode.seed for episode in episodes}) == 30
    assert [len(group.episodes) for group in groups] == [4] * 7 + [2]


def test_seeds_do_not_depend_on_what_else_is_collected() -> None:
    few = make_plan(settings(initial_states="7", samples=1), get_suite("toy"))[0].episodes[0]
    many = [e for g in make_plan(settings(initial_states="0-9", samples=2), get_suite("toy")) for e in g.episodes]
    assert few in many


def test_mixed_operators_share_out_the_states() -> None:
    groups = make_plan(settings(initial_states="0-4", operators="clean:3,sloppy:2"), get_suite("toy"))
    assert [episode.operator for episode in groups[0].episodes] == ["clean"] * 3 + ["sloppy"] * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 0},
        {"lanes": 0},
        {"temperature": -1.0},
        {"operators": "clean:3"},
        {"operators": "clean:x"},
        {"initial_states": "99999999"},
    ],
)
def test_impossible_plans_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        make_plan(settings(**changes), get_suite("toy"))


@pytest.mark.parametrize(("suite", "task"), [("libero_90", 0), ("libero_goal", 9), ("libero_10_2hz", 9)])
def test_a_task_without_an_expert_is_refused_before_a_simulator_starts(suite: str, task: int) -> None:
    asked = CollectSettings(out=Path("unused"), suite=suite, tasks=str(task), initial_states="0")
    with pytest.raises(SettingsError, match="no scripted expert"):
        make_plan(asked, get_suite(suite))
    make_plan(dataclasses.replace(asked, policy="some/policy"), get_suite(suite))
