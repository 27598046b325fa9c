"""The step table: decisions of chunks, their labels, and what does not belong together."""

from dataclasses import replace

import numpy as np
import pytest

from grape.core.errors import CompatibilityError, DataError
from grape.core.events import SILENT
from grape.store import EpisodeStore
from grape.training.data_checks import check_decisions
from grape.training.dataset import load_steps
from tests.openvla_oft.conftest import make_nano
from tests.training.recordings import record, record_chunks, write_policy

CAMERAS = ("agentview", "wrist")


@pytest.fixture(scope="module")
def policy():
    return make_nano(cameras=CAMERAS, proprio_dim=4).freeze()


@pytest.fixture(scope="module")
def store(policy, tmp_path_factory):
    return record_chunks(tmp_path_factory.mktemp("chunks") / "store", policy)


def load(store, **options):
    return load_steps([store], [store.ids()], SILENT, **options)


def test_rows_are_decisions_with_all_that_was_sampled(store, policy):
    steps = load(store, proprio=True, cameras=("wrist",), spec=policy.spec)
    for name, (start, stop) in steps.spans.items():
        whole = store.read(name)
        np.testing.assert_array_equal(steps.tokens_NKD[start:stop], whole.chunks.tokens)
        np.testing.assert_array_equal(steps.logps_NKD[start:stop], whole.chunks.logps)
        np.testing.assert_array_equal(steps.axis.executed(np.arange(start, stop)), whole.chunks.executed)
        first_steps = steps.axis.first_steps(np.arange(start, stop)) - steps.step_spans[name][0]
        np.testing.assert_array_equal(first_steps, whole.decision_starts)
        np.testing.assert_array_equal(steps.proprio_NP[start:stop], whole.proprio[whole.decision_starts])
        rows = np.arange(start, stop)[::-1]
        for seen, place in zip(steps.observations(rows), rows - start, strict=True):
            np.testing.assert_array_equal(seen.image, whole.frames[place])
            np.testing.assert_array_equal(seen.cameras["wrist"], whole.cameras["wrist"][place])
            np.testing.assert_array_equal(seen.proprio, whole.proprio[whole.decision_starts[place]])
            assert seen.instruction == whole.meta.instruction
    assert len(steps) == sum(len(store.read(name).chunks) for name in store.ids())
    assert steps.labels_TD.shape == (sum(meta.steps for meta in store.metas()), 7)
    blind = steps.observations(np.array([0, 3]), images=False)
    assert [seen.image.size for seen in blind] == [0, 0]
    assert not blind[0].cameras


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("room", [0, 1e9])
def test_images_of_all_cameras_are_the_same_within_any_memory(store, scattered, room):
    steps = load(store, cameras=("wrist",), image_bytes=room, scattered=scattered)
    whole = load(store, cameras=("wrist",))
    rows = np.random.default_rng(0).permutation(len(steps))
    np.testing.assert_array_equal(steps.images_NHWC[rows], whole.images_NHWC[rows])
    np.testing.assert_array_equal(steps.cameras["wrist"][rows], whole.cameras["wrist"][rows])


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_labels_are_cut_from_control_steps_on_where_decisions_begin(store, chunk):
    steps = load(store, chunk=chunk)
    for name, (start, stop) in steps.spans.items():
        labels = store.read(name, frames=False).labels
        starts = store.read(name, frames=False).decision_starts.tolist()
        cut, inside_NK = steps.chunk_labels(np.arange(start, stop))
        for first, row, inside_K in zip(starts, cut, inside_NK.tolist(), strict=True):
            inside = labels[first : first + chunk]
            np.testing.assert_array_equal(row[: len(inside)], inside)
            assert inside_K == [True] * len(inside) + [False] * (chunk - len(inside))


def test_each_control_step_of_version_1_is_a_decision_and_its_chunks_overlap(tmp_path):
    store = record(tmp_path / "store", write_policy(tmp_path / "policy"), lengths=(5, 9))
    steps = load(store, chunk=4)
    assert len(steps) == 14
    assert steps.tokens_NKD.shape == (14, 1, 7)
    assert (steps.axis.executed(np.arange(14)) == 1).all()
    assert steps.axis.bounds is None
    labels = store.read("toy-0", frames=False).labels
    cut, inside = steps.chunk_labels(np.array([0, 3]))
    np.testing.assert_array_equal(cut[0], labels[:4])
    np.testing.assert_array_equal(cut[1], labels[[3, 4, 4, 4]])
    assert inside[1].tolist() == [True, True, False, False]


def test_demonstrations_of_several_chunk_lengths_serve_together_without_their_tokens(store, tmp_path):
    plain = record(tmp_path / "store", write_policy(tmp_path / "policy"), lengths=(5,))
    with pytest.raises(DataError, match="Train on one kind of data"):
        load_steps([store, plain], [store.ids(), plain.ids()], SILENT)
    short = record_chunks(tmp_path / "short", make_nano(chunk=2).freeze(), ((2, 1),))
    steps = load_steps([store, short], [store.ids(), short.ids()], SILENT, chunk=3)
    assert steps.tokens_NKD.shape[1] == 3
    assert (steps.tokens_NKD[-2:][:, 2] == -1).all()
    assert (steps.tokens_NKD[-2:][:, :2] > 0).all()


def test_decisions_of_another_kind_are_refused(store, policy, tmp_path):
    plain = record(tmp_path / "store", write_policy(tmp_path / "policy"), lengths=(5,))
    spec = policy.spec
    check_decisions([store, store], spec)
    with pytest.raises(CompatibilityError, match="decides on 1 action at once") as caught:
        check_decisions([plain], spec)
    assert "decides on 3 actions at once" in caught.value.message
    assert "grape sft" in caught.value.hint
    with pytest.raises(CompatibilityError, match="decides on 3 actions at once"):
        check_decisions([plain, store])
    for changed in (replace(spec, chunk=2), replace(spec, support="vocabulary"), replace(spec, logp_temperature=2.0)):
        with pytest.raises(CompatibilityError, match="not comparable"):
            check_decisions([store], changed)
        with pytest.raises(CompatibilityError, match="policy of episode toy-0 decides on 3"):
            load(store, spec=changed)
    silent = EpisodeStore(store.path, store.suite, {"chunks": {"length": 4, "support": "", "temperature": 0.0}})
    with pytest.raises(CompatibilityError, match="no action tokens"):
        check_decisions([silent])
    with pytest.raises(DataError, match="'chunks' of the contract is 5"):
        check_decisions([EpisodeStore(store.path, store.suite, {"chunks": 5})])


def test_a_camera_that_was_not_recorded_is_named(tmp_path):
    store = record(tmp_path / "store", write_policy(tmp_path / "policy"), lengths=(5,))
    with pytest.raises(CompatibilityError, match=r"episode toy-0 has none of wrist, but of the main camera"):
        load(store, cameras=("wrist",))


def test_images_of_one_camera_in_several_sizes_are_refused_before_training(store, tmp_path):
    small = EpisodeStore.create(tmp_path / "small", store.suite, dict(store.contract))
    whole = store.read("toy-0")
    small.write(replace(whole, cameras={"wrist": whole.cameras["wrist"][:, :8, :8].copy()}))
    both = [store, small], [store.ids(), small.ids()], SILENT
    assert len(load_steps(*both)) > len(load(store))
    with pytest.raises(DataError, match=r"camera 'wrist' are of the shapes \[\(8, 8, 3\)"):
        load_steps(*both, cameras=("wrist",))


def test_images_of_one_camera_are_decoded_without_those_of_the_others(store, monkeypatch):
    expected = load(store, cameras=("wrist",)).observations(np.arange(5))
    steps = load(store, cameras=("wrist",))
    monkeypatch.setattr(EpisodeStore, "read", lambda *_, **__: pytest.fail("a whole episode was decoded"))
    for seen, due in zip(steps.observations(np.arange(5)), expected, strict=True):
        np.testing.assert_array_equal(seen.image, due.image)
        np.testing.assert_array_equal(seen.cameras["wrist"], due.cameras["wrist"])
