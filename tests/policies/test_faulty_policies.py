"""Policies of other distributions that do not keep their contract: told, and nothing recorded."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from grape.checkpoints import PredictSettings, run_predict
from grape.cli.main import main
from grape.collect import CollectSettings, run_collect, run_episode
from grape.core.errors import CompatibilityError, PolicyError, SettingsError
from grape.policies import ActionBatch, OpeningOptions, PolicySpec
from grape.policies.deciding import decide
from grape.policies.registry import open_policy, recognize_policy

MODULE = """
import dataclasses

import numpy as np

from grape.policies import ActionBatch, PolicySpec, PolicyType

SPEC = PolicySpec(7, 8, "+1 closes", "", "weights", "pixels", chunk=2, support="window")


class Faulty:
    def __init__(self, fault):
        self.fault = fault
        self.spec = dataclasses.replace(SPEC, **({"chunk": 0} if fault == "no chunk" else {}))

    def prompt(self, instruction):
        return instruction

    def act(self, observations, *, temperature=0.0, seeds=None):
        if self.fault == "raises later":
            raise OSError("the key is gone")
        rows = len(observations) + {"a row more": 1, "a row less": -1}.get(self.fault, 0)
        shape = (rows, 3 if self.fault == "longer chunk" else 2, 6 if self.fault == "dimension" else 7)
        logps = np.full(shape, np.nan if self.fault == "nan" else -1.0, np.float32)
        actions, tokens = np.zeros(shape), np.zeros(shape, np.int32)
        if self.fault == "no tokens":
            return ActionBatch(actions)
        if self.fault == "lists":
            return ActionBatch(actions.tolist(), tokens, logps, "window")
        if self.fault == "bare":
            return actions
        support = "vocabulary" if self.fault == "support" else "window"
        return ActionBatch(actions, tokens, logps, support, 1.6 if self.fault == "temperature" else 1.0)


class FaultyType(PolicyType):
    def recognizes(self, config, names):
        return config["kind"] == "faulty"

    def open(self, path, options):
        return {"raises": lambda: {}["weights"], "nothing": lambda: None}.get(path, lambda: Faulty(path))()
"""


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    (site / "faulty.py").write_text(MODULE)
    info = site / "faulty-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[grape.policies]\nabsent = absent:Type\nfaulty = faulty:FaultyType\n")
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(site))
    sys.modules.pop("faulty", None)


def collect(policy: str, out: Path, **changes):
    settings = CollectSettings(
        out=out, suite="toy", tasks="0", policy=policy, initial_states="0", samples=2, temperature=1.0, workers=1
    )
    return run_collect(dataclasses.replace(settings, **changes))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no chunk", "a chunk of 0 actions"),
        ("a row more", r"\(3, 2, 7\) for 2 observations"),
        ("a row less", r"\(1, 2, 7\) for 2 observations"),
        ("longer chunk", r"\(2, 3, 7\)"),
        ("dimension", r"\(2, 2, 6\)"),
        ("nan", "not finite"),
        ("no tokens", "over none; its contract says 'window'"),
        ("lists", "as list, not as NumPy arrays"),
        ("bare", "ndarray, not an ActionBatch"),
        ("support", "'vocabulary' at 1; its contract says 'window' at 1"),
        ("temperature", "'window' at 1.6"),
    ],
)
def test_decisions_that_break_the_contract_are_refused_and_nothing_is_recorded(fault, words, tmp_path):
    with pytest.raises(PolicyError, match=words):
        collect(f"faulty:{fault}", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_an_exception_of_act_is_told_with_type_place_and_decision(tmp_path, capsys):
    words = (
        r"Faulty.act raised OSError: the key is gone \(faulty.py, line \d+\), at decision 0 of reach-red-i000000-k00"
    )
    with pytest.raises(PolicyError, match=words) as caught:
        collect("faulty:raises later", tmp_path / "out")
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(PolicyError, match=words):
        run_episode(open_policy("faulty:raises later"), "toy", "reach-red", initial_state=0)
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    call = ["predict", "--policy", "faulty:raises later", "--image", str(tmp_path / "image.png"), "--instruction", "x"]
    assert main(call) == PolicyError.exit_code
    assert "Faulty.act raised OSError" in (printed := capsys.readouterr().err)
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "fewer --lanes"),
        (ConnectionResetError("by peer"), "is there, then run the command again"),
        (ValueError("no"), "fault of the policy's implementation"),
    ],
)
def test_what_to_do_depends_on_what_is_raised(error, advice):
    policy = open_policy("faulty:ok")
    policy.act = Mock(side_effect=error)
    with pytest.raises(PolicyError) as caught:
        decide(policy, policy.spec, [], where="the first decision")
    assert advice in caught.value.hint


def test_a_policy_that_keeps_it_is_collected(tmp_path):
    assert collect("faulty:ok", tmp_path / "out")["episodes"] == 2


def test_exceptions_of_a_type_are_told_with_their_place():
    with pytest.raises(SettingsError, match=r"'faulty' could not open raises: KeyError: 'weights' \(faulty.py, line"):
        open_policy("faulty:raises")
    with pytest.raises(SettingsError, match="NoneType"):
        open_policy("faulty:nothing")


def test_options_that_a_type_does_not_take_are_refused(tmp_path):
    for options in (
        OpeningOptions(preset="rlinf"),
        OpeningOptions(convention=("attention=causal",)),
        OpeningOptions(chunk=2),
        OpeningOptions(unnorm_key="toy"),
        OpeningOptions(center_crop=False),
        OpeningOptions(load_in_4bit=True),
        OpeningOptions(norm_stats={}),
    ):
        with pytest.raises(SettingsError, match="have no use for --"):
            open_policy("faulty:ok", options)
    with pytest.raises(SettingsError, match="no use for --preset"):
        collect("faulty:ok", tmp_path / "out", preset="rlinf")
    assert open_policy("faulty:ok", OpeningOptions(device="cuda", dtype="bfloat16")).spec.chunk == 2


def test_a_broken_type_hides_no_other_and_is_named_where_none_fits(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x", "kind": "faulty"}))
    assert recognize_policy(tmp_path)[0].name == "faulty"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x"}))
    with pytest.raises(SettingsError, match=r"No policy type that works.*'absent'.*KeyError: 'kind'"):
        recognize_policy(tmp_path)


def test_predict_shows_any_policy_and_refuses_what_it_does_not_read(tmp_path, capsys):
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    words = ["predict", "--policy", "faulty:ok", "--image", str(image), "--instruction", "go"]
    assert main(words) == 0
    assert "-14.0000" in capsys.readouterr().out
    settings = PredictSettings(policy="faulty:ok", image=image, instruction="go")
    assert run_predict(settings)["actions"] == [[0.0] * 7] * 2
    for changes in ({"wrist": (image,)}, {"proprio": (1.0,)}):
        with pytest.raises(CompatibilityError, match=r"reads 1 image\(s\) and 0 number"):
            run_predict(dataclasses.replace(settings, **changes))


def test_contracts_that_no_episode_can_record_are_refused():
    stated = {
        "action_dim": 7,
        "image_size": 8,
        "gripper": "",
        "unnorm_key": "",
        "policy_hash": "",
        "preprocessing_hash": "",
    }
    for wrong in (
        {"chunk": 0},
        {"cameras": ()},
        {"cameras": ("agentview", "agentview")},
        {"support": "mine"},
        {"support": ""},
        {"logp_temperature": 0.0},
        {"logp_temperature": float("nan")},
    ):
        with pytest.raises(PolicyError, match="A policy states"):
            PolicySpec(**stated, **wrong)
    assert PolicySpec(**stated, support="", logp_temperature=0.0).support == ""
    with pytest.raises(PolicyError, match="NumPy"):
        ActionBatch([[[0.0]]])
