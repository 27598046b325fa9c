"""The anchor of preference training in whole runs: whom it imitates, what is logged, how runs of 0.1 go on."""

from dataclasses import replace

import pytest

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.events import SilentReporter
from grape.core.files import read_json, read_jsonl, write_json
from grape.training import TrainSettings, run_train
from grape.training.loop import TrainLoop
from tests.training.recordings import record, snapshot, write_pairs, write_policy

TERMS = ("grad_norm/preference", "grad_norm/anchor")


class Listener(SilentReporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Settings over three pairs whose chosen sides succeeded (episodes of even number do), and their store."""
    root = tmp_path_factory.mktemp("world")
    policy = write_policy(root / "policy")
    store = record(root / "store", policy)
    settings = TrainSettings(
        pairs=write_pairs(root / "pairs", store),
        policy=policy,
        out=root / "unused",
        pairs_per_update=2,
        epochs=2,
        lr=1e-3,
        micro_batch=8,
        checkpoint_every=1,
    )
    return settings, store


def test_pairs_of_two_failures_are_preferred_but_not_imitated(world, tmp_path):
    settings, store = world
    failures = write_pairs(tmp_path / "failures", store, ((1, 5),))
    plain = run_train(replace(settings, pairs=failures, out=tmp_path / "plain", anchor=0.0))
    anchored = run_train(replace(settings, pairs=failures, out=tmp_path / "anchored"))
    assert anchored["policy_hash"] == plain["policy_hash"] != plain["start_policy_hash"]
    rows = read_jsonl(tmp_path / "anchored" / "metrics.jsonl")
    assert [row["grad_norm/anchor"] for row in rows] == [0.0] * len(rows)
    assert [row["loss/anchor"] for row in rows] == [0.0] * len(rows)
    assert all(row["grad_norm/preference"] == pytest.approx(row["grad_norm"]) for row in rows)
    successes = run_train(replace(settings, out=tmp_path / "successes"))
    assert successes["metrics"]["grad_norm/anchor"] > 0


def test_all_chosen_sides_are_imitated_when_asked(world, tmp_path):
    settings, store = world
    failures = write_pairs(tmp_path / "failures", store, ((1, 5),))
    settings = replace(settings, pairs=failures, imitate="chosen")
    anchored = run_train(replace(settings, out=tmp_path / "anchored"))
    assert anchored["metrics"]["grad_norm/anchor"] > 0
    anchor_alone = run_train(replace(settings, out=tmp_path / "alone", preference_weight=0.0))
    cloned = run_train(replace(settings, out=tmp_path / "cloned", method="filtered-bc"))
    assert len({run["policy_hash"] for run in (anchored, anchor_alone, cloned)}) == 3
    assert all(run["policy_hash"] != run["start_policy_hash"] for run in (anchored, anchor_alone, cloned))
    with pytest.raises(DataError, match="nothing to imitate"):
        run_train(replace(settings, out=tmp_path / "successes", method="filtered-bc", imitate="successes"))
    with pytest.raises(SettingsError, match="--imitate has no meaning for --method rloo"):
        run_train(replace(settings, out=tmp_path / "rloo", method="rloo", pairs=None, scores=failures))


def test_an_unknown_outcome_is_not_imitated(world, tmp_path):
    settings, _ = world
    store = record(tmp_path / "store", settings.policy, success=None)
    pairs = write_pairs(tmp_path / "pairs", store)
    summary = run_train(replace(settings, pairs=pairs, out=tmp_path / "run"))
    assert summary["metrics"]["grad_norm/anchor"] == 0.0


@pytest.mark.parametrize("gradient", ["one-pass", "two-pass"])
def test_norms_of_both_terms_and_the_share_of_clipped_updates_are_logged(world, tmp_path, gradient):
    settings, _ = world
    settings = replace(settings, out=tmp_path / "run", gradient=gradient, epochs=3, max_grad_norm=1e9)
    run_train(settings)
    free = read_jsonl(settings.out / "metrics.jsonl")
    assert [row["clipped"] for row in free] == [0.0] * 6
    for row in free:
        preference, anchor = (row[name] for name in TERMS)
        assert abs(preference - anchor) <= row["grad_norm"] <= (preference + anchor) * (1 + 1e-6)
    # At the start the anchor pulls five times as hard on the chosen side as the preference does, which pulls on both.
    assert 1 < free[0]["grad_norm/anchor"] / free[0]["grad_norm/preference"] < 7.5
    limit = sorted(row["grad_norm"] for row in free)[2]
    clipped = replace(settings, out=tmp_path / "clipped", max_grad_norm=limit)
    run_train(clipped)
    rows = read_jsonl(clipped.out / "metrics.jsonl")
    count = 0
    for update, row in enumerate(rows, start=1):
        count += row["grad_norm"] > limit  # the norm of the sum, before clipping
        assert row["clipped"] == count / update
    assert 0 < count < 6


def test_a_loss_of_one_term_has_no_second_norm(world, tmp_path):
    settings, _ = world
    for name, changes in {"published": {"anchor": 0.0}, "cloning": {"method": "filtered-bc"}}.items():
        metrics = run_train(replace(settings, out=tmp_path / name, **changes))["metrics"]
        assert not any(key.startswith("grad_norm/") for key in metrics)


def test_two_forms_of_the_anchor_are_refused(world):
    with pytest.raises(SettingsError, match="--anchor and --nll-weight"):
        run_train(replace(world[0], anchor=2.0, nll_weight=10.0))


def begun_by_0_1(settings):
    """Make a run look as release 0.1 began it: its inputs did not say how updates are cut."""
    marker = settings.out / "run.json"
    began = read_json(marker)
    del began["inputs"]["batches"]
    write_json(marker, began)


def test_a_run_of_0_1_goes_on_as_it_began_and_says_so(world, tmp_path, monkeypatch):
    settings, store = world
    mixed = write_pairs(tmp_path / "pairs", store, ((0, 1), (1, 5), (2, 3), (4, 5), (0, 5)))
    settings = replace(settings, pairs=mixed, pairs_per_update=4, epochs=1, nll_weight=10.0, out=tmp_path / "old")
    honest = TrainLoop.run

    def stop(self, *arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainLoop, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        run_train(settings)
    monkeypatch.setattr(TrainLoop, "run", honest)
    begun_by_0_1(settings)
    with pytest.raises(CompatibilityError, match=r"nll_weight was 10.0") as caught:
        run_train(replace(settings, nll_weight=None))
    assert "--nll-weight 10.0" in caught.value.hint
    listener = Listener()
    run_train(settings, listener)
    assert "begun by release 0.1 and goes on as it began" in listener.warnings[0]
    new = replace(settings, out=tmp_path / "new")
    run_train(new, listener)
    assert len([warning for warning in listener.warnings if "release 0.1" in warning]) == 1
    old_rows, new_rows = (read_jsonl(run.out / "metrics.jsonl") for run in (settings, new))
    # Lengths are 5, 9, 3, 7, 6, 4. Five pairs at four an update: 4 and 1 then, 2 and 3 now.
    assert len(old_rows) == len(new_rows) == 2
    assert old_rows[0]["frames"] != new_rows[0]["frames"]
    everyone = old_rows[0]["loss/anchor"] / old_rows[0]["loss/nll"]
    assert everyone == pytest.approx(10.0)  # failed sides as well
    assert any(row["loss/anchor"] < 9.9 * row["loss/nll"] for row in new_rows)


def test_filtered_bc_of_0_1_is_told_nothing_of_an_anchor(world, tmp_path, monkeypatch):
    settings = replace(world[0], method="filtered-bc", nll_weight=10.0, epochs=1, out=tmp_path / "old")
    honest = TrainLoop.run

    def stop(self, *arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainLoop, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        run_train(settings)
    monkeypatch.setattr(TrainLoop, "run", honest)
    begun_by_0_1(settings)
    listener = Listener()
    run_train(settings, listener)
    assert "goes on as it began" in listener.warnings[0]
    assert "anchor" not in listener.warnings[0]


def test_displacement_is_warned_of_once_and_kept_in_the_summary(world, tmp_path):
    settings, _ = world
    settings = replace(settings, out=tmp_path / "run", epochs=30, lr=1e-2, anchor=0.0, checkpoint_every=0)
    listener = Listener()
    summary = run_train(settings, listener)
    rows = read_jsonl(settings.out / "metrics.jsonl")
    assert min(row["displacement"] for row in rows) < -0.1
    assert [warning for warning in listener.warnings if "less likely than under the reference" in warning] == [
        summary["alarm"]
    ]
    events = [row for row in read_jsonl(settings.out / "log.jsonl") if row["event"] == "alarm"]
    assert [event["message"] for event in events] == [summary["alarm"]]
    kept = snapshot(settings.out)
    (settings.out / "done.json").unlink()  # as if killed before the end: the rows tell it again
    assert run_train(settings)["alarm"] == summary["alarm"]
    assert snapshot(settings.out) == kept
    calm = run_train(replace(settings, out=tmp_path / "calm", anchor=3.0))
    assert calm["alarm"] == ""


def test_a_floor_keeps_chosen_sides_likely(world, tmp_path):
    settings, _ = world
    lost = {}
    for floor in (0.0, 20.0):
        out = tmp_path / f"floor-{floor:.0f}"
        run_train(replace(settings, out=out, epochs=30, lr=1e-2, anchor=0.0, chosen_floor=floor, checkpoint_every=0))
        lost[floor] = min(row["displacement"] for row in read_jsonl(out / "metrics.jsonl")[-6:])
    assert lost[0.0] < -0.05
    assert lost[20.0] > 0.5 * lost[0.0]
