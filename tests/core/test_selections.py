import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import GrapeError
from grape.core.selections import format_numbers, parse_numbers


@given(st.lists(st.integers(0, 300), min_size=1))
def test_numbers_in_words_round_trip(numbers: list[int]) -> None:
    assert parse_numbers(format_numbers(tuple(numbers)), "states") == tuple(sorted(set(numbers)))


@pytest.mark.parametrize(
    "text",
    ["", "a", "1-", "5-3", "1,,2", "-1", "0-99999999999", "0-9999999,10000000", "9" * 5000, "1-" + "9" * 5000],
)
def test_bad_numbers_are_refused(text: str) -> None:
    with pytest.raises(GrapeError):
        parse_numbers(text, "states")
