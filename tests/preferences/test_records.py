"""Lines of JSON, read strictly."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.files import write_jsonl
from grape.preferences.pairing import pairs_of_states
from grape.preferences.records import load_pairs, load_scores, pair_to_row, score_to_row, score_with_curves_to_row
from tests.preferences.rollouts import make_score, make_stage, without_curves

SCORES = [
    make_score("a", stages=(make_stage("reach", 0.25), make_stage("pull", 0.5, done=False))),
    make_score("b", success=False, r_self=None, terms=(0.0, 0.1, 0.0)),
]


def test_round_trip(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "s.jsonl", map(score_to_row, SCORES))
    assert list(load_scores(tmp_path / "s.jsonl").values()) == [without_curves(score) for score in SCORES]
    write_jsonl(tmp_path / "old.jsonl", map(score_with_curves_to_row, SCORES))
    assert list(load_scores(tmp_path / "old.jsonl").values()) == SCORES
    groups, _ = pairs_of_states(SCORES, mode="best-worst")
    write_jsonl(tmp_path / "p.jsonl", map(pair_to_row, groups[0]))
    assert list(load_pairs(tmp_path / "p.jsonl")) == groups[0]


@settings(deadline=None)  # the machine may be busy
@given(st.text(), st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_values_survive(text: str, number: float, whole: int) -> None:
    score = make_score(text, task=text, state=whole, terms=(number, 0.0, 0.0), r_self=number)
    row = json.loads(json.dumps(score_to_row(score)))
    assert row["terms"]["self"] == number
    assert row["episode_id"] == text


def edit(row: dict, path: str, value: object) -> dict:
    row = json.loads(json.dumps(row))
    *parents, last = path.split(".")
    target = row
    for name in parents:
        target = target[int(name)] if isinstance(target, list) else target[name]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return row


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("gcpg", "2", "gcpg is '2': should be a valid number"),
        ("gcpg", True, "gcpg is True: should be a valid number"),
        ("steps", 1.5, "steps is 1.5: should be a valid integer"),
        ("success", 1, "success is 1: should be a valid boolean"),
        ("task", None, "task is None: should be a valid string"),
        ("r_ext", ..., "field 'r_ext' is missing"),
        ("r_exd", 1, "field 'r_exd' is unknown. Did you mean 'r_ext'"),
        ("stages", {}, "stages is {}: should be a valid array"),
        ("terms", [], "terms is []: should be an object"),
        ("stages.0.end", "x", "stages[0].end is 'x': should be a valid integer"),
        ("stages.0.strat", 1, "field 'stages[0].strat' is unknown. Did you mean 'start'"),
        ("stages.1.constraints.0.curve", [1, None], "stages[1].constraints[0].curve[1] is None"),
    ],
)
def test_wrong_fields_are_named_with_file_and_line(tmp_path: Path, place: str, value: object, message: str) -> None:
    path = tmp_path / "scores.jsonl"
    rows = [score_to_row(SCORES[1]), edit(score_to_row(SCORES[0]), place, value)]
    write_jsonl(path, rows)
    with pytest.raises(DataError) as caught:
        load_scores(path)
    assert f"{path}, line 2: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("line", ["[]", "3", '"x"', "null", '{"a": 1', '{"gcpg": NaN}'])
def test_foreign_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text(json.dumps(score_to_row(SCORES[0])) + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"scores\.jsonl, line 2"):
        load_scores(path)


def test_repeated_and_senseless_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_jsonl(path, [score_to_row(SCORES[0])] * 2)
    with pytest.raises(DataError, match="line 2: episode a has a score already"):
        load_scores(path)
    groups, _ = pairs_of_states(SCORES, mode="best-worst")
    row = pair_to_row(groups[0][0])
    write_jsonl(path, [row, row])
    with pytest.raises(DataError, match=r"line 2: pair .* is there already"):
        load_pairs(path)
    write_jsonl(path, [{**row, "rejected": row["chosen"]}])
    with pytest.raises(DataError, match="line 1: episode a is paired with itself"):
        load_pairs(path)


def test_scores_of_other_terms_are_refused(tmp_path: Path) -> None:
    rows = [score_to_row(make_score(name)) for name in ("a", "b")]
    rows[1]["terms"]["other"] = rows[1]["terms"].pop("self")
    write_jsonl(tmp_path / "scores.jsonl", rows)
    with pytest.raises(DataError, match=r"line 2: the score has the terms .*other"):
        load_scores(tmp_path / "scores.jsonl")
