from pathlib import Path

from grape.core.runs import read_provenance, write_provenance
from grape.core.trajectories import EpisodeMeta


def meta(task: str, state: int) -> EpisodeMeta:
    return EpisodeMeta("id", "toy", task, 0, "do it", state, 0, 0, True, 1, "policy")


def test_a_policy_inherits_what_its_parent_had_seen(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    write_provenance(parent, None, [meta("a", 1), meta("a", 2), meta("b", 7)])
    write_provenance(child, parent, [meta("a", 2), meta("a", 9)])
    assert read_provenance(parent) == {"toy": {"a": {1, 2}, "b": {7}}}
    assert read_provenance(child) == {"toy": {"a": {1, 2, 9}, "b": {7}}}
    assert read_provenance(tmp_path / "neither") == {}
