"""Built-in specifications as they are written: templates, their values, and the hashes that recorded scores name."""

import json
import string
from importlib import resources
from pathlib import Path

import pytest
import yaml

from grape.cli.main import main
from grape.costs import builtin_names, builtin_specification, builtin_suites, parse_specification, specification_hash
from grape.costs.builtins import builtin_text

FOLDER = resources.files("grape.costs") / "builtin"
NAMES = [f"{suite}/{task}" for suite in builtin_suites() for task in builtin_names(suite)]


def test_hashes_change_only_where_costs_are_meant_to_change():
    recorded = json.loads((Path(__file__).parent / "builtin_hashes.json").read_text())
    assert {name: specification_hash(builtin_specification(*name.split("/"))) for name in NAMES} == recorded


@pytest.mark.parametrize("name", ["libero_object/pick_up_the_milk_and_place_it_in_the_basket", "metaworld/push"])
def test_the_text_of_a_builtin_makes_the_same_specification_from_a_file(name, tmp_path, capsys):
    assert main(["costs", "show", name, "--as-yaml"]) == 0
    text = capsys.readouterr().out
    assert "$" not in text
    assert parse_specification(text, "a copy") == builtin_specification(*name.split("/"))
    (tmp_path / "copy.yaml").write_text(text)
    assert main(["costs", "show", str(tmp_path / "copy.yaml"), "--as-yaml"]) == 0
    assert capsys.readouterr().out == text


def test_a_task_that_is_priced_like_another_has_its_text():
    assert builtin_text("simpler_widowx_subject", "spoon-on-plate") == builtin_text("simpler_widowx", "carrot-on-plate")
    assert builtin_text("libero_goal_2hz", "turn_on_the_stove") == builtin_text("libero_goal", "turn_on_the_stove")


def test_a_template_uses_each_value_that_its_tasks_give_and_no_task_has_two_specifications():
    tables = [path for path in FOLDER.iterdir() if (path / "tasks.yaml").is_file()]
    assert len(tables) >= 6
    for folder in tables:
        for template, tasks in yaml.safe_load((folder / "tasks.yaml").read_text()).items():
            used = string.Template((FOLDER / "templates" / f"{template}.yaml").read_text()).get_identifiers()
            shared = tasks.pop("all", {})
            for task, values in tasks.items():
                assert {*shared, *values} == {*used} - {"suite", "task"}
                assert not (folder / f"{task}.yaml").is_file()
