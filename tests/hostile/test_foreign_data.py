"""Data sets in RLDS and rollout files of the first implementation."""

import os

import pytest

from tests.hostile.baseline import MAKERS
from tests.hostile.cases import cases_of, changed_json, check, contents
from tests.hostile.documents import BAD_JSON, ESCAPES
from tests.hostile.foreign import HOSTILE_RECORDS, hostile_rollouts, sound_rollout
from tests.hostile.hostile_files import DAMAGED, SPECIAL
from tests.hostile.tensors import HOSTILE_NPY

DATA = "rlds/chosen/rlds_np_rollout"
FOLDER = f"{DATA}/1.0.0"
IMPORT = f"import grape-rlds {DATA} rlds/rejected/rlds_np_rollout --out OUT"
LINT = f"lint {DATA} rlds/rejected/rlds_np_rollout"
SFT = f"sft --data rlds:{DATA} --max-updates 1 --batch-size 4 --out OUT"
ALL = [IMPORT, LINT, SFT]
BAD = contents(BAD_JSON)
NPY = "npy/put it there/episode_0/success_episode_0.npy"


def _make_rollouts(path):
    for episode, outcome in ((0, "success"), (1, "failure")):
        folder = path / "put it there" / f"episode_{episode}"
        folder.mkdir(parents=True)
        (folder / f"{outcome}_episode_{episode}.npy").write_bytes(sound_rollout())


MAKERS["npy"] = _make_rollouts
ROLLOUT_READERS = ["import grape-npy npy --out OUT", "lint npy"]

DATA_SETS = [
    *cases_of(f"{FOLDER}/features.json", ("rlds",), ALL, {**SPECIAL, **BAD, **changed_json(80, 1)}),
    *cases_of(f"{FOLDER}/dataset_info.json", ("rlds",), ALL, {**SPECIAL, **BAD, **changed_json(60, 2)}),
    *cases_of(f"{FOLDER}/rlds_np_rollout-train.tfrecord-00000-of-00001", ("rlds",), ALL,
              {**SPECIAL, **DAMAGED}),
    *cases_of(f"{FOLDER}/rlds_np_rollout-train.tfrecord-00000-of-00001", ("rlds",), ALL, HOSTILE_RECORDS,
              sampled=False),
    *cases_of("rlds/dataset_statistics.json", ("rlds", "pairs", "rollouts", "scores", "sft"),
              ["train --pairs pairs --policy sft/policy --norm-stats rlds/dataset_statistics.json "
               "--unnorm-key rlds_np_rollout --max-updates 1 --out OUT --dry-run"],
              {**SPECIAL, **BAD, **changed_json(20, 3)}),
]  # fmt: skip
ROLLOUTS = [
    *cases_of(NPY, ("npy",), ROLLOUT_READERS, {**SPECIAL, **DAMAGED, **contents(HOSTILE_NPY)}),
    *cases_of(NPY, ("npy",), ROLLOUT_READERS, hostile_rollouts(), sampled=False),
]
NAMES = {
    "escapes": f"success_episode_0{ESCAPES.replace('/', '')}.npy",
    "dots": "..npy",
    "a huge number": f"success_episode_{'9' * 200}.npy",
    "a line break": "success\n_episode_0.npy",
    "spaces": "  .npy",
    "only a suffix": ".npy",
    "no UTF-8": b"success_\xff\xfe.npy",
}


@pytest.mark.parametrize("case", DATA_SETS, ids=str)
def test_a_data_set(case, baseline, driver, place):
    check(case, baseline, driver, place)


@pytest.mark.parametrize("case", ROLLOUTS, ids=str)
def test_a_rollout(case, baseline, driver, place):
    check(case, baseline, driver, place)


def _rename(path, name):
    os.rename(os.fsencode(path), os.fsencode(path.parent) + b"/" + os.fsencode(name))


RENAMED = {f"name: {what}": lambda path, name=name: _rename(path, name) for what, name in NAMES.items()}


@pytest.mark.parametrize("case", cases_of(NPY, ("npy",), ROLLOUT_READERS, RENAMED, each=2, sampled=False), ids=str)
def test_a_name(case, baseline, driver, place):
    check(case, baseline, driver, place)
