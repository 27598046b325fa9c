"""The verb ``pair`` where it compares parts of episodes, and weighs pairs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from grape.cli.main import main
from grape.core.errors import DataError, NoPairsError, SettingsError
from grape.core.reading import parse_json
from grape.preferences import PairSettings, ScoreSettings, read_pairs, read_scores, run_pair, run_score
from grape.preferences.records import load_pairs
from grape.preferences.segments import kept_by_distance, kept_by_stage
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_rollout, make_store


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with ``store`` and ``scores``."""
    root = tmp_path_factory.mktemp("run")
    make_store(root / "store")
    run_score(ScoreSettings(store=root / "store", out=root / "scores"))
    return root


def pair(scored: Path, out: Path, **settings: Any) -> Mapping[str, Any]:
    return run_pair(PairSettings(scores=scored / "scores", out=out, require_mixed_outcomes=True, **settings))


def rows(out: Path) -> list[dict[str, Any]]:
    return [parse_json(line, "pairs.jsonl") for line in (out / "pairs.jsonl").read_text().splitlines()]


def test_by_default_a_line_holds_what_release_0_1_wrote(scored: Path, tmp_path: Path) -> None:
    pair(scored, tmp_path / "out")
    for row in rows(tmp_path / "out"):
        assert row.keys() == {
            "pair_id", "task", "initial_state", "chosen", "rejected", "margin", "mode", "reason", "terms",
        }  # fmt: skip
    identity = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]
    assert not {"stage_wise", "cut", "cut_distance", "weight"} & identity.keys()


def test_stage_wise(scored: Path, tmp_path: Path) -> None:
    arguments = ["pair", "--scores", str(scored / "scores"), "--stage-wise", "--require-mixed-outcomes"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    pairs, scores = read_pairs(tmp_path / "out"), read_scores(scored / "scores")
    assert {item.mode for item in pairs} == {"stage-wise top-bottom"}
    assert len({item.pair_id for item in pairs}) == len(pairs) > 2
    for item in pairs:
        for name, steps in ((item.chosen, item.chosen_steps), (item.rejected, item.rejected_steps)):
            assert steps is not None
            assert 0 <= steps[0] < steps[1] <= scores[name].steps
        assert item.terms == {"stage": item.margin}
        assert item.margin > 0
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("cut", ["stage", "distance", "length"])
def test_cut(scored: Path, tmp_path: Path, cut: str) -> None:
    arguments = ["pair", "--scores", str(scored / "scores"), "--cut", cut]
    arguments += ["--cut-distance", "0.01"] if cut == "distance" else []
    assert main([*arguments, "--require-mixed-outcomes", "--out", str(tmp_path / "out")]) == 0
    pair(scored, tmp_path / "whole")
    scores, store = read_scores(scored / "scores"), EpisodeStore.open(scored / "store")
    before = after = shortened = 0
    for whole, item in zip(read_pairs(tmp_path / "whole"), read_pairs(tmp_path / "out"), strict=True):
        assert (item.pair_id, item.chosen, item.rejected) == (whole.pair_id, whole.chosen, whole.rejected)
        assert (item.margin, item.reason, item.chosen_steps) == (whole.margin, whole.reason, None)
        chosen, rejected = scores[item.chosen], scores[item.rejected]
        kept = {
            "stage": lambda a=chosen, b=rejected: kept_by_stage(a, b),
            "distance": lambda a=item.chosen, b=item.rejected: kept_by_distance(store.read(a), store.read(b), 0.01),
            "length": lambda a=chosen, b=rejected: min(a.steps, b.steps),
        }[cut]()
        assert item.rejected_steps == ((0, kept) if kept < rejected.steps else None)
        before, after, shortened = before + rejected.steps, after + kept, shortened + (kept < rejected.steps)
    summary = json.loads((tmp_path / "out" / "done.json").read_text())
    assert summary["cut"] == {
        "pairs": shortened, "rejected_decisions": before, "rejected_decisions_kept": after,
    }  # fmt: skip
    assert 0 < after < before


def test_a_weight_shortens_no_pair(scored: Path, tmp_path: Path) -> None:
    summary = pair(scored, tmp_path / "out", cut="distance", cut_distance=9.0, weight="margin")
    assert {item.rejected_steps for item in read_pairs(tmp_path / "out")} == {None}
    assert summary["cut"]["pairs"] == 0


def test_stage_wise_pairs_can_be_cut_by_length(scored: Path, tmp_path: Path) -> None:
    pair(scored, tmp_path / "out", stage_wise=True, cut="length")
    lengths = [[b - a for a, b in (item.chosen_steps, item.rejected_steps)] for item in read_pairs(tmp_path / "out")]
    assert all(chosen >= rejected for chosen, rejected in lengths)


def test_what_is_printed_names_stages_cuts_and_weights(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pair", "--scores", str(scored / "scores"), "--out"]
    assert main([*arguments, str(tmp_path / "plain")]) == 0
    summary = json.loads((tmp_path / "plain" / "done.json").read_text())
    assert not {"stage_wise", "weight", "cut"} & summary.keys()
    printed = capsys.readouterr().out
    assert not {"weight", "cut"} & {line.split()[0] for line in printed.splitlines() if line}
    assert not [words for words in ("stage-wise", "units of cost") if words in printed]

    options = ["--stage-wise", "--mode", "best-worst", "--cut", "length", "--weight", "margin"]
    assert main([*arguments, str(tmp_path / "parts"), *options]) == 0
    summary = json.loads((tmp_path / "parts" / "done.json").read_text())
    assert (summary["mode"], summary["stage_wise"], summary["weight"]) == ("best-worst", True, "margin")
    cut = summary["cut"]
    assert 0 < cut["rejected_decisions_kept"] < cut["rejected_decisions"]
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        f"pairs {summary['pairs']}",
        "mode best-worst, stage-wise",
        f"mean margin {summary['mean_margin']:.4g} in units of cost",
        "weight by margin, 1 on average",
        f"cut {cut['pairs']} of {summary['pairs']} pairs; rejected sides from {cut['rejected_decisions']} to "
        f"{cut['rejected_decisions_kept']} control steps",
    ):
        assert line in lines


def test_weights_stand_in_the_file_and_have_mean_one(scored: Path, tmp_path: Path) -> None:
    arguments = ["pair", "--scores", str(scored / "scores"), "--weight", "margin", "--require-mixed-outcomes"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    pairs = read_pairs(tmp_path / "out")
    assert sum(item.weight for item in pairs) / len(pairs) == pytest.approx(1)
    assert len({item.weight for item in pairs}) > 1
    ordered = sorted(pairs, key=lambda item: item.margin)
    assert [item.weight for item in ordered] == sorted(item.weight for item in pairs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage_wise": True, "mode": "success-only"}, "ranks by what a stage cost"),
        ({"stage_wise": True, "cut": "stage"}, "segments of one stage"),
        ({"stage_wise": True, "cut": "distance"}, "segments of one stage"),
        ({"weight": "margin", "mode": "random"}, "needs margins"),
        ({"weight": "margin", "mode": "success-only"}, "needs margins"),
        ({"cut": "distance", "cut_distance": 0.0}, "--cut-distance is 0"),
        ({"cut_distance": 0.1}, "--cut-distance has no meaning without --cut distance"),
        ({"cut": "stage", "cut_distance": 0.1}, "--cut-distance has no meaning without --cut distance"),
    ],
)
def test_settings_that_contradict_each_other(scored: Path, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        pair(scored, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_store_without_keypoints_says_which_cuts_are_left(tmp_path: Path) -> None:
    """Distances cannot be told where specification and store speak of signals alone."""
    specification = (
        "version: 1\nsuite: metaworld\ntask: drawer-open\nlimit: 16 steps\ncontrol_hz: 10 Hz\nkeypoints: []\n"
        "signals: [opened]\nstages:\n  - name: open\n    done_when: {opened: {at_least: 0.5}}\n"
        "    subgoal:\n      - name: half\n        cost: {opened: {at_least: 0.5}}\n        worst: 0.5\n"
        "        weight: 1\n        objectives: [completion]\n"
    )
    (tmp_path / "costs.yaml").write_text(specification)
    store = EpisodeStore.create(tmp_path / "store", "metaworld", {})
    for sample in range(4):
        rollout = make_rollout(sample=sample, success=sample % 2 == 0)
        rollout.keypoints.clear()  # type: ignore[attr-defined]
        store.write(rollout)
    run_score(ScoreSettings(store=store.path, out=tmp_path / "scores", costs=tmp_path / "costs.yaml"))
    with pytest.raises(DataError, match="recorded no keypoint in common"):
        pair(tmp_path, tmp_path / "out", cut="distance")
    pair(tmp_path, tmp_path / "out", cut="length")  # as the error advises, in a folder that nothing was written to


def test_no_stage_in_which_two_episodes_took_decisions_says_so(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", "metaworld", {})
    store.write(make_rollout(sample=0, success=False))
    solved = make_rollout(sample=1, success=True)
    solved.signals["opened"][:] = 1.0  # the first stages are done before anything was decided
    store.write(solved)
    run_score(ScoreSettings(store=store.path, out=tmp_path / "scores"))
    with pytest.raises(NoPairsError, match="No two episodes of one state spent steps in one stage"):
        pair(tmp_path, tmp_path / "out", stage_wise=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"weight": -1.0}, {"rejected_steps": [3, 3]}, {"chosen_steps": [-1, 3]}])
def test_a_pair_that_compares_nothing_is_refused(scored: Path, tmp_path: Path, change: dict) -> None:
    pair(scored, tmp_path / "out", cut="length", weight="margin")
    path = tmp_path / "out" / "pairs.jsonl"
    first, *others = rows(tmp_path / "out")
    path.write_text("".join(json.dumps(row) + "\n" for row in (first | change, *others)))
    with pytest.raises(DataError, match="line 1"):
        load_pairs(path)
