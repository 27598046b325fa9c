"""Files of diagnoses, kinds of pairs, and what rows say, without a study."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import CompatibilityError, DataError, GrapeError
from grape.core.preferences import PreferencePair
from grape.study.cells import Cell, Round
from grape.study.diagnosis import (
    Change,
    DiagnosedRound,
    Diagnosis,
    finished_diagnosis,
    read_diagnosis,
    write_diagnosis,
)
from grape.study.diagnosis_table import diagnosis_lines, summarize_diagnoses
from grape.study.inspection import pair_kinds
from tests.study.small_cell import small_cell


def part(**changes: Any) -> DiagnosedRound:
    fresh = {"success": Change(3, 0.5, 0.1), "failure": Change(4, -0.25, 0.2)}
    return replace(
        DiagnosedRound(
            iteration=1,
            policy_hash="b" * 8,
            fresh=fresh,
            since_start=fresh,
            trained={"chosen": Change(8, 0.75, 0.0), "rejected": Change(8, -1.0, 0.0)},
            distance={"fresh": 0.5, "trained": 0.6, "before": 0.0},
            comparisons={"pairs": 8, "both_outcomes": 5},
            terms=("preference", "anchor"),
            saturated=0.25,
            curve={
                "update": (1.0, 2.0),
                "grad_norm": (5.0, 2.0),
                "grad_norm/preference": (3.0, 1.0),
                "grad_norm/anchor": (4.0, 3.0),
                "rewards/margins": (0.0, 2.5),
                "saturation": (0.5, 0.125),
                "clipped": (1.0, 0.5),
            },
        ),
        **changes,
    )


def diagnosis(*rounds: DiagnosedRound, **changes: Any) -> Diagnosis:
    made = Diagnosis(
        settings="a" * 8,
        seed=3,
        arm="tpo",
        start="d" * 8,
        samples=4,
        fresh="e" * 8,
        software={"version": "1"},
        rounds=rounds or (part(),),
    )
    return replace(made, **changes)


def cell(*rounds: Round) -> Cell:
    return small_cell(rounds=rounds or small_cell().rounds)


def test_a_diagnosis_comes_back_as_it_was(tmp_path: Path) -> None:
    path = write_diagnosis(tmp_path, diagnosis())
    assert path == tmp_path / "diagnoses" / "3-tpo.json"
    assert read_diagnosis(path) == diagnosis()


def places(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [where, *(place for key, item in inner for place in places(item, (*where, key)))]


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_whatever_a_file_holds_it_is_read_and_told_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    path = write_diagnosis(tmp_path_factory.getbasetemp() / "fuzz", diagnosis())
    value = json.loads(path.read_text())
    place = data.draw(st.sampled_from(places(value)[1:]))
    junk = data.draw(st.sampled_from([None, True, -1, 10**30, 0.5, 1e400, "", "x", [], {}, [1], {"x": 1}, [None]]))
    spoiled = copy.deepcopy(value)
    holder = spoiled
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = junk
    path.write_text(json.dumps(spoiled))
    try:
        read = read_diagnosis(path)
    except GrapeError:
        return
    rows = summarize_diagnoses([read.arm], [read])
    assert len(diagnosis_lines(rows)) == 1 + len(read.rounds)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "null"])
def test_what_is_no_diagnosis_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError):
        read_diagnosis(tmp_path / "x.json")


def test_a_diagnosis_belongs_to_a_result(tmp_path: Path) -> None:
    assert finished_diagnosis(tmp_path, cell()) is None
    write_diagnosis(tmp_path, diagnosis())
    assert finished_diagnosis(tmp_path, cell()) == diagnosis()
    further = replace(cell().rounds[0], iteration=2, policy_hash="f" * 8)
    assert finished_diagnosis(tmp_path, cell(cell().rounds[0], further)) is None  # which is made again, with both
    for other in (cell(further), replace(cell(), start="f"), replace(cell(), settings="f")):
        with pytest.raises(CompatibilityError, match="other policies"):
            finished_diagnosis(tmp_path, other)


def test_a_row_holds_means_and_deviations_over_seeds() -> None:
    fresh = {"success": Change(2, 0.75, 0.1)}
    other = diagnosis(part(fresh=fresh, saturated=0.75), seed=4)
    (row,) = summarize_diagnoses(["sft", "tpo"], [diagnosis(), other])
    figures = row["figures"]
    assert (row["arm"], row["iteration"], row["seeds"]) == ("tpo", 1, [3, 4])
    assert figures["success"] == {
        "mean": 0.625,
        "deviation": pytest.approx(np.std([0.5, 0.75], ddof=1)),
        "seeds": {"3": 0.5, "4": 0.75},
    }
    assert figures["failure"] == {"mean": -0.25, "deviation": None, "seeds": {"3": -0.25}}
    assert figures["contrast"]["seeds"] == {"3": 0.75}
    assert figures["share_first"]["mean"] == pytest.approx(3 / 7)
    assert figures["share_last"]["mean"] == pytest.approx(1 / 4)
    assert figures["share"]["mean"] == pytest.approx((3 / 7 + 1 / 4) / 2)
    assert figures["cosine_first"]["mean"] == pytest.approx(0.0)
    assert figures["cosine_last"]["mean"] == pytest.approx(-1.0)
    assert (figures["margin"]["mean"], figures["weight_first"]["mean"], figures["weight_last"]["mean"]) == (
        2.5,
        0.5,
        0.125,
    )
    assert (figures["saturated"]["mean"], figures["clipped"]["mean"], figures["pairs"]["mean"]) == (0.5, 0.5, 8)
    assert "of successes by +0.625 ± 0.177 and of failures by -0.250 nats a token (2 seeds)" in row["sentence"]
    assert "34 % of the gradient's norms (43 % at the first update, 25 % at the last)" in row["sentence"]
    assert "50 % of comparisons have a weight below 0.1" in row["sentence"]


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_the_angle_between_two_terms_comes_from_three_norms(numbers: list[float]) -> None:
    one, other = np.array(numbers[:3]), np.array(numbers[3:])
    norms = [float(np.linalg.norm(vector)) for vector in (one + other, one, other)]
    if min(norms[1:]) < 1e-3:
        return
    names = ("grad_norm", "grad_norm/preference", "grad_norm/anchor")
    curve = {"update": (1.0,), **{name: (norm,) for name, norm in zip(names, norms, strict=True)}}
    (row,) = summarize_diagnoses(["tpo"], [diagnosis(part(curve=curve))])
    assert row["figures"]["cosine_first"]["mean"] == pytest.approx(one @ other / (norms[1] * norms[2]), abs=1e-6)
    assert row["figures"]["share"]["mean"] == pytest.approx(norms[1] / (norms[1] + norms[2]))


@pytest.mark.parametrize(("terms", "share"), [(("anchor",), 0.0), (("imitation",), 0.0), (("preference",), 1.0)])
def test_a_single_term_has_all_of_the_gradient_or_nothing(terms: tuple[str, ...], share: float) -> None:
    curve = {"update": (1.0,), "grad_norm": (2.0,)}
    (row,) = summarize_diagnoses(["tpo"], [diagnosis(part(curve=curve, terms=terms))])
    assert row["figures"]["share_last"]["mean"] == share
    assert row["figures"]["cosine_last"] is None
    assert ("weight below" in row["sentence"]) == bool(share)


def test_iterations_have_rows_of_their_own_and_one_that_learned_nothing_says_so() -> None:
    idle = part(iteration=2, trained={}, terms=(), saturated=None, curve={}, comparisons={}, distance={"fresh": 0.1})
    rows = summarize_diagnoses(["tpo"], [diagnosis(part(), idle)])
    assert [row["iteration"] for row in rows] == [1, 2]
    assert rows[1]["sentence"].endswith("it learned nothing.")
    assert [len(line) for line in diagnosis_lines(rows)] == [len(diagnosis_lines(rows)[0])] * 3


def test_pairs_are_counted_by_outcomes_and_by_what_decided() -> None:
    def pair(chosen: str, rejected: str, **terms: float) -> PreferencePair:
        return PreferencePair(f"{chosen}{rejected}", "t", 0, chosen, rejected, 1.0, "best-worst", "", terms)

    outcomes = {"s": True, "S": True, "f": False, "F": False, "u": None}
    pairs = [
        pair("s", "f", self=-1.0, ext=0.5, success=2.0),
        pair("f", "s", self=5.0, ext=0.0, success=-2.0),  # an upset
        pair("s", "S", self=0.1, ext=0.2, success=0.0),
        pair("f", "F", self=0.3, ext=-0.2, success=0.0),
        pair("F", "f", stage=0.3),
        pair("f", "F", self=-0.3, ext=-0.2, success=0.0),  # a rejected side drawn at random
        pair("s", "u", self=0.3, ext=0.2),
    ]
    assert pair_kinds(pairs, outcomes) == {
        "pairs": 7,
        "chosen_succeeded": 3,
        "both_outcomes": 2,
        "two_successes": 1,
        "two_failures": 3,
        "decided_by_self": 1,
        "decided_by_ext": 1,
        "decided_otherwise": 2,
    }
