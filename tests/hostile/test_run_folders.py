"""Folders that verbs wrote, and somebody changed: runs, scores, pairs, evaluations, training, loops, stores."""

import pytest

from tests.hostile.cases import Case, as_rows, cases_of, changed_json, changed_rows, check, contents
from tests.hostile.documents import BAD_JSON, BAD_YAML
from tests.hostile.episodes import changed_header, hostile_episodes
from tests.hostile.hostile_files import DAMAGED, SPECIAL

PAIR = "pair --scores scores --no-require-mixed-outcomes --out OUT"
SCORE = "score --store rollouts/store --out OUT"
TRAIN = "train --pairs pairs --policy sft/policy --max-updates 1 --out OUT"
DRY_TRAIN = TRAIN + " --dry-run"
EXPORT_PAIRS = "export rlds --pairs pairs --out OUT"
COMPARE = "compare evaluation evaluation --out OUT"
ROLLOUTS = ("rollouts", "sft")
SCORES = ("rollouts", "scores")
EPISODE = "rollouts/store/episodes/push-block-i001000-k00.parquet"
EPISODE_READERS = [
    SCORE,
    "sft --data rollouts/store --max-updates 1 --out OUT",
    "export lerobot --collection rollouts --out OUT",
    "export rerun --store rollouts --out OUT/rerun",
    "costs validate toy/push-block --store rollouts/store",
    "costs check toy/push-block --store rollouts/store",
    "costs show toy/push-block --store rollouts/store --out OUT/page.html",
]
PAIRS = ("rollouts", "scores", "pairs", "sft")
BAD = contents(BAD_JSON)


def _report(folder: str) -> str:
    return f"report {folder} --out OUT/report.html"


def _folder(name: str, parts: tuple[str, ...], commands: list[str], seed: int) -> list[Case]:
    """The files that every folder of a verb has."""
    return [
        *cases_of(f"{name}/run.json", parts, commands, {**SPECIAL, **BAD, **changed_json(6, seed)}),
        *cases_of(f"{name}/done.json", parts, commands, {**SPECIAL, **BAD, **changed_json(12, seed)}),
        *cases_of(f"{name}/settings.yaml", parts, commands, {**SPECIAL, **contents(BAD_YAML), **changed_json(6, seed)}),
    ]


CASES = [
    *_folder("scores", SCORES, [PAIR, _report("scores")], 1),
    *cases_of("scores/scores.jsonl", SCORES, [PAIR], {**SPECIAL, **as_rows(BAD_JSON), **changed_rows(60, 1)}),
    *cases_of("scores/curves.parquet", PAIRS, [_report("pairs")], {**SPECIAL, **DAMAGED, **BAD}),
    *cases_of("scores/scores.jsonl", SCORES, ["export rerun --scores scores --out OUT/rerun"], changed_rows(12, 7)),
    *cases_of("scores/calibration.json", SCORES, [PAIR, _report("scores")],
              {**SPECIAL, **BAD, **changed_json(8, 1)}),
    *_folder("pairs", PAIRS, [DRY_TRAIN, EXPORT_PAIRS, _report("pairs")], 2),
    *cases_of("pairs/pairs.jsonl", PAIRS, [DRY_TRAIN, EXPORT_PAIRS, _report("pairs")],
              {**SPECIAL, **as_rows(BAD_JSON), **changed_rows(30, 2)}),
    *_folder("evaluation", ("evaluation",), [COMPARE, _report("evaluation")], 3),
    *cases_of("evaluation/results.json", ("evaluation",), [COMPARE, _report("evaluation")],
              {**SPECIAL, **BAD, **changed_json(60, 3)}),
    *_folder("tpo", ("tpo",), [_report("tpo"), "predict --policy tpo/policy --image x.png --instruction x"], 4),
    *_folder("loop", ("loop",), [_report("loop")], 5),
    *cases_of("loop/loop.json", ("loop",), [_report("loop")], {**SPECIAL, **BAD, **changed_json(40, 5)}),
    *cases_of("loop/sft/metrics.jsonl", ("loop",), [_report("loop")],
              {**SPECIAL, **as_rows(BAD_JSON), **changed_rows(20, 5)}),
    *cases_of("loop/iteration-1/pair/pairs.jsonl", ("loop",), [_report("loop")],
              {**SPECIAL, **changed_rows(10, 6)}),
    *cases_of("loop/iteration-1/score/scores.jsonl", ("loop",), [_report("loop")],
              {**SPECIAL, **changed_rows(30, 6)}),
    *cases_of("loop/iteration-1/evaluate/results.json", ("loop",), [_report("loop")],
              {**SPECIAL, **changed_json(20, 6)}),
    *cases_of("rollouts/store/store.json", ROLLOUTS, [SCORE, "sft --data rollouts/store --dry-run --out OUT",
              "export rlds --collection rollouts --out OUT"], {**SPECIAL, **BAD, **changed_json(30, 7)}),
    *cases_of("rollouts/store/.cache/index.jsonl", ROLLOUTS, [SCORE], {**SPECIAL, **BAD, **changed_rows(20, 8)}),
    *cases_of("rollouts/store/episodes/push-block-i001000-k00.parquet", ROLLOUTS,
              EPISODE_READERS,               {**SPECIAL, **DAMAGED, **BAD, **changed_header(60, 9)}),
    *cases_of("packed/store/packs/pack-000000.zip", ("packed",), ["score --store packed --out OUT"],
              {**SPECIAL, **DAMAGED}),
    *cases_of(EPISODE, ROLLOUTS, EPISODE_READERS, hostile_episodes(), sampled=False),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_folder(case, baseline, driver, place):
    check(case, baseline, driver, place)
