"""The verb predict: the golden actions through the command line, and every mistake a first user makes."""

import json

import numpy as np
import pytest
from PIL import Image

from grape.checkpoints import PredictSettings, run_predict
from grape.cli.main import main
from grape.core.errors import DataError, SettingsError
from grape.core.events import SilentReporter


@pytest.fixture
def pixels(tmp_path):
    path = tmp_path / "frame.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path


def test_golden_actions(golden, capsys):
    cases = json.loads((golden / "predict_action.json").read_text())
    for case in (cases[0], next(case for case in cases if case["unnorm_key"] == "nomask_dataset")):
        words = ["predict", "--policy", str(golden / "ckpt"), "--instruction", case["instruction"]]
        words += ["--image", str(golden / f"images/img{case['image']}.png"), "--unnorm-key", case["unnorm_key"]]
        assert main([*words, "--json", "--device", "cpu"]) == 0
        reply = json.loads(capsys.readouterr().out)
        assert reply["tokens"] == case["generated"]
        np.testing.assert_allclose(reply["action"], case["action"], atol=1e-12, rtol=0)
        np.testing.assert_allclose(reply["logps"], case["token_logp"], atol=5e-4)
        assert reply["logp"] == pytest.approx(sum(reply["logps"]), abs=1e-5)
        assert reply["prompt"] == case["prompt"]
        assert reply["in_range"] == [True] * 7


def test_the_table_for_people(nano, pixels, capsys):
    words = ["predict", "--policy", str(nano), "--image", str(pixels), "--instruction", "Open the drawer"]
    assert main(words) == 0
    captured = capsys.readouterr()
    for word in ("gripper", "token", "probability", "open the drawer?", "grape", "cpu float32"):
        assert word in captured.out
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["policy"] == str(nano)
    assert "gripper" in captured.err


def test_a_crop_changes_what_is_seen_and_is_said(nano, pixels):
    replies = {
        crop: run_predict(PredictSettings(str(nano), pixels, "open the drawer", center_crop=crop))
        for crop in ("auto", "no", "yes")
    }
    assert replies["auto"] == replies["no"]
    assert not replies["auto"]["center_crop"]
    assert replies["yes"]["center_crop"]
    assert replies["yes"]["logps"] != replies["no"]["logps"]


def test_tokens_beyond_the_action_range_are_marked(nano, pixels, monkeypatch):
    class Hearing(SilentReporter):
        warnings: list[str] = []  # noqa: RUF012

        def warn(self, message):
            self.warnings.append(message)

    from grape.policies.openvla import OpenVLAPolicy

    monkeypatch.setattr(OpenVLAPolicy, "action_token_ids", property(lambda self: np.array([-1])))
    reply = run_predict(PredictSettings(str(nano), pixels, "open the drawer"), Hearing())
    assert reply["in_range"] == [False] * 7
    assert "no action tokens" in Hearing.warnings[0]


def test_mistakes_are_found_before_weights_are_read(nano, golden, pixels, tmp_path):
    def predict(**changes):
        fields = {"policy": str(nano), "image": pixels, "instruction": "open the drawer", **changes}
        return run_predict(PredictSettings(**fields))

    with pytest.raises(SettingsError, match="no such checkpoint folder"):
        predict(policy=str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"no config\.json"):
        predict(policy=str(tmp_path))
    with pytest.raises(SettingsError, match="is empty"):
        predict(instruction="  ")
    with pytest.raises(SettingsError, match="UTF-8"):
        predict(instruction="open \udcff")
    with pytest.raises(DataError, match="no image"):
        predict(image=tmp_path / "frame.jpg")
    with pytest.raises(SettingsError, match="choose one"):
        predict(policy=str(golden / "ckpt"))
    with pytest.raises(SettingsError, match="Did you mean 'bridge_orig'"):
        predict(policy=str(golden / "ckpt"), unnorm_key="bridge")
