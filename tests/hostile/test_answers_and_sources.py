"""Answers of models, ledgers, files of names, images for a model, constraint functions in Python."""

import dataclasses
import json

import pytest
import yaml

from tests.generation.answers import SPECIFICATION, good
from tests.generation.hostile_python import REFUSED
from tests.hostile.baseline import COMMANDS, MAKERS
from tests.hostile.cases import cases_of, changed_json, check, contents
from tests.hostile.documents import BAD_JSON, BAD_YAML, ESCAPES, changes, to_json
from tests.hostile.hostile_files import DAMAGED, SPECIAL, content
from tests.hostile.images import hostile_images, sound

FOLDER = "costs generate --suite toy --task push-block --no-image --out OUT"
SCRIPT = f"{FOLDER} --client script --answers answers --repairs 0"
REPLAY = f"{FOLDER} --client replay --model MODEL --answers generated/answers"
ASK = (
    "costs generate --instruction open --image image.png --names names.yaml --client script --answers answers "
    "--repairs 0 --out OUT"
)
PREDICT = "predict --policy sft/policy --image image.png --instruction open"
SOURCE = """
import numpy as np

def stage1_subgoal_constraint1(end_effector, keypoints):
    return np.linalg.norm(end_effector - keypoints[0]) - 0.02
"""


def _make_answers(path):
    path.mkdir()
    (path / "0.txt").write_text(good(), encoding="utf-8")


def _names():
    return {
        "keypoints": {"gripper": "the hand", "object": "the block", "goal": "the target"},
        "signals": {"success": "1"},
    }


MAKERS["answers"] = _make_answers
MAKERS["image.png"] = lambda path: path.write_bytes(sound()) and None
MAKERS["names.yaml"] = lambda path: path.write_text(yaml.safe_dump(_names()), encoding="utf-8") and None
MAKERS["source.py"] = lambda path: path.write_text(SOURCE, encoding="utf-8") and None
COMMANDS["generated"] = (
    ("answers",),
    tuple(f"{FOLDER.replace(' --out OUT', '')} --client script --answers answers --repairs 0".split()),
)

CHANGED = {
    f"change {number}: {what}": content(to_json(document))
    for number, (what, document) in enumerate(changes(SPECIFICATION, 40, 11))
}
TEXTS = {
    "fences": content("```json\n" * 10_000),
    "half a million braces": content("{" * 500_000),
    "pairs of braces": content("{}" * 250_000),
    "thinking without end": content("<think>" * 100_000),
    "prose": content("I cannot help with that."),
    "escapes": content(ESCAPES * 100),
    "surrogates": content("\ud800" * 100),
    "10 MB": content("x" * 10_000_000),
    "quotes": content('"' * 1_000_001),
    "backslashes": content("{" + "\\" * 1_000_001),
}
ANSWERS = [
    *cases_of("answers/0.txt", ("answers",), [SCRIPT],
              {**SPECIAL, **contents(BAD_JSON), **contents(BAD_YAML), **CHANGED}),
    *cases_of("answers/0.txt", ("answers",), [SCRIPT], TEXTS, sampled=False),
    *cases_of("names.yaml", ("names.yaml", "image.png", "answers"), [ASK],
              {**SPECIAL, **contents(BAD_YAML), **changed_json(20, 1)}),
]  # fmt: skip
IMAGE_PARTS = ("names.yaml", "image.png", "answers", "sft")
IMAGES = [
    *cases_of("image.png", IMAGE_PARTS, [PREDICT, ASK], {**SPECIAL, **DAMAGED}),
    *cases_of("image.png", IMAGE_PARTS, [PREDICT, ASK], hostile_images(), each=2, sampled=False),
]
SOURCES = cases_of(
    "source.py",
    ("source.py",),
    ["costs import source.py --suite toy --task push-block --keypoints object --out OUT/costs.yaml"],
    {**SPECIAL, **DAMAGED, **{name: content(text) for name, text in REFUSED.items()}},
)


@pytest.mark.parametrize("case", ANSWERS, ids=str)
def test_an_answer(case, baseline, driver, place):
    check(case, baseline, driver, place)


@pytest.mark.parametrize("case", IMAGES, ids=str)
def test_an_image(case, baseline, driver, place):
    check(case, baseline, driver, place)


@pytest.mark.parametrize("case", SOURCES, ids=str)
def test_constraint_functions(case, baseline, driver, place):
    check(case, baseline, driver, place)


RECORDED = cases_of(
    "generated/answers", ("generated",), [REPLAY], {**SPECIAL, **contents(BAD_JSON), **changed_json(30, 2)}
)


@pytest.mark.parametrize("case", RECORDED, ids=str)
def test_a_recorded_answer(case, baseline, driver, place):
    recorded = sorted((baseline.part("generated") / "answers").glob("*.json"))[0]
    model = json.loads(recorded.read_text(encoding="utf-8"))["request"]["model"]
    words = tuple(model if word == "MODEL" else word for word in case.commands[0])
    file = f"{case.file}/{recorded.name}"
    check(dataclasses.replace(case, file=file, commands=(words,)), baseline, driver, place)
