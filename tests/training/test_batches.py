from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.preferences import PreferencePair
from grape.core.seeds import derive_rng
from grape.training import batches
from grape.training.batches import BatchSampler, EpisodeShuffleSampler, collate
from grape.training.decision_axis import DecisionAxis
from grape.training.items import ComparisonItem, make_items
from grape.training.plan import split_samples
from grape.training.settings import TrainSettings


def pair(number, chosen, rejected):
    return PreferencePair(f"p{number}", "task", number, chosen, rejected, 1.0, "best-worst", "")


SPANS = {"a": (0, 3), "b": (3, 8), "c": (8, 10)}
PAIRS = (pair(0, "a", "b"), pair(1, "a", "c"))


def test_trajectories_are_compared_whole():
    items, per_pair = make_items("tpo", PAIRS, SPANS)
    assert items == (ComparisonItem("pair p0", (0, 3), (3, 8)), ComparisonItem("pair p1", (0, 3), (8, 10)))
    assert per_pair == 1.0


def test_windows_meet_at_equal_offsets_of_their_pair():
    items, per_pair = make_items("tpo", (pair(0, "a", "b"), pair(1, "b", "c")), SPANS, window=2, stride=1)
    assert [item.chosen for item in items] == [(0, 2), (1, 3), (3, 5)]
    assert [item.rejected for item in items] == [(3, 5), (4, 6), (8, 10)]
    assert per_pair == 1.5
    assert items[1].name == "pair p0, window 1"
    strided, _ = make_items("tpo", (pair(0, "b", "b"),), SPANS, window=2, stride=3)
    assert [item.chosen for item in strided] == [(3, 5), (6, 8)]
    whole, _ = make_items("tpo", (pair(0, "a", "b"),), SPANS, window=4)
    assert (whole[0].chosen, whole[0].rejected) == ((0, 3), (3, 7))  # shorter than a window: one window


def test_steps_are_compared_within_their_pair_by_index():
    items, per_pair = make_items("step-dpo", PAIRS, SPANS)
    assert [(item.chosen[0], item.rejected[0]) for item in items] == [(0, 3), (1, 4), (2, 5), (0, 8), (1, 9)]
    assert all(end - start == 1 for item in items for start, end in (item.chosen, item.rejected))
    assert per_pair == 2.5


def test_filtered_bc_uses_each_chosen_episode_once():
    items, per_pair = make_items("filtered-bc", PAIRS, SPANS)
    assert [item.chosen for item in items] == [(0, 1), (1, 2), (2, 3)]
    assert all(item.rejected[0] == item.rejected[1] for item in items)
    assert per_pair == 3.0


def test_a_pair_may_compare_ranges_of_decisions_and_weigh_more():
    cut = replace(PAIRS[0], weight=3.0, chosen_steps=(0, 2), rejected_steps=(1, 4))
    items, _ = make_items("tpo", (cut, PAIRS[1]), SPANS, succeeded={"b"})
    assert items[0] == ComparisonItem("pair p0", (0, 2), (4, 7), weight=1.5, anchored=False)
    assert items[1] == ComparisonItem("pair p1", (0, 3), (8, 10), weight=0.5, anchored=False)
    assert make_items("tpo", PAIRS, SPANS, succeeded={"a"})[0][0].anchored
    steps, _ = make_items("step-dpo", (cut,), SPANS)
    assert [(item.chosen, item.rejected) for item in steps] == [((0, 1), (4, 5)), ((1, 2), (5, 6))]
    windows, _ = make_items("tpo", (cut,), SPANS, window=2)
    assert [(item.chosen, item.rejected) for item in windows] == [((0, 2), (4, 6))]
    assert make_items("filtered-bc", (cut,), SPANS)[0][:] == make_items("filtered-bc", PAIRS[:1], SPANS)[0][:]
    _, comparisons = collate(items, np.arange(10.0), DecisionAxis.plain(10))
    sums = comparisons.sums(torch.zeros(comparisons.frame_count, dtype=torch.float64))
    assert sums.chosen_steps_P.tolist() == [2.0, 3.0]
    assert sums.rejected_steps_P.tolist() == [3.0, 2.0]
    assert sums.chosen_reference_P.tolist() == [1.0, 3.0]
    assert sums.weight_P.tolist() == [1.5, 0.5]
    assert sums.anchored_P.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen_steps": (1, 4)}, r"control steps \[1, 4\) of episode a, which has 3"),
        ({"rejected_steps": (2, 2)}, r"control steps \[2, 2\) of episode b"),
        ({"rejected_steps": (-1, 2)}, r"control steps \[-1, 2\) of episode b"),
        ({"weight": -1.0}, "weights"),
        ({"weight": 0.0}, "weights"),
    ],
)
def test_ranges_and_weights_that_cannot_be_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        make_items("tpo", (replace(PAIRS[0], **changes),), SPANS)


def test_a_holdout_whose_pairs_all_weigh_0_is_told_as_such():
    settings = TrainSettings(policy=Path("policy"), out=Path("run"), holdout=0.5)
    states = [replace(PAIRS[0], pair_id=str(number), initial_state=number) for number in range(4)]
    held = {pair.initial_state for pair in split_samples(settings, states)[1]}
    assert len(held) == 2
    for silent, part in ((held, "kept out"), ({0, 1, 2, 3} - held, "left to train on")):
        pairs = [replace(pair, weight=0.0 if pair.initial_state in silent else 1.0) for pair in states]
        with pytest.raises(DataError, match=f"All 2 pairs that --holdout 0.5 has {part} weigh 0") as caught:
            split_samples(settings, pairs)
        assert "--seed" in caught.value.hint
        assert split_samples(replace(settings, method="filtered-bc"), pairs)[1]  # which knows no weights


def test_weights_whose_sum_is_not_finite_are_refused():
    """Over an infinite mean every pair would count 0, and nothing would be learned without a word."""
    with pytest.raises(DataError, match="weights"):
        make_items("tpo", tuple(replace(pair, weight=1.7e308) for pair in PAIRS), SPANS)


def test_comparisons_hold_each_frame_once_and_add_up():
    reference = np.arange(10, dtype=np.float64)
    segments, comparisons = collate(make_items("tpo", PAIRS, SPANS)[0], reference, DecisionAxis.plain(10))
    assert segments.rows_F.tolist() == list(range(10))
    assert segments.first_F.tolist() == [0] * 10
    assert segments.stop_F.tolist() == [1] * 10
    sums = comparisons.sums(torch.from_numpy(10.0 * reference))
    assert sums.chosen_P.tolist() == [30.0, 30.0]
    assert sums.rejected_P.tolist() == [250.0, 170.0]
    assert sums.chosen_reference_P.tolist() == [3.0, 3.0]
    assert sums.rejected_reference_P.tolist() == [25.0, 17.0]
    assert sums.rejected_steps_P.tolist() == [5.0, 2.0]


@given(items=st.integers(1, 40), per_update=st.integers(1, 50), epochs=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_every_epoch_uses_every_item_once_in_a_new_order(items, per_update, epochs, seed):
    schedule = BatchSampler.plan(items, per_update, epochs, 0, seed, repeat=False)
    batches = [schedule.batch(update) for update in range(schedule.updates)]
    assert all(len(batch) <= per_update for batch in batches)
    per_epoch = [
        np.concatenate(batches[epoch * schedule.per_epoch : (epoch + 1) * schedule.per_epoch])
        for epoch in range(epochs)
    ]
    assert all(sorted(order) == list(range(items)) for order in per_epoch)
    if items > 20 and epochs > 1:
        assert per_epoch[0].tolist() != per_epoch[1].tolist()


@given(items=st.integers(1, 60), per_update=st.integers(1, 50), seed=st.integers(0, 2**31))
def test_even_updates_weigh_every_item_of_an_epoch_alike(items, per_update, seed):
    plain = BatchSampler.plan(items, per_update, 2, 0, seed, repeat=False)
    even = BatchSampler.plan(items, per_update, 2, 0, seed, repeat=False, even=True)
    assert even.updates == plain.updates
    for epoch in range(2):
        updates = range(epoch * even.per_epoch, (epoch + 1) * even.per_epoch)
        batches = [even.batch(update) for update in updates]
        sizes = [len(batch) for batch in batches]
        assert 0 < max(sizes) <= per_update
        assert max(sizes) - min(sizes) <= 1
        assert np.array_equal(np.concatenate(batches), np.concatenate([plain.batch(update) for update in updates]))
        # A mean over the update, times its weight: what one item contributes.
        shares = {round(even.weight(update) / size, 12) for update, size in zip(updates, sizes, strict=True)}
        assert shares == {round(even.per_epoch / items, 12)}
        assert sum(even.weight(update) for update in updates) == pytest.approx(even.per_epoch)
    assert {plain.weight(update) for update in range(plain.updates)} == {1.0}


def test_the_number_of_updates_can_be_limited_and_prolonged():
    assert BatchSampler.plan(10, 3, 2, 0, 0, repeat=False).updates == 8
    assert BatchSampler.plan(10, 3, 2, 5, 0, repeat=False).updates == 5
    assert BatchSampler.plan(10, 3, 2, 100, 0, repeat=False).updates == 8
    assert BatchSampler.plan(10, 3, 2, 100, 0, repeat=True).updates == 100


EPISODES = [(0, 5), (5, 9), (12, 20), (20, 21), (30, 37)]
ROWS = [row for span in EPISODES for row in range(*span)]


def orders(together, per_update=4, seed=0):
    schedule = BatchSampler.plan(len(ROWS), per_update, 3, 0, seed, repeat=True)
    order = EpisodeShuffleSampler(EPISODES, schedule, together)
    return schedule, [order.batch(update) for update in range(schedule.updates)]


@pytest.mark.parametrize("together", [0, 1, 2, 5, 9])
def test_every_epoch_holds_every_step_once_in_another_order(together):
    schedule, batches = orders(together)
    epochs = [
        np.concatenate(batches[start : start + schedule.per_epoch])
        for start in range(0, len(batches), schedule.per_epoch)
    ]
    assert [sorted(epoch) for epoch in epochs] == [ROWS] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("together", [0, 2])
def test_a_batch_depends_on_its_number_alone(together):
    schedule, batches = orders(together)
    fresh = EpisodeShuffleSampler(EPISODES, schedule, together)
    for update in (9, 2, 17):
        assert np.array_equal(fresh.batch(update), batches[update])
    assert any(not np.array_equal(a, b) for a, b in zip(batches, orders(together, seed=1)[1], strict=True))


def test_few_episodes_at_a_time():
    _, batches = orders(1)
    owners = [{next(i for i, (a, b) in enumerate(EPISODES) if a <= row < b) for row in batch} for batch in batches]
    # Four steps of one episode after the other: never more than two neighbors, or three around the single step.
    assert max(map(len, owners)) <= 3
    assert max(len(owner) for owner in [set().union(*owners[k : k + 2]) for k in range(len(owners) - 1)]) < 5


def test_all_together_is_the_schedules_own_order():
    schedule, batches = orders(0)
    assert all(np.array_equal(np.array(ROWS)[schedule.batch(k)], batch) for k, batch in enumerate(batches))


def test_one_permutation_an_epoch(monkeypatch):
    drawn = []
    monkeypatch.setattr(batches, "derive_rng", lambda *seeds: drawn.append(seeds) or derive_rng(*seeds))
    schedule = BatchSampler.plan(20, 3, 4, 0, 5, repeat=False)
    every = [schedule.batch(update) for update in range(schedule.updates)]
    assert drawn == [(5, "order", epoch) for epoch in range(4)]
    for update in (0, 9, 27, 3):  # as each update computed it before
        epoch, position = divmod(update, 7)
        order = derive_rng(5, "order", epoch).permutation(20)
        assert np.array_equal(every[update], order[position * 3 : (position + 1) * 3])
        assert np.array_equal(schedule.batch(update), every[update])
    assert schedule == BatchSampler.plan(20, 3, 4, 0, 5, repeat=False)
