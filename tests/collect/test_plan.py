import dataclasses
from pathlib import Path

import pytest

from grape.collect.plan import Group, PlannedEpisode, make_plan, mixed_episodes_at_most, next_round
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
    collect_settings = CollectSettings(out=Path("unused"), suite=suite, tasks=str(task), initial_states="0")
    with pytest.raises(SettingsError, match="no scripted expert"):
        make_plan(collect_settings, get_suite(suite))
    make_plan(dataclasses.replace(collect_settings, policy="some/policy"), get_suite(suite))


def further(groups: tuple[Group, ...], rates: dict[int, tuple[int, int]], **changes: object) -> list[tuple[int, int]]:
    """State and sample of the next round's episodes, in order, after each state was solved so often of so many."""
    episodes = [episode for group in groups for episode in group.episodes]
    solved = {episode.episode_id: episode.sample < rates[episode.initial_state][0] for episode in episodes}
    next_groups = next_round(settings(**changes), groups, solved)
    assert [group.number for group in next_groups] == list(range(len(groups), len(groups) + len(next_groups)))
    return [(episode.initial_state, episode.sample) for group in next_groups for episode in group.episodes]


def test_a_further_round_goes_to_states_between_10_and_90_percent() -> None:
    changes = {"initial_states": "0-4", "samples": 10, "lanes": 4, "mixed_episodes": 1000}
    groups = make_plan(settings(**changes), get_suite("toy"))
    rates = {0: (0, 10), 1: (1, 10), 2: (5, 10), 3: (9, 10), 4: (10, 10)}
    assert further(groups, rates, **changes) == [(state, sample) for state in (1, 2, 3) for sample in range(10, 20)]
    assert further(groups, rates, **changes | {"mixed_samples": 12}) == [
        (state, sample) for state in (1, 2, 3) for sample in (10, 11)
    ]


def test_what_does_not_suffice_for_all_goes_to_the_most_even_states() -> None:
    changes = {"initial_states": "0-3", "samples": 4, "mixed_episodes": 5}
    groups = make_plan(settings(**changes), get_suite("toy"))
    rates = {0: (1, 4), 1: (0, 4), 2: (2, 4), 3: (3, 4)}
    assert further(groups, rates, **changes) == [(0, 4), (0, 5), (2, 4), (2, 5), (3, 4)]


def test_rounds_end_with_the_budget_the_limit_of_a_state_or_its_outcome() -> None:
    changes = {"initial_states": "0", "samples": 2, "mixed_episodes": 5}
    groups = make_plan(settings(**changes), get_suite("toy"))
    assert mixed_episodes_at_most(settings(**changes), groups) == 5
    assert mixed_episodes_at_most(settings(**changes | {"mixed_episodes": 50}), groups) == 6  # four times two at most
    for _ in range(3):
        solved = {episode.episode_id: episode.sample % 2 == 0 for group in groups for episode in group.episodes}
        groups += next_round(settings(**changes), groups, solved)
    assert [episode.sample for group in groups for episode in group.episodes] == list(range(7))
    solved = {episode.episode_id: True for group in groups[:1] for episode in group.episodes}
    assert next_round(settings(**changes), groups[:1], solved) == ()


def test_a_further_episode_is_the_one_that_more_samples_would_give() -> None:
    changes = {"initial_states": "3", "samples": 2, "mixed_episodes": 2, "operators": "sloppy"}
    groups = make_plan(settings(**changes), get_suite("toy"))
    solved = {episode.episode_id: episode.sample == 0 for episode in groups[0].episodes}
    (group,) = next_round(settings(**changes), groups, solved)
    whole = make_plan(settings(initial_states="3", samples=4, operators="sloppy"), get_suite("toy"))
    later: tuple[PlannedEpisode, ...] = whole[0].episodes[2:]
    assert group.episodes == later


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixed_episodes": -1}, "--mixed-episodes is -1"),
        ({"mixed_episodes": 10}, "--samples 1: one rollout is no mixed"),
        ({"mixed_episodes": 10, "samples": 4, "policy": "p", "temperature": 0.0}, "at --temperature 0"),
        ({"mixed_episodes": 10, "samples": 4, "mixed_samples": 4}, "--mixed-samples is 4"),
        ({"mixed_samples": 4}, "no effect without --mixed-episodes"),
        ({"mixed_episodes": 10**6, "samples": 2}, "and --mixed-episodes 1000000 make more"),
    ],
)
def test_rounds_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_plan(settings(**changes), get_suite("toy"))
