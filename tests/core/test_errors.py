"""Suggestions of names, and text of others made safe to print."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import (
    SettingsError,
    did_you_mean,
    printable,
    require_known,
    shortened,
)
from grape.core.files import content_hash


def test_suggestions_come_closest_first() -> None:
    assert did_you_mean("drawer-opne", ["drawer-open", "reach"]).startswith("Did you mean 'drawer-open'?")
    assert content_hash({"b": 1, "a": 2}) == content_hash(json.loads('{"a": 2, "b": 1}'))


def test_many_names_stand_on_a_line_of_their_own() -> None:
    for count, between in ((3, " "), (30, "\n     ")):
        names = ["drawer-open", *(f"x{number:02d}" for number in range(count))]
        with pytest.raises(SettingsError) as caught:
            require_known("task", "drawer-opne", names)
        assert caught.value.hint == f"Did you mean 'drawer-open'?{between}Known: {', '.join(sorted(names))}."
    with pytest.raises(SettingsError) as caught:
        require_known("task", "zzzzzzzz", names)
    assert caught.value.hint.startswith("Known: drawer-open, ")


def test_what_a_terminal_would_execute_is_shown() -> None:
    assert printable("a\x1b[31mb\x1b]0;title\x07") == "a\\x1b[31mb\\x1b]0;title\\x07"
    assert printable("\x9b2J\r\x08\x7f") == "\\x9b2J\\x0d\\x08\\x7f"
    assert printable("\u202egpj.exe\u2066 \u200b\ufeff\U000e0041\udcff") == (
        "\\u202egpj.exe\\u2066 \\u200b\\ufeff\\U000e0041\\udcff"
    )
    assert printable("two\nlines\tand ünïcödé 机器人 \U0001f916") == "two\nlines\tand ünïcödé 机器人 \U0001f916"


@given(st.text(st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp", "Lu", "Lo"))))
def test_nothing_active_is_left(text: str) -> None:
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t"]
    assert not [c for c in shown if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI")]
    shown.encode()
    assert printable(shown) == shown


def test_long_messages_keep_both_ends() -> None:
    assert shortened("x" * 8000) == "x" * 8000
    shown = shortened("a" * 100_000 + "z")
    assert len(shown) < 8100
    assert shown.startswith("aaa")
    assert shown.endswith("z")
    assert "92,001 characters left out" in shown
