"""What a dry run promises."""

from pathlib import Path
from typing import Any

import pytest

import grape.loop as loop_room
from grape.core.settings import read_yaml, settings_from_dict
from grape.loop import LoopSettings, out_of_seed, run_loop
from grape.loop.plan import format_plan

TINY = read_yaml(Path(__file__).parent / "tiny.yaml")


def plan(**changes: Any) -> dict[str, Any]:
    settings = settings_from_dict(LoopSettings, TINY | changes | {"dry_run": True}, LoopSettings(out=Path("run")))
    return dict(run_loop(settings))


def stage(summary: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in summary["stages"] if row["stage"] == name)


def test_every_stage_has_its_cost() -> None:
    summary = plan()
    demonstrations = stage(summary, "demonstrations")
    assert demonstrations["episodes"] == 24
    assert stage(summary, "supervised fine-tuning")["frames_at_most"] == 6 * demonstrations["decisions_at_most"]
    assert stage(summary, "iteration 1: collect")["episodes"] == 2 * 4 * 4
    assert stage(summary, "iteration 1: score")["episodes_to_score"] == 2 * 4 * 4
    assert stage(summary, "iteration 1: pair")["pairs_at_most"] == 2 * 4 * 2  # four samples give two pairs
    assert stage(summary, "iteration 2: train")["updates_at_most"] == 8
    assert stage(summary, "filtered BC: test")["episodes"] == 2 * 4
    for total in ("episodes", "decisions_at_most", "pairs_at_most", "updates_at_most", "frames_at_most"):
        assert summary[total] == sum(row.get(total, 0) for row in summary["stages"]) > 0


def test_evaluations_with_several_samples_cost_as_many_times_more() -> None:
    once, often = plan(), plan(evaluation_samples=5, evaluation_temperature=0.7)
    for name in ("validation of the first policy", "test of the result"):
        for key in ("episodes", "decisions_at_most"):
            assert stage(often, name)[key] == 5 * stage(once, name)[key]
    assert stage(often, "iteration 1: collect") == stage(once, "iteration 1: collect")


def test_episodes_from_states_of_mixed_outcome_are_planned_for() -> None:
    plain, more = plan(), plan(collect=TINY["collect"] | {"mixed_episodes": 20})
    row, fewer = stage(more, "iteration 1: collect"), stage(plain, "iteration 1: collect")
    assert row["episodes"] == fewer["episodes"] + 20
    assert row["decisions_at_most"] > fewer["decisions_at_most"]
    assert stage(more, "iteration 1: score")["episodes_to_score"] == row["episodes"]
    assert stage(more, "demonstrations") == stage(plain, "demonstrations")


@pytest.mark.parametrize("changes", [{"compare_cloning": False}, {"train": {"method": "filtered-bc"}}])
def test_filtered_bc_is_not_planned_where_it_says_nothing(changes: dict[str, Any]) -> None:
    assert not [row for row in plan(**changes)["stages"] if "filtered BC" in row["stage"]]


def test_limits_of_pairs_and_updates_lower_the_plan() -> None:
    summary = plan(pair={"max_pairs": 5}, train={"max_updates": 2}, sft={"max_updates": 3, "batch_size": 8})
    assert stage(summary, "iteration 1: pair")["pairs_at_most"] == 5
    assert stage(summary, "iteration 1: train")["updates_at_most"] == 2
    assert stage(summary, "supervised fine-tuning")["frames_at_most"] == 24


@pytest.mark.parametrize("method", ["kto", "rloo"])
def test_unpaired_methods_make_no_pairs_and_learn_from_every_episode(method: str) -> None:
    summary = plan(train=TINY["train"] | {"method": method}, replay=1, compare_cloning=False)
    assert summary["pairs_at_most"] == 0
    collected = stage(summary, "iteration 1: collect")["episodes"]
    first, second = (stage(summary, f"iteration {number}: train") for number in (1, 2))
    assert first["updates_at_most"] == collected / 4  # two pairs an update hold four episodes
    assert second["frames_at_most"] == 2 * first["frames_at_most"]


def test_replayed_pairs_are_planned_for() -> None:
    once, again = (plan(replay=replay, iterations=3) for replay in (0, 1))
    for number, times in ((1, 1), (2, 2), (3, 2)):
        name = f"iteration {number}: train"
        assert stage(again, name)["frames_at_most"] == times * stage(once, name)["frames_at_most"]


def test_people_get_one_aligned_line_a_stage() -> None:
    summary = plan()
    head, *rows = format_plan(summary)[: len(summary["stages"]) + 2]
    assert rows[-1].startswith("all ")
    end = head.index("episodes") + len("episodes")
    assert all(row[:end].rstrip()[-1].isdigit() for row in rows if "collect" in row or row.startswith("all "))
    assert all(len(row) <= 100 for row in rows)


def test_seeds_have_folders_of_their_own() -> None:
    default = Path("runs/demo")
    assert out_of_seed(LoopSettings(out=default), default).out == default
    assert out_of_seed(LoopSettings(out=default, seed=7), default).out == Path("runs/demo-7")
    assert out_of_seed(LoopSettings(out=Path("mine"), seed=7), default).out == Path("mine")


RECIPES = sorted((Path(loop_room.__file__).parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_pass_every_check(recipe: Path) -> None:
    data = read_yaml(recipe) | {"dry_run": True}
    summary = run_loop(settings_from_dict(LoopSettings, data, LoopSettings(out=Path("run"))))
    assert stage(dict(summary), "iteration 1: collect")["episodes"] > 0


def test_defaults_demo_recipe_and_quick_start_are_one_method() -> None:
    """What makes pairs of rollouts and a policy of pairs is nowhere set otherwise."""
    plain = LoopSettings(out=Path("run"))
    recipe = next(path for path in RECIPES if path.stem == "metaworld-nano")
    demo = settings_from_dict(LoopSettings, read_yaml(recipe), plain)
    assert (demo.score, demo.pair, demo.train) == (plain.score, plain.pair, plain.train)
    assert (demo.collect.samples, demo.collect.temperature) == (plain.collect.samples, plain.collect.temperature)
    commands = (Path(__file__).parents[2] / "docs" / "quickstart.md").read_text(encoding="utf-8").replace("\\\n", " ")
    given = {
        line.split()[1]: {word for word in line.split() if word.startswith("--")}
        for line in commands.splitlines()
        if line.startswith("    grape ") and line.split()[1] in ("score", "pair", "train")
    }
    assert given == {
        "score": {"--store", "--out"},
        "pair": {"--scores", "--out"},
        "train": {"--pairs", "--policy", "--out"},
    }
