"""Which couple comes next, and on which side each episode stands."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.labeling.choosing import (
    REPEAT_DISTANCE,
    Answer,
    Plan,
    next_question,
    order_couples,
    remaining,
    uncertainty,
)

NAN = math.nan


def plan_of(count: int, couples: int, repeats: float, seed: int = 0) -> Plan:
    names = tuple((f"e{number}", f"f{number}") for number in range(count))
    return Plan(names, tuple(range(count)), couples, repeats, seed)


def test_uncertain_is_what_sources_contradict_one_another_on() -> None:
    orders = [np.array([1.0, 1.0, 1.0, 0.0, NAN]), np.array([1.0, -1.0, NAN, 0.0, NAN])]
    assert uncertainty(orders).tolist() == [0.0, 1.0, 0.0, 1.0, 1.0]
    margins = np.array([3.0, 0.0, -1.0, NAN, 1.0])  # their sizes have the median 1
    expected = [(0 + 0.25) / 2, (1 + 1) / 2, (0 + 0.5) / 2, 1.0, (1 + 0.5) / 2]
    assert uncertainty(orders, margins).tolist() == pytest.approx(expected)


def test_margins_that_say_nothing() -> None:
    orders = [np.array([1.0, 1.0, 1.0])]
    assert uncertainty(orders, np.full(3, NAN)).tolist() == [0.5] * 3
    assert uncertainty(orders, np.array([0.0, 0.0, 2.0])).tolist() == [0.5, 0.5, 0.0]


def test_uncertain_couples_come_first_and_states_take_turns() -> None:
    uncertain = np.array([0.9, 0.8, 0.7, 0.5, 0.0, 0.0])
    states = [0, 0, 0, 1, 1, 2]
    order = order_couples(uncertain, states)
    assert order[:4] == (0, 3, 1, 2)  # 0.9, 0.5, 0.8 / 2, 0.7 / 3
    assert order[4:] == (5, 4)  # of two certain ones that of the state that was not seen yet
    assert order_couples(np.zeros(30), [0] * 30) != order_couples(np.zeros(30), [0] * 30, seed=1)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 30),
    limit=st.integers(1, 30),
    repeats=st.floats(0, 1),
    seed=st.integers(0, 3),
    skips=st.lists(st.booleans(), min_size=60, max_size=60),
    gone=st.sets(st.integers(0, 29), max_size=4),
)
def test_every_rater_sees_each_couple_and_some_of_them_again(
    count: int, limit: int, repeats: float, seed: int, skips: list[bool], gone: set[int]
) -> None:
    plan = plan_of(count, min(count, limit), repeats, seed)
    unusable = {f"e{number}" for number in gone}
    answers: list[Answer] = []
    sides: dict[int, list[str]] = {}
    usable = set(range(count)) - gone
    while (question := next_question(plan, "anna", answers, unusable)) is not None:
        assert {question.left, question.right} == set(plan.names[question.couple])
        assert question.couple in usable
        assert next_question(plan, "anna", answers, unusable) == question  # also after an undo
        before = [place for place, answer in enumerate(answers) if answer.couple == question.couple]
        if before:
            assert len(before) == 1
            assert answers[before[0]].decided
            is_late = len(sides) == min(plan.couples, len(usable))
            assert is_late or len(answers) - before[0] > REPEAT_DISTANCE
        sides.setdefault(question.couple, []).append(question.left)
        assert remaining(plan, answers, unusable) >= 1
        answers.append(Answer(question.couple, decided=not skips[len(answers) % len(skips)]))
    assert remaining(plan, answers, unusable) == 0
    assert len(sides) == min(plan.couples, len(usable))
    again = {couple: lefts for couple, lefts in sides.items() if len(lefts) > 1}
    decided_first = {couple for couple in sides if next(item for item in answers if item.couple == couple).decided}
    assert len(again) == min(math.floor(repeats * len(sides)), len(decided_first))
    assert all(len(lefts) == 2 and lefts[0] != lefts[1] for lefts in again.values())


def test_sides_are_drawn_for_every_rater() -> None:
    plan = plan_of(200, 200, 0.0)
    lefts = {}
    for rater in ("anna", "ben"):
        answers: list[Answer] = []
        lefts[rater] = []
        while (question := next_question(plan, rater, answers)) is not None:
            lefts[rater].append(question.left.startswith("e"))
            answers.append(Answer(question.couple))
        assert 70 < sum(lefts[rater]) < 130
    assert lefts["anna"] != lefts["ben"]


def test_progress_ends_where_the_questions_end() -> None:
    plan = plan_of(20, 20, 0.25)
    answers: list[Answer] = []
    totals = set()
    while (question := next_question(plan, "anna", answers)) is not None:
        totals.add(len(answers) + remaining(plan, answers))
        answers.append(Answer(question.couple))
    assert totals == {25}
    assert len(answers) == 25
