"""Recordings of a robot: episode list, video, depth, camera, log, keypoints."""

import pytest

from tests.hostile.baseline import COMMANDS, MAKERS
from tests.hostile.cases import as_rows, cases_of, changed_json, changed_rows, check, contents
from tests.hostile.documents import BAD_JSON, BAD_YAML
from tests.hostile.hostile_files import DAMAGED, SPECIAL, content
from tests.hostile.images import hostile_images
from tests.hostile.recordings import CSV_LOGS, TEXT_LISTS, VIDEOS, parquet_logs, write_sound
from tests.hostile.tensors import HOSTILE_NPY

MAKERS["recording"] = write_sound
COMMANDS["keypoints"] = (("recording",), ("keypoints", "recording/episodes.yaml", "--features", "colour"))

IMPORT = "import video recording/episodes{}.yaml --out OUT"
PROPOSE = "keypoints recording/episodes{}.yaml --features colour --out OUT"
FOLLOW = "import video recording/episodes.yaml --keypoints keypoints --out OUT"
BOTH = [IMPORT.format(""), PROPOSE.format("")]
PARTS = ("recording",)
KEYPOINTS = ("recording", "keypoints")
BAD = contents(BAD_YAML)

LISTS = [
    *cases_of("recording/episodes.yaml", PARTS, BOTH, {**SPECIAL, **BAD, **changed_json(80, 1)}),
    *cases_of(
        "recording/episodes.yaml",
        PARTS,
        BOTH,
        {name: content(text) for name, text in TEXT_LISTS.items()},
        sampled=False,
    ),
    *cases_of("recording/camera.yaml", PARTS, BOTH, {**SPECIAL, **BAD, **changed_json(60, 2)}),
    *cases_of("keypoints/keypoints.yaml", KEYPOINTS, [FOLLOW], {**SPECIAL, **BAD, **changed_json(30, 3)}),
]
LOGS = [
    *cases_of("recording/log.csv", PARTS, BOTH, {**SPECIAL, **DAMAGED}),
    *cases_of("recording/log.csv", PARTS, BOTH, contents(CSV_LOGS), sampled=False),
    *cases_of("recording/log.jsonl", PARTS, [IMPORT.format("-jsonl")],
              {**SPECIAL, **as_rows(BAD_JSON), **changed_rows(30, 4)}),
    *cases_of("recording/log.parquet", PARTS, [IMPORT.format("-parquet")],
              {**SPECIAL, **DAMAGED}),
    *cases_of("recording/log.parquet", PARTS, [IMPORT.format("-parquet")], parquet_logs(), sampled=False),
]  # fmt: skip
PIXELS = [
    *cases_of("recording/take.mp4", PARTS, BOTH, {**SPECIAL, **DAMAGED}),
    *cases_of("recording/take.mp4", PARTS, BOTH, contents(VIDEOS), sampled=False),
    *cases_of("recording/take.mp4", PARTS, BOTH, hostile_images()),
    *cases_of("recording/depth.npy", PARTS, BOTH, {**SPECIAL, **DAMAGED}),
    *cases_of("recording/depth.npy", PARTS, BOTH, contents(HOSTILE_NPY), sampled=False),
    *cases_of("recording/depth/003.png", PARTS, [IMPORT.format("-folder"), PROPOSE.format("-folder")],
              {**SPECIAL, **DAMAGED, **hostile_images()}),
    *cases_of("keypoints/reference.png", KEYPOINTS, [FOLLOW], {**SPECIAL, **DAMAGED}),
    *cases_of("keypoints/reference.png", KEYPOINTS, [FOLLOW], hostile_images(), sampled=False),
    *cases_of("keypoints/reference-depth.png", KEYPOINTS, [FOLLOW], {**SPECIAL, **hostile_images()}),
]  # fmt: skip


@pytest.mark.parametrize("case", LISTS, ids=str)
def test_a_list_of_recordings(case, baseline, driver, place):
    check(case, baseline, driver, place)


@pytest.mark.parametrize("case", LOGS, ids=str)
def test_a_log(case, baseline, driver, place):
    check(case, baseline, driver, place)


@pytest.mark.parametrize("case", PIXELS, ids=str)
def test_video_depth_and_images(case, baseline, driver, place):
    check(case, baseline, driver, place)
