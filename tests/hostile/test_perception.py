"""Folders of perception models that somebody gives by path: configuration, weights, vocabulary."""

import pytest

from tests.hostile.baseline import MAKERS
from tests.hostile.cases import cases_of, changed_json, check, contents
from tests.hostile.documents import BAD_JSON
from tests.hostile.hostile_files import DAMAGED, SPECIAL
from tests.hostile.recordings import write_sound
from tests.hostile.tensors import HOSTILE_SAFETENSORS

MAKERS["recording"] = write_sound
FEATURES = "keypoints recording/episodes.yaml --features features --longest 64 --clusters 2 --out OUT"
FIND = (
    "keypoints recording/episodes.yaml --features colour --longest 64 --clusters 2 --phrases bowl --detector dino "
    "--segmenter sam --out OUT"
)
BAD = contents(BAD_JSON)


def _made(kind: str):
    def make(path):
        from tests.perception import tiny_models

        getattr(tiny_models, f"save_{kind}")(path)

    return make


MAKERS |= {"features": _made("dinov2"), "dino": _made("grounding_dino"), "sam": _made("sam2")}
PARTS = ("recording", "features")
FINDERS = ("recording", "dino", "sam")
CASES = [
    *cases_of("features/config.json", PARTS, [FEATURES], {**SPECIAL, **BAD, **changed_json(80, 1)}),
    *cases_of("features/model.safetensors", PARTS, [FEATURES], {**SPECIAL, **DAMAGED, **HOSTILE_SAFETENSORS}),
    *cases_of("dino/config.json", FINDERS, [FIND], {**SPECIAL, **BAD, **changed_json(80, 2)}),
    *cases_of("dino/model.safetensors", FINDERS, [FIND], {**SPECIAL, **DAMAGED, **HOSTILE_SAFETENSORS}),
    *cases_of("dino/tokenizer_config.json", FINDERS, [FIND], {**SPECIAL, **BAD, **changed_json(20, 3)}),
    *cases_of("dino/tokenizer.json", FINDERS, [FIND], {**SPECIAL, **BAD, **changed_json(40, 4)}),
    *cases_of("dino/vocab.txt", FINDERS, [FIND], {**SPECIAL, **DAMAGED}),
    *cases_of("sam/config.json", FINDERS, [FIND], {**SPECIAL, **BAD, **changed_json(80, 5)}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_model(case, baseline, driver, place):
    check(case, baseline, driver, place)
