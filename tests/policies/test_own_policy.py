"""A policy of another distribution goes all the way: collect, score, pair, train, evaluate, loop."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from grape.collect import CollectSettings, run_collect
from grape.core.errors import SettingsError
from grape.core.trajectories import Observation
from grape.evaluation import EvaluateSettings, run_evaluate
from grape.loop import LoopSettings, run_loop
from grape.policies import OpeningOptions, PolicyType, TrainablePolicy
from grape.policies.registry import (
    get_policy_type,
    open_policy,
    policy_type_names,
    recognize_policy,
    register_policy_type,
)
from grape.preferences import PairSettings, ScoreSettings, run_pair, run_score
from grape.store import EpisodeStore
from grape.training import TrainSettings, run_train
from tests.installed_examples import installed_example

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "own_policy"


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """What ``pip install examples/own_policy`` leaves behind: the module, and its entry points."""
    with installed_example(EXAMPLE, "own_policy", tmp_path_factory.mktemp("site")):
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    from own_policy import OwnPolicy

    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    OwnPolicy().save(folder)
    return folder


def test_the_page_shows_the_code_that_runs_here():
    page = (ROOT / "docs" / "own-policy.md").read_text()
    for name in ("own_policy.py", "pyproject.toml"):
        assert (EXAMPLE / name).read_text().strip() in page, f"docs/own-policy.md does not show {name} as it is"


def test_its_checkpoints_are_recognized_and_others_are_refused_with_what_is_known(checkpoint, tmp_path):
    assert "own_policy" in policy_type_names()
    assert recognize_policy(checkpoint)[0].name == "own_policy"
    assert recognize_policy(f"own_policy:{checkpoint}")[1] == str(checkpoint)
    policy = open_policy(f"own_policy:{checkpoint}")
    assert isinstance(policy, TrainablePolicy)
    assert policy.spec.policy_hash == open_policy(checkpoint, OpeningOptions(device="cpu")).spec.policy_hash
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of"}')
    with pytest.raises(SettingsError, match="openvla, openvla-oft, own_policy"):
        recognize_policy(tmp_path)
    with pytest.raises(SettingsError, match="Did you mean 'own_policy'"):
        get_policy_type("own-policy")
    with pytest.raises(SettingsError, match="cannot be trained with adapters"):
        policy.lora_targets()


def test_a_program_registers_a_type_for_itself_and_may_do_so_again(checkpoint, tmp_path, monkeypatch):
    from own_policy import OwnPolicyType

    class Mine(OwnPolicyType):
        def recognizes(self, config, names):
            return config.get("model_type") == "mine"

    class Changed(Mine):
        pass

    monkeypatch.setattr("grape.policies.registry._of_this_process", {})
    shutil.copytree(checkpoint, tmp_path / "mine")
    (tmp_path / "mine" / "config.json").write_text('{"model_type": "mine"}')
    with pytest.raises(SettingsError, match="mine"):
        recognize_policy(tmp_path / "mine")
    for kind in (Mine, Changed):  # a cell of a notebook that runs a second time
        register_policy_type("in-memory", kind)
        assert type(recognize_policy(tmp_path / "mine")[0]) is kind
    assert "in-memory" in policy_type_names()
    opened = open_policy(f"in-memory:{tmp_path / 'mine'}")
    assert opened.spec.policy_hash == open_policy(checkpoint).spec.policy_hash


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("openvla", "'openvla' cannot name"), ("expert", "'expert' cannot name"), ("a:b", "'a:b' cannot name"),
        ("", "'' cannot name"), ("number", "no class of policy types"), ("abstract", "cannot be made: TypeError"),
        ("needs", "Needs cannot be made: TypeError"),
    ],
)  # fmt: skip
def test_what_cannot_be_registered_is_refused(name, what, monkeypatch):
    from own_policy import OwnPolicyType

    class Needs(OwnPolicyType):
        def __init__(self, place):
            self.place = place

    monkeypatch.setattr("grape.policies.registry._of_this_process", {})
    kind = {"number": int, "abstract": PolicyType, "needs": Needs}.get(name, OwnPolicyType)
    before = policy_type_names()
    with pytest.raises(SettingsError, match=what):
        register_policy_type(name, kind)
    assert policy_type_names() == before


def test_a_row_is_the_same_in_any_batch_and_executed_tokens_alone_have_a_gradient(checkpoint):
    policy = open_policy(checkpoint)
    rng = np.random.default_rng(0)
    seen = [Observation(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), np.zeros(3, np.float32), "x") for _ in "abc"]
    batch = policy.act(seen, temperature=1.0, seeds=[1, 2, 3])
    assert batch.actions.shape == (3, 2, 7)
    np.testing.assert_array_equal(policy.act(seen[1:2], temperature=1.0, seeds=[2]).logps, batch.logps[1:2])
    tokens, executed = torch.from_numpy(batch.tokens).long(), torch.tensor([2, 1, 0])
    logps = policy.decision_logps(policy.encode(seen), tokens, executed)
    expected = [batch.logps[0].sum(), batch.logps[1, :1].sum(), 0.0]
    np.testing.assert_allclose(logps.detach(), expected, rtol=1e-5)
    logps[2].backward()
    assert all(float(p.grad.abs().sum()) == 0.0 for p in policy.module.parameters())


def test_collect_score_pair_train_evaluate(checkpoint, tmp_path):
    collected = run_collect(
        CollectSettings(
            out=tmp_path / "rollouts",
            suite="toy",
            tasks="0",
            policy=str(checkpoint),
            initial_states="0-5",
            samples=4,
            temperature=1.0,
            workers=1,
        )
    )
    store = EpisodeStore.open(tmp_path / "rollouts" / "store")
    episode = store.read(store.ids()[0])
    assert episode.chunks is not None
    assert episode.chunks.facts() == (2, "window", 1.0)
    assert collected["episodes"] == 24
    run_score(ScoreSettings(store=tmp_path / "rollouts", out=tmp_path / "scores"))
    pairs = run_pair(PairSettings(scores=tmp_path / "scores", out=tmp_path / "pairs"))
    assert pairs["pairs"] > 0
    train = TrainSettings(
        pairs=tmp_path / "pairs", policy=checkpoint, out=tmp_path / "run", max_updates=4, epochs=4, lr=0.01
    )
    plan = run_train(dataclasses.replace(train, dry_run=True))
    assert plan["updates"] == 4
    trained = run_train(train)
    assert trained["metrics"]["rewards/margins"] > 0
    assert trained["policy_hash"] == open_policy(trained["policy"]).spec.policy_hash != episode.meta.policy_hash
    with pytest.raises(SettingsError, match="cannot be trained with adapters"):
        run_train(dataclasses.replace(train, out=tmp_path / "adapter", lora_rank=2))
    result = run_evaluate(
        EvaluateSettings(
            out=tmp_path / "evaluation", policy=trained["policy"], suite="toy", tasks="0", episodes=4, workers=1
        )
    )
    assert result["episodes"] == 4


def test_loop(checkpoint, tmp_path):
    settings = LoopSettings(
        out=tmp_path / "loop",
        suite="toy",
        tasks="0",
        policy=str(checkpoint),
        iterations=1,
        states_per_iteration=6,
        validation_states=4,
        test_states=4,
        report=False,
    )
    settings = dataclasses.replace(
        settings,
        collect=dataclasses.replace(settings.collect, samples=4, temperature=1.0, workers=1),
        train=dataclasses.replace(settings.train, max_updates=2),
    )
    assert run_loop(settings)["iterations"] == 1


def test_states_it_was_trained_on_are_warned_of_however_it_is_named(checkpoint, tmp_path):
    folder = tmp_path / "trained"
    shutil.copytree(checkpoint, folder)
    (folder / "provenance.json").write_text('{"collected": {"toy": {"reach-red": "0-3"}}}')
    for name in (str(folder), f"own_policy:{folder}"):
        settings = EvaluateSettings(out=tmp_path / "out", policy=name, suite="toy", tasks="0", dry_run=True)
        plan = run_evaluate(dataclasses.replace(settings, initial_states="2-5"))
        assert plan["seen_states"] == {"reach-red": "2-3"}
