"""Files of cells: strict readers, and what belongs together."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.core.errors import CompatibilityError, DataError, GrapeError
from grape.study.cells import cell_path, check_starts, read_cell, software, write_cell
from tests.study.small_cell import small_cell


def test_a_cell_comes_back_as_it_was(tmp_path: Path) -> None:
    path = write_cell(tmp_path, small_cell())
    assert path == cell_path(tmp_path, 3, "tpo")
    assert read_cell(path) == small_cell()
    assert path.stat().st_size < 2000
    assert small_cell(cpu_seconds=7.0, software={}).facts == small_cell().facts != small_cell(start="f").facts


def places(value: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [where, *(place for key, item in inner for place in places(item, (*where, key)))]


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = write_cell(tmp_path_factory.getbasetemp() / "fuzz", small_cell())
    value = json.loads(path.read_text())
    place = data.draw(st.sampled_from(places(value)))
    junk = data.draw(
        st.sampled_from([None, True, -1, 10**30, 0.5, 1e400, "", "x", [], {}, [1], {"x": 1}, [[0, 0, 0, 0, 0, 0]]])
    )
    spoiled = copy.deepcopy(value)
    if place:
        holder = spoiled
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = junk
    else:
        spoiled = junk
    path.write_text(json.dumps(spoiled))
    try:
        cell = read_cell(path)
    except GrapeError:
        return
    assert all(outcome.success in (0, 1) for item in cell.rounds for outcome in item.outcomes)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', "null"])
def test_what_is_no_cell_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError):
        read_cell(tmp_path / "x.json")


def test_an_episode_counts_once(tmp_path: Path) -> None:
    twice = replace(small_cell().rounds[0], outcomes=small_cell().rounds[0].outcomes[:1] * 2)
    with pytest.raises(DataError, match="twice"):
        read_cell(write_cell(tmp_path, small_cell(rounds=(twice,))))


def test_arms_of_a_seed_must_start_alike() -> None:
    check_starts([small_cell(), small_cell(arm="kto"), small_cell(seed=4, start="f")])
    with pytest.raises(CompatibilityError, match="seed 3 have different starting policies"):
        check_starts([small_cell(), small_cell(arm="kto", start="f")])
    other = replace(small_cell().rounds[0], rollouts="f")
    with pytest.raises(CompatibilityError, match="different first rollouts"):
        check_starts([small_cell(), small_cell(arm="kto", rounds=(other,))])


def test_software_names_version_and_commit_of_a_checkout() -> None:
    facts = software()
    assert facts["version"]
    assert "commit" not in facts or len(facts["commit"].split(",")[0]) == 40
