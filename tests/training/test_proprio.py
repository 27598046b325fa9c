"""Fine-tuning and preference training of policies that read the robot's state, from demonstrations to an evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from grape.checkpoints.predict import run_predict
from grape.checkpoints.settings import PredictSettings
from grape.collect import CollectSettings, run_collect
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.events import SILENT
from grape.core.files import read_json, write_json
from grape.evaluation import EvaluateSettings, run_evaluate
from grape.policies.openvla import load_policy
from grape.preferences import PairSettings, ScoreSettings, run_pair, run_score
from grape.store import EpisodeStore
from grape.training import SftSettings, TrainSettings, run_sft, run_train
from grape.training.dataset import load_steps
from grape.training.logprobs import StepLogprobs, recorded_reference
from grape.training.loop import TrainLoop
from tests.training.recordings import snapshot
from tests.training.test_sft import demonstrate


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("proprio")


@pytest.fixture(scope="module")
def demonstrations(root):
    run_collect(CollectSettings(out=root / "demos", suite="toy", policy="expert", initial_states="0-5", workers=1))
    return root / "demos" / "store"


@pytest.fixture(scope="module")
def sft(root, demonstrations):
    settings = SftSettings(
        data=(demonstrations,), out=root / "sft", proprio=True, max_updates=40, batch_size=32, checkpoint_every=10
    )
    return settings, run_sft(settings)


@pytest.fixture(scope="module")
def pairs(root, sft):
    collected = CollectSettings(
        out=root / "collect",
        suite="toy",
        policy=sft[1]["policy"],
        initial_states="8-13",
        samples=4,
        temperature=1.0,
        workers=1,
    )
    run_collect(collected)
    run_score(ScoreSettings(store=root / "collect" / "store", out=root / "score"))
    run_pair(PairSettings(scores=root / "score", out=root / "pairs"))
    return root / "pairs"


def steps_of(store, *, proprio=True):
    return load_steps([store], [store.ids()], SILENT, proprio=proprio)


def test_statistics_are_those_of_the_states_before_the_decisions(demonstrations, sft):
    store = EpisodeStore.open(demonstrations)
    states = np.concatenate([store.read(name, frames=False).proprio[:-1] for name in store.ids()])
    policy = load_policy(sft[1]["policy"])
    np.testing.assert_array_equal(policy.norm_proprio.mean, states.astype(np.float64).mean(axis=0))
    assert policy.spec.proprio_dim == 4
    assert policy.norm_proprio.moves.tolist() == [True, True, False, True]  # the height never changes here
    assert read_json(Path(sft[1]["policy"]) / "config.json")["grape"]["proprio_dim"] == 4


def test_recorded_log_probabilities_are_those_of_the_recorded_state(root, pairs, sft):
    store, policy = EpisodeStore.open(root / "collect" / "store"), load_policy(sft[1]["policy"])
    steps = steps_of(store)
    policy.model.requires_grad_(False)
    for feature_bytes in (0.0, 1e9):  # features hold what the towers make of images; the state comes beside them
        logps = StepLogprobs(policy, steps, 16, feature_bytes)
        with torch.no_grad():
            own = logps(torch.arange(len(steps))).flatten(1).sum(dim=1).double().numpy()
        np.testing.assert_allclose(own, recorded_reference(steps)[:], atol=1e-4)
        shuffled = replace(steps, proprio_NP=steps.proprio_NP[::-1])
        with torch.no_grad():
            other = StepLogprobs(policy, shuffled, 16, feature_bytes)(torch.arange(len(steps))).flatten(1).sum(dim=1)
        assert np.abs(other.numpy() - recorded_reference(steps)[:]).max() > 1e-2


@pytest.mark.parametrize("rank", [0, 2], ids=["all-parameters", "adapters"])
def test_preferences_train_what_was_collected_and_the_result_is_evaluated(root, pairs, sft, tmp_path, rank):
    settings = TrainSettings(
        pairs=pairs, policy=Path(sft[1]["policy"]), out=tmp_path / "train", lora_rank=rank, epochs=1
    )
    plan = run_train(replace(settings, dry_run=True))
    assert plan["sequence"] > 16 + 1 + 6
    summary = run_train(settings)
    assert summary["parity"]["mean_abs"] < 1e-5
    recomputed = run_train(replace(settings, out=tmp_path / "recomputed", reference="recomputed"))
    assert recomputed["metrics"]["loss"] == pytest.approx(summary["metrics"]["loss"], abs=1e-4)
    trained = load_policy(tmp_path / "train" / "policy")
    before = load_policy(sft[1]["policy"]).spec
    assert trained.spec.preprocessing_hash == before.preprocessing_hash
    assert trained.spec.policy_hash != before.policy_hash
    evaluation = EvaluateSettings(
        policy=str(tmp_path / "train" / "policy"),
        out=tmp_path / "evaluation",
        suite="toy",
        initial_states="20-21",
        workers=1,
    )
    assert run_evaluate(evaluation)["episodes"] == 6
    with pytest.raises(CompatibilityError, match="reads 4 numbers of the robot's state, the suite gives 8"):
        run_evaluate(replace(evaluation, suite="libero_goal", tasks="0", out=tmp_path / "libero"))
    assert not (tmp_path / "libero").exists()


def test_noise_is_seeded_and_a_run_resumes_to_the_same_bytes(root, sft, tmp_path):
    settings, summary = sft
    honest = TrainLoop._update

    def dying(self, update, *rest):
        if update == 25:
            raise KeyboardInterrupt
        return honest(self, update, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainLoop, "_update", dying)
        with pytest.raises(KeyboardInterrupt):
            run_sft(replace(settings, out=tmp_path / "again"))
    run_sft(replace(settings, out=tmp_path / "again"))
    assert snapshot(tmp_path / "again") == snapshot(settings.out)
    silent = run_sft(replace(settings, out=tmp_path / "silent", proprio_noise=0.0))
    assert silent["policy_hash"] != summary["policy_hash"]
    # Two halves of a batch see the noise that the whole batch does.
    halves = run_sft(replace(settings, out=tmp_path / "halves", micro_batch=16))
    assert halves["metrics"]["loss"] == pytest.approx(summary["metrics"]["loss"], abs=1e-3)


def test_a_checkpoint_goes_on_as_it_was_made(demonstrations, sft, tmp_path):
    policy = Path(sft[1]["policy"])
    settings = SftSettings(data=(demonstrations,), out=tmp_path / "on", policy=policy, max_updates=2, batch_size=8)
    run_sft(settings)
    assert load_policy(tmp_path / "on" / "policy").spec.proprio_dim == 4
    run_sft(replace(settings, out=tmp_path / "named", norm_key="other", max_updates=1))
    named = load_policy(tmp_path / "named" / "policy")
    assert named.unnorm_key == "other"
    np.testing.assert_array_equal(named.norm_proprio.mean, load_policy(policy).norm_proprio.mean)
    blind = run_sft(replace(settings, out=tmp_path / "blind", policy=None))
    assert load_policy(blind["policy"]).spec.proprio_dim == 0
    with pytest.raises(SettingsError, match="--proprio is for new policies"):
        run_sft(replace(settings, out=tmp_path / "no", policy=Path(blind["policy"]), proprio=True))
    assert not (tmp_path / "no").exists()


def test_plans_know_it(demonstrations, sft, tmp_path):
    plan = run_sft(replace(sft[0], out=tmp_path / "plan", dry_run=True))
    assert plan["parameters"] == sft[1]["parameters"]
    blind = run_sft(replace(sft[0], out=tmp_path / "plan", dry_run=True, proprio=False))
    assert plan["parameters"] - blind["parameters"] == 96 * 4 + 96 + 96 * 96 + 96
    assert plan["tflop_forward_per_frame"] > blind["tflop_forward_per_frame"]
    assert not (tmp_path / "plan").exists()


def test_data_that_does_not_fit_is_refused_before_any_work(demonstrations, sft, tmp_path):
    out = tmp_path / "out"
    narrow = demonstrate(tmp_path / "narrow", episodes=2, steps=3, side=64)  # one number a state
    settings = SftSettings(data=(demonstrations, narrow), out=out, proprio=True)
    with pytest.raises(DataError, match=r"has 4 numbers in episode .*, 1 in episode demo-0"):
        run_sft(settings)
    with pytest.raises(CompatibilityError, match="reads 4 numbers of the robot's state, the demonstrations have 1"):
        run_sft(replace(settings, data=(narrow,), policy=Path(sft[1]["policy"]), proprio=False))
    elsewhere = demonstrate(tmp_path / "elsewhere", episodes=2, steps=3, side=64)
    facts = read_json(elsewhere / "store.json")
    write_json(elsewhere / "store.json", facts | {"suite": "libero_goal"})
    with pytest.raises(CompatibilityError, match="several suites"):
        run_sft(replace(settings, data=(narrow, elsewhere), norm_key="both"))
    assert not out.exists()


def test_a_recorded_state_that_is_not_finite_is_refused(tmp_path):
    path = demonstrate(tmp_path / "store", episodes=2, steps=3, side=64)
    store = EpisodeStore.open(path)
    episode = store.read("demo-1")
    other = EpisodeStore.create(tmp_path / "broken", "toy", dict(store.contract))
    other.write(replace(episode, proprio=np.full_like(episode.proprio, np.nan)))
    with pytest.raises(DataError, match="robot states are not finite"):
        run_sft(SftSettings(data=(tmp_path / "broken",), out=tmp_path / "out", proprio=True, max_updates=1))


def test_predict_takes_the_state(sft, tmp_path):
    from PIL import Image

    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(tmp_path / "image.png")
    settings = PredictSettings(
        policy=sft[1]["policy"],
        image=tmp_path / "image.png",
        instruction="push the red block to the green square",
        proprio=(0.1, 0.2, 0.02, 1.0),
    )
    first = run_predict(settings)
    assert len(first["action"]) == len(first["tokens"])
    assert run_predict(replace(settings, proprio=(0.9, 0.8, 0.02, 1.0)))["logps"] != first["logps"]
    with pytest.raises(CompatibilityError, match="reads 4 numbers of the robot's state, none are given"):
        run_predict(replace(settings, proprio=()))
    with pytest.raises(SettingsError, match="not finite"):
        run_predict(replace(settings, proprio=(0.1, 0.2, float("nan"), 1.0)))
