import numpy as np
import pytest

from grape.training.batches import BatchSampler, EpisodeShuffleSampler

SPANS = [(0, 5), (5, 9), (12, 20), (20, 21), (30, 37)]
ROWS = [row for span in SPANS for row in range(*span)]


def orders(together, per_update=4, seed=0):
    schedule = BatchSampler.plan(len(ROWS), per_update, 3, 0, seed, repeat=True)
    order = EpisodeShuffleSampler(SPANS, schedule, together)
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
    fresh = EpisodeShuffleSampler(SPANS, schedule, together)
    for update in (9, 2, 17):
        assert np.array_equal(fresh.batch(update), batches[update])
    assert any(not np.array_equal(a, b) for a, b in zip(batches, orders(together, seed=1)[1], strict=True))


def test_few_episodes_at_a_time():
    _, batches = orders(1)
    owners = [{next(i for i, (a, b) in enumerate(SPANS) if a <= row < b) for row in batch} for batch in batches]
    # Four steps of one episode after the other: never more than two neighbours, or three around the single step.
    assert max(map(len, owners)) <= 3
    assert max(len(owner) for owner in [set().union(*owners[k : k + 2]) for k in range(len(owners) - 1)]) < 5


def test_all_together_is_the_schedules_own_order():
    schedule, batches = orders(0)
    assert all(np.array_equal(np.array(ROWS)[schedule.batch(k)], batch) for k, batch in enumerate(batches))
