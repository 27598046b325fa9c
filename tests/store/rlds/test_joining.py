"""Two data sets become pairs: by name, else by order."""

import pytest

from grape.core.errors import DataError
from grape.store.rlds import open_rlds
from grape.store.rlds.joining import join_pairs
from grape.store.rlds.standardize import RULES
from grape.store.rlds.writer import RldsWriter, shard_lengths
from tests.store.rlds.datasets import FEATURES, make_columns, write_dataset
from tests.store.rlds.golden import golden, needs_golden

RULE = RULES["plain"]


def join(tmp_path, chosen, rejected, **options):
    sides = [
        write_dataset(tmp_path / side, {"train": files}, **(options if side == "rejected" else {}))
        for side, files in (("chosen", chosen), ("rejected", rejected))
    ]
    warnings = []
    return join_pairs(*sides, RULE, warn=warnings.append), warnings


def ids(pairs):
    return [(pair.pair_id, pair.chosen.file_path, pair.rejected.file_path) for pair in pairs]


def test_by_name_whatever_the_order(tmp_path):
    pairs, warnings = join(tmp_path, ["a", "b", "c", "d"], ["d", "b", "a", "c"], steps=4)
    assert pairs.joined_by == "file_path"
    assert ids(pairs) == ids(pairs) == [(name, name, name) for name in "abcd"]
    assert ids([pairs[2]]) == [("c", "c", "c")]
    assert len(pairs) == 4
    assert not warnings
    assert [pair.rejected.actions.shape for pair in pairs] == [(4, 7)] * 4
    assert pairs[0].chosen.images.decode().shape == (3, 6, 8, 3)


def test_episodes_without_partner_are_told(tmp_path):
    pairs, warnings = join(tmp_path, ["a", "b", "c"], ["b", "c", "e"])
    assert [pair.pair_id for pair in pairs] == ["b", "c"]
    assert any("1 chosen episodes have no partner" in text and "a" in text for text in warnings)
    assert any("1 rejected episodes have no partner" in text for text in warnings)


@pytest.mark.parametrize("files", [(["a", "b"], ["x", "y"]), (["", ""], ["", ""]), (["a", "a"], ["a", "a"])])
def test_by_order_with_a_warning(tmp_path, files):
    pairs, warnings = join(tmp_path, *files)
    assert pairs.joined_by == "order"
    assert [(pair.pair_id, pair.chosen.index, pair.rejected.index) for pair in pairs] == [("0", 0, 0), ("1", 1, 1)]
    assert len(warnings) == 1
    assert "order alone" in warnings[0]


def test_by_order_needs_equal_numbers(tmp_path):
    with pytest.raises(DataError, match="2 and 3 episodes"):
        join(tmp_path, ["a", "b"], ["x", "y", "z"])


def test_instructions_must_agree(tmp_path):
    with pytest.raises(DataError, match="two instructions: 'open the drawer' and 'close the drawer'"):
        join(tmp_path, ["a", "b"], ["x", "y"], instruction="close the drawer")


def test_case_of_instructions_does_not_matter(tmp_path):
    pairs, _ = join(tmp_path, ["a"], ["a"], instruction="Open the drawer ")
    assert len(pairs) == 1


def test_an_instruction_that_changes_on_the_way_is_refused(tmp_path):
    sides = [write_dataset(tmp_path / side, {"train": ["a"]}) for side in ("chosen", "rejected")]
    columns = make_columns("a", instruction="open the drawer")
    columns["steps/language_instruction"] = ["open the drawer", "", "close the drawer"]
    writer = RldsWriter(tmp_path / "changing" / "1.0.0", "changing", FEATURES)
    writer.write_split("train", [columns], shard_lengths(1, 1))
    writer.finish()
    changing = open_rlds(tmp_path / "changing")
    for pair in ((changing, sides[1]), (sides[0], changing)):
        with pytest.raises(DataError, match="changes within the episode, from 'open the drawer' to 'close"):
            join_pairs(*pair, RULE, warn=print)
    assert len(join_pairs(changing, sides[1], RULE, warn=print, strict=False)) == 1


@needs_golden
def test_published_pairs():
    sides = [open_rlds(golden(f"grape_pair/{side}/rlds_np_rollout")) for side in ("chosen", "rejected")]
    warnings = []
    pairs = join_pairs(*sides, RULES["rlds_np_rollout"], warn=warnings.append)
    assert not warnings
    assert [(pair.chosen.steps, pair.rejected.steps) for pair in pairs] == [
        (9, 12), (9, 10), (7, 7), (8, 11), (7, 11), (10, 7),
    ]  # fmt: skip
    assert all(pair.pair_id == pair.chosen.file_path == pair.rejected.file_path for pair in pairs)
    statistics = pairs.statistics()
    assert (statistics["num_trajectories"], statistics["num_transitions"]) == (14, 59 + 65)
