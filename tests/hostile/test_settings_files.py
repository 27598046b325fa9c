"""Settings files (``--config``) and cost specifications."""

import pytest
import yaml

from tests.generation.answers import SPECIFICATION
from tests.hostile.baseline import MAKERS
from tests.hostile.cases import cases_of, changed_json, check, contents
from tests.hostile.documents import BAD_JSON, BAD_YAML
from tests.hostile.hostile_files import SPECIAL

MAKERS["costs.yaml"] = lambda path: path.write_text(yaml.safe_dump(SPECIFICATION), encoding="utf-8")

BAD = {**contents(BAD_YAML), **{f"JSON: {name}": spoil for name, spoil in contents(BAD_JSON).items()}}
VERBS = [
    f"{verb} --config rollouts/settings.yaml {rest}"
    for verb, rest in {
        "collect": "--out OUT --dry-run",
        "sft": "--data rollouts/store --out OUT --dry-run",
        "score": "--store rollouts/store --out OUT",
        "pair": "--scores scores --out OUT",
        "train": "--pairs pairs --policy sft/policy --out OUT --dry-run",
        "evaluate": "--policy expert --suite toy --out OUT --dry-run",
        "compare": "a b",
        "loop": "--out OUT --dry-run",
        "study": "--out OUT --dry-run",
        "demo": "--out OUT --dry-run",
        "report": "pairs --out OUT/report.html",
        "predict": "--policy x --image x --instruction x",
        "doctor": "",
        "lint": "x",
        "keypoints": "x --out OUT",
        "costs check": "x",
        "costs list": "",
        "export rlds": "--pairs pairs --out OUT",
        "import video": "x --out OUT",
    }.items()
]
OWN = {
    "collect": ("rollouts", "collect --config rollouts/settings.yaml --out OUT --dry-run"),
    "sft": ("sft", "sft --config sft/settings.yaml --out OUT --dry-run"),
    "score": ("scores", "score --config scores/settings.yaml --out OUT"),
    "pair": ("pairs", "pair --config pairs/settings.yaml --out OUT"),
    "train": ("tpo", "train --config tpo/settings.yaml --out OUT --dry-run"),
    "evaluate": ("evaluation", "evaluate --config evaluation/settings.yaml --out OUT --dry-run"),
    "loop": ("loop", "loop --config loop/settings.yaml --out OUT --dry-run"),
}
"""Verbs with the folder whose settings are sound for them."""
NEEDS = {"score": ("rollouts",), "pair": ("scores",), "sft": ("demos",), "train": ("pairs", "rollouts", "sft")}

SETTINGS = cases_of("rollouts/settings.yaml", ("rollouts",), VERBS, {**SPECIAL, **BAD})
for number, (verb, (part, command)) in enumerate(OWN.items()):
    SETTINGS += cases_of(f"{part}/settings.yaml", (part, *NEEDS.get(verb, ())), [command], changed_json(40, number))

COSTS = [
    "costs check costs.yaml --suite toy",
    "score --store demos/store --costs costs.yaml --out OUT",
    "costs show costs.yaml --store demos/store --out OUT/page.html",
    "costs validate costs.yaml --store demos/store",
    "costs show costs.yaml",
]
SPECIFICATIONS = [
    *cases_of("costs.yaml", ("costs.yaml", "demos"), COSTS, {**SPECIAL, **BAD}),
    *cases_of("costs.yaml", ("costs.yaml", "demos"), COSTS, changed_json(150, 9)),
]


@pytest.mark.parametrize("case", SETTINGS, ids=str)
def test_a_settings_file(case, baseline, driver, place):
    check(case, baseline, driver, place)


@pytest.mark.parametrize("case", SPECIFICATIONS, ids=str)
def test_a_cost_specification(case, baseline, driver, place):
    check(case, baseline, driver, place)
