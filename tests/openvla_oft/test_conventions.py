"""Presets as the public stacks have them, and how they are chosen, changed and read back."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import DataError, SettingsError
from grape.policies.openvla_oft.conventions import (
    PRESETS,
    Conventions,
    Layout,
    choose_conventions,
    conventions_from_json,
    layout_from_json,
    override_conventions,
)


def test_the_presets_differ_where_the_stacks_do():
    facts = {
        name: (c.attention, c.stop_row, c.prompt_tail, c.center_crop, c.idle_steps, c.support, c.temperature)
        for name, c in PRESETS.items()
    }
    assert facts == {
        "openvla-oft": ("bidirectional", "kept", "appended", True, 10, "vocabulary", 1.0),
        "simplevla-rl": ("bidirectional", "kept", "appended", True, 10, "window", 1.6),
        "rlinf": ("bidirectional", "removed", "written", False, 15, "window", 1.6),
    }
    assert PRESETS["rlinf"].image_preprocessing == "resize"


def test_platforms_of_the_reference():
    assert Layout.of_platform(7) == Layout(chunk=8, action_dim=7, bounds="q01-q99")
    assert Layout.of_platform(14) == Layout(chunk=25, action_dim=14, bounds="min-max")
    assert Layout.of_platform(14).tokens == 350


CONVENTIONS = st.builds(
    Conventions,
    attention=st.sampled_from(["bidirectional", "causal"]),
    stop_row=st.sampled_from(["kept", "removed"]),
    prompt_tail=st.sampled_from(["appended", "written", "none"]),
    center_crop=st.booleans(),
    image_preprocessing=st.sampled_from(["jpeg-lanczos", "resize"]),
    idle_steps=st.integers(0, 100),
    support=st.sampled_from(["vocabulary", "window"]),
    temperature=st.floats(0.01, 100.0),
)


@given(CONVENTIONS)
def test_conventions_are_read_back_as_they_were_written(conventions):
    assert conventions_from_json(conventions.to_json(), "here") == conventions
    words = [f"{name.replace('_', '-')}={value}" for name, value in conventions.to_json().items()]
    assert override_conventions(PRESETS["rlinf"], words) == conventions


def test_a_layout_is_read_back_as_it_was_written():
    layout = Layout(chunk=5, action_dim=7, cameras=("agentview", "wrist"), proprio_dim=8, bounds="min-max", head="l1")
    assert layout_from_json(layout.to_json(), "here") == layout


def test_a_preset_wins_over_what_is_stated_and_one_of_them_is_needed():
    stated = dataclasses.replace(PRESETS["rlinf"], temperature=0.6)
    assert choose_conventions("", stated) == stated
    assert choose_conventions("simplevla-rl", stated) == PRESETS["simplevla-rl"]
    with pytest.raises(SettingsError, match="Choose a --preset: openvla-oft, simplevla-rl, rlinf"):
        choose_conventions("", None)
    with pytest.raises(SettingsError, match="Did you mean 'simplevla-rl'"):
        choose_conventions("simplevla", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("causal", "no NAME=VALUE"),
        ("atention=causal", "Did you mean 'attention'"),
        ("attention=flash", "'attention'"),
        ("temperature=0", "above 0"),
        ("temperature=warm", "'temperature'"),
        ("temperature=nan", "above 0"),
        ("idle-steps=-1", "at least 0|between 0"),
        ("idle-steps=2.5", "'idle_steps'"),
        ("center_crop=maybe", "'center_crop'"),
    ],
)
def test_changes_that_make_no_sense(change, words):
    with pytest.raises(SettingsError, match=words):
        override_conventions(PRESETS["rlinf"], [change])


def test_stated_conventions_must_be_complete_and_known():
    whole = PRESETS["rlinf"].to_json()
    with pytest.raises(DataError, match=r"here lacks support"):
        conventions_from_json({name: value for name, value in whole.items() if name != "support"}, "here")
    with pytest.raises(DataError, match="lacks attention"):
        conventions_from_json(None, "here")
    with pytest.raises(DataError, match=r"here.*'mask'"):
        conventions_from_json({**whole, "mask": 1}, "here")
    with pytest.raises(DataError, match="chunk"):
        layout_from_json({**Layout.of_platform(7).to_json(), "chunk": 0}, "here")
    with pytest.raises(DataError, match="name of its own"):
        layout_from_json({**Layout.of_platform(7).to_json(), "cameras": ["a", "a"]}, "here")
