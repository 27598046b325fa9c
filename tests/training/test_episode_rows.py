"""Columns over episodes of which a part is in memory, items made when they are needed, and what memory they take."""

import itertools
import tracemalloc
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.events import SILENT
from grape.core.preferences import PreferencePair
from grape.store import Decisions, EpisodeStore
from grape.training.dataset import load_steps
from grape.training.decision_axis import DecisionAxis
from grape.training.episode_rows import Column, DecisionCache, rows_of
from grape.training.items import make_items
from grape.training.logprobs import RecordedReference, recorded_reference
from tests.openvla_oft.conftest import make_nano
from tests.training.recordings import record, record_chunks, write_policy
from tests.training.test_sft import demonstrate

DIM = 2
EPISODE_BYTES = 4 * 4 * DIM  # of a control step: tokens, log-probabilities, labels, robot state


class Store:
    """Episodes whose labels hold their rows' numbers; it counts how often each is read."""

    def __init__(self, lengths):
        self.lengths = list(lengths)
        self.starts = np.array([0, *itertools.accumulate(self.lengths)])
        self.reads = Counter()

    def decisions(self, name):
        self.reads[name] += 1
        labels = np.repeat(self.starts[name] + np.arange(self.lengths[name]), DIM).reshape(-1, DIM).astype(np.float32)
        return Decisions(labels.astype(np.int32), labels, labels, (1, 1, 3), labels)

    def column(self, steps, **options):
        cache = DecisionCache([(self, name) for name in range(len(self.lengths))], steps * EPISODE_BYTES)
        return Column(cache, "labels_TD", self.starts, (DIM,), np.float32, **options)


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8), room=st.integers(0, 30), data=st.data())
def test_any_rows_in_any_order_within_the_memory(lengths, room, data):
    store = Store(lengths)
    column = store.column(room)
    assert column.shape == (sum(lengths), DIM)
    numbers = np.repeat(np.arange(sum(lengths)), DIM).reshape(-1, DIM)
    for _ in range(4):
        rows = np.array(data.draw(st.lists(st.integers(0, sum(lengths) - 1), min_size=1, max_size=9)))
        np.testing.assert_array_equal(column[rows], numbers[rows])
        start, stop = sorted(data.draw(st.tuples(st.integers(0, 40), st.integers(0, 40))))
        np.testing.assert_array_equal(column[start:stop], numbers[start:stop])
        kept = [store.lengths[name] for name in range(len(lengths)) if name in column._cache]
        assert sum(kept) <= room or len(kept) == 1


def test_what_fits_is_read_once_and_the_rest_when_it_is_needed():
    store = Store([3, 4, 5])
    roomy = store.column(12)
    for _ in range(3):
        roomy[np.arange(12)[::-1]]
    assert store.reads == {0: 1, 1: 1, 2: 1}
    store.reads.clear()
    tight = store.column(5)
    tight[np.array([0, 1, 11])]
    tight[np.array([11, 2])]
    assert store.reads == {0: 2, 2: 1}


def test_an_episode_that_changed_since_is_refused():
    store = Store([3, 4])
    column = store.column(0)
    column[:3]
    store.lengths[1] = 5
    with pytest.raises(DataError, match="Episode 1 is not what it was"):
        column[3:]


@given(spans=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=5), data=st.data())
def test_positions_of_ranges_are_their_rows(spans, data):
    ranges = [(start, start + length) for start, length in spans]
    rows = np.concatenate([np.arange(*span) for span in ranges])
    positions = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)), dtype=np.int64)
    np.testing.assert_array_equal(rows_of(ranges, positions), rows[positions])


@pytest.fixture(scope="module")
def chunked(tmp_path_factory):
    return record_chunks(tmp_path_factory.mktemp("chunks") / "store", make_nano().freeze())


@pytest.mark.parametrize("room", [0.0, 2000.0])
def test_a_table_is_the_same_within_any_memory(chunked, room):
    tables = [
        load_steps([chunked], [chunked.ids()], SILENT, proprio=True, chunk=3, decision_bytes=size)
        for size in (1e9, room)
    ]
    rows = np.random.default_rng(0).permutation(len(tables[0]))
    for field in ("tokens_NKD", "logps_NKD", "proprio_NP"):
        whole, tight = (getattr(steps, field)[rows] for steps in tables)
        np.testing.assert_array_equal(whole, tight)
        assert whole.dtype == tight.dtype
    for whole, tight in zip(*(steps.chunk_labels(rows) for steps in tables), strict=True):
        np.testing.assert_array_equal(whole, tight)
    assert tables[0].instructions == tables[1].instructions


@given(data=st.data())
def test_any_slice_of_the_recorded_reference_is_that_of_the_whole(chunked, data):
    steps = load_steps([chunked], [chunked.ids()], SILENT, decision_bytes=0)
    recorded = np.concatenate([chunked.decisions(name).logps for name in chunked.ids()])
    whole = recorded.sum(axis=1, dtype=np.float64)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    np.testing.assert_array_equal(recorded_reference(steps)[start:stop], whole[start:stop])


def test_episodes_without_finite_numbers_are_named(tmp_path):
    store = record(tmp_path / "store", write_policy(tmp_path / "policy"), lengths=(5, 9))
    part = store.decisions("toy-1")
    part.logps[3, 2] = np.nan
    part.labels[4, 0] = np.inf
    damaged = SimpleNamespace(
        decisions=lambda name: part if name == "toy-1" else store.decisions(name), meta=store.meta, images=store.images
    )
    steps = load_steps([damaged], [store.ids()], SILENT)
    with pytest.raises(DataError, match="Episode toy-1 has no finite recorded log-probabilities"):
        recorded_reference(steps)
    assert [steps.episode_id(number) for number in steps.unlabeled] == ["toy-1"]
    assert not load_steps([store], [store.ids()], SILENT).unsampled


@given(
    executed=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=5), min_size=2, max_size=4),
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    data=st.data(),
)
def test_items_made_when_needed_are_those_cut_at_once(executed, window, stride, data):
    axis = DecisionAxis.of(np.array([count for counts in executed for count in counts]))
    edges = np.cumsum([0, *(sum(counts) for counts in executed)]).tolist()
    spans = {str(number): span for number, span in enumerate(itertools.pairwise(edges))}
    names = st.sampled_from(sorted(spans))
    pairs = []
    for number in range(data.draw(st.integers(1, 3))):
        sides = data.draw(st.tuples(names, names))
        ranges = []
        for side in sides:
            length = spans[side][1] - spans[side][0]
            start = data.draw(st.integers(0, length - 1))
            ranges.append((start, data.draw(st.integers(start + 1, length))))
        pairs.append(
            PreferencePair(
                str(number), "task", 0, *sides, 0.0, "best-worst", "", chosen_steps=ranges[0], rejected_steps=ranges[1]
            )
        )
    for method, size, step in (("step-dpo", 1, 1), ("tpo", window, stride)):
        items = make_items(method, pairs, spans, window if method == "tpo" else 0, stride, axis=axis)[0]
        expected = []
        for pair in pairs:
            both = []
            for side, (start, stop) in ((pair.chosen, pair.chosen_steps), (pair.rejected, pair.rejected_steps)):
                parts = axis.cut((spans[side][0] + start, spans[side][0] + stop))
                firsts = range(0, max(len(parts) - size, 0) + 1, step)
                both.append([(parts[k][0], parts[min(k + size, len(parts)) - 1][1]) for k in firsts])
            expected += zip(*both, strict=False)
        assert [(item.chosen, item.rejected) for item in items] == expected
        assert items[-1] == items[len(items) - 1]
        assert np.mean([item.weight for item in items]) == pytest.approx(1)


@pytest.mark.parametrize("method", ["tpo", "step-dpo", "filtered-bc"])
def test_memory_of_a_table_and_its_items_is_an_index(method):
    """Of an episode of 400 control steps, whose decisions take 25 kB."""
    store = Store([400] * 300)
    store.meta = lambda _: SimpleNamespace(instruction="open the drawer")

    def use(count):
        ids = list(range(count))
        steps = load_steps([store], [ids], SILENT, decision_bytes=0)
        pairs = [
            PreferencePair(str(n), "task", n, n, n + 1, 0.0, "best-worst", "")
            for n in ids[:-1]  # names are numbers here
        ]
        items, _ = make_items(method, pairs, steps.step_spans, axis=steps.axis)
        reference = recorded_reference(steps)
        assert isinstance(reference, RecordedReference)
        assert len(items) >= count - 1
        assert reference[slice(*items[len(items) // 2].chosen)].sum() > 0

    peaks = []
    for count in (50, 300):
        use(count)
        tracemalloc.start()
        use(count)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 250 < 2048


def test_demonstrations_in_memory_or_not_make_the_same_table(tmp_path):
    store = EpisodeStore.open(demonstrate(tmp_path / "store", episodes=3))
    tables = [load_steps([store], [store.ids()], SILENT, decision_bytes=size) for size in (0, 1e9)]
    for whole, tight in zip(*(steps.labels_TD[:] for steps in tables), strict=True):
        np.testing.assert_array_equal(whole, tight)
