from pathlib import Path

from grape.core.provenance import Provenance, add_validated, read_provenance, write_provenance
from grape.core.trajectories import EpisodeMeta


def meta(task: str, state: int) -> EpisodeMeta:
    return EpisodeMeta("id", "toy", task, 0, "do it", state, 0, 0, True, 1, "policy")


def test_a_policy_inherits_what_its_parent_had_seen(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    write_provenance(parent, None, [meta("a", 1), meta("a", 2), meta("b", 7)])
    write_provenance(child, parent, [meta("a", 2), meta("a", 9)])
    assert read_provenance(parent).collected == {"toy": {"a": {1, 2}, "b": {7}}}
    assert read_provenance(child).collected == {"toy": {"a": {1, 2, 9}, "b": {7}}}
    assert read_provenance(tmp_path / "neither") == Provenance()


def test_validation_states_are_inherited_and_change_nothing_else(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    write_provenance(parent, None, [meta("a", 1)])
    plain = (parent / "provenance.json").read_bytes()
    assert b"validated" not in plain
    add_validated(parent, "toy", ["a", "b"], range(50, 53))
    add_validated(parent, "toy", ["a"], [60])
    assert read_provenance(parent).validated == {"toy": {"a": {50, 51, 52, 60}, "b": {50, 51, 52}}}
    assert read_provenance(parent).collected == {"toy": {"a": {1}}}
    once = (parent / "provenance.json").read_bytes()
    add_validated(parent, "toy", ["a"], [60])
    assert (parent / "provenance.json").read_bytes() == once
    write_provenance(child, parent, [meta("a", 2)])
    assert read_provenance(child).validated == read_provenance(parent).validated
    assert read_provenance(child).collected == {"toy": {"a": {1, 2}}}
