"""The verb predict for policies that decide in chunks: golden decisions through the command line, and mistakes."""

import json

import numpy as np
import pytest
from PIL import Image

from grape.checkpoints import PredictSettings, run_predict
from grape.cli.main import main
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.policies.openvla import create_nano, save_policy
from grape.policies.openvla_oft.saving import save_oft_policy
from tests.openvla_oft.conftest import GOLDEN, LIBERO, TWIN, make_nano, nano_statistics

HEAD, PROJECTOR = "libero/action_head--1_checkpoint.pt", "libero/proprio_projector--1_checkpoint.pt"


def image(number):
    return str(GOLDEN / f"openvla/images/img{number}.png")


def predict(capsys, *words):
    code = main(["predict", *words, "--json", "--device", "cpu"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out)


@pytest.mark.parametrize("preset", ["openvla-oft", "simplevla-rl", "rlinf"])
def test_golden_decisions(golden, capsys, preset):
    case = golden.json("cases")["cases"][9]
    code, reply = predict(
        capsys, "--policy", str(golden.checkpoint()), "--preset", preset, "--image", image(case["image"]),
        "--instruction", case["instruction"], "--unnorm-key", LIBERO,
    )  # fmt: skip
    assert code == 0
    assert np.shape(reply["actions"]) == np.shape(reply["tokens"]) == np.shape(reply["logps"]) == (8, 7)
    if preset == "rlinf":
        due, logps = golden.tensors("rlinf")["greedy_tokens"][9], golden.tensors("rlinf")["logps_greedy_T1.6"][9]
    elif preset == "simplevla-rl":
        due = golden.tensors("simplevla")["greedy_tokens"][9]
        logps = golden.tensors("simplevla")["logps_all_greedy_T1.6"][1, 2]
    else:
        due, logps = case["greedy_tokens_full_vocabulary"], None
        np.testing.assert_allclose(reply["actions"], case["actions"], atol=1e-12, rtol=0)
        np.testing.assert_allclose(reply["normalised"], case["normalised"], atol=1e-15)
    assert np.ravel(reply["tokens"]).tolist() == list(map(int, due))
    if logps is not None:
        np.testing.assert_allclose(np.ravel(reply["logps"]), logps, atol=5e-4)
    assert reply["logp"] == pytest.approx(np.sum(reply["logps"]), abs=1e-4)
    expected = ("vocabulary", 1.0) if preset == "openvla-oft" else ("window", 1.6)
    assert (reply["support"], reply["temperature"]) == expected
    assert (reply["preset"], reply["head"], reply["center_crop"]) == (preset, "tokens", False)
    assert reply["conventions"]["stop_row"] == ("removed" if preset == "rlinf" else "kept")


def test_l1_head_with_wrist_and_robot_state(golden, capsys):
    case = golden.json("l1")["cases"][7]
    words = [
        "--policy", str(golden.checkpoint(HEAD, PROJECTOR)), "--image", image(case["image"]), "--wrist",
        image(case["wrist_image"]), "--instruction", case["instruction"], "--unnorm-key", LIBERO,
    ]  # fmt: skip
    for given in (["--proprio", *map(str, case["proprio"])], [f"--proprio={','.join(map(str, case['proprio']))}"]):
        code, reply = predict(capsys, *words, *given)
        assert code == 0
        np.testing.assert_allclose(reply["actions"], case["actions"], atol=1e-4)
        assert [reply[name] for name in ("tokens", "logps", "logp", "in_range", "support")] == [None] * 5
        assert [row["file"] for row in reply["images"]] == [image(case["image"]), image(case["wrist_image"])]
    assert main(["predict", *words, "--proprio", *map(str, case["proprio"])]) == 0
    assert "L1 regression head" in capsys.readouterr().out


def test_two_arms_three_cameras(golden, capsys):
    case = golden.json("twin")["cases"][2]
    main_image, *others = map(image, case["images"])
    code, reply = predict(
        capsys, "--policy", str(golden.checkpoint("twin/proprio_projector--1_checkpoint.pt")), "--preset",
        "openvla-oft", "--image", main_image, "--wrist", *others, "--proprio", *map(str, case["proprio"]),
        "--instruction", case["instruction"], "--unnorm-key", TWIN,
    )  # fmt: skip
    assert code == 0
    assert np.ravel(reply["tokens"]).tolist() == case["greedy_tokens_full_vocabulary"]
    np.testing.assert_allclose(reply["actions"], case["actions"], atol=1e-12, rtol=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "policy"
    save_oft_policy(make_nano(cameras=("agentview", "wrist"), proprio_dim=4), folder)
    return str(folder)


@pytest.fixture
def pixels(tmp_path):
    path = tmp_path / "frame.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path


def test_a_checkpoint_that_says_how_it_is_run_needs_no_preset(saved, pixels, capsys):
    words = ["--policy", saved, "--image", str(pixels), "--wrist", str(pixels), "--instruction", "Open the drawer"]
    words += ["--proprio", "-1e-05", "0.1", "-.5", "1"]
    code, reply = predict(capsys, *words)
    assert code == 0
    assert np.shape(reply["actions"]) == (3, 7)
    assert (reply["preset"], reply["support"]) == (None, "window")
    changed = predict(capsys, *words, "--convention", "attention=causal", "temperature=2")[1]
    assert changed["logps"] != reply["logps"]
    assert (changed["conventions"]["attention"], changed["temperature"]) == ("causal", 2.0)
    cropped = predict(capsys, *words, "--center-crop", "yes")[1]
    assert cropped["center_crop"]
    assert cropped["logps"] != reply["logps"]
    assert main(["predict", *words]) == 0
    captured = capsys.readouterr()
    for text in ("gripper", "attention bidirectional", "over the window, temperature 1", "cpu float32"):
        assert text in " ".join(captured.out.split())


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"proprio": ()}, CompatibilityError, "reads 4 numbers.*none are given"),
        ({"proprio": (1.0, 2.0)}, CompatibilityError, "reads 4 numbers.*2 are given"),
        ({"wrist": ()}, CompatibilityError, "1 cameras.*reads 2"),
        ({"chunk": 9}, CompatibilityError, "chunk of 9 actions is asked for; the checkpoint decides 3"),
        ({"preset": "simplevla"}, SettingsError, "Did you mean 'simplevla-rl'"),
        ({"convention": ("stop=kept",)}, SettingsError, "convention"),
        ({"unnorm_key": "libero"}, SettingsError, "unnorm_key"),
        ({"attention": "flash-attention-2"}, SettingsError, "GPU|CUDA|flash"),
    ],
)
def test_mistakes_are_found_before_weights_are_read(saved, pixels, tmp_path, monkeypatch, changes, error, words):
    def never(*args, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr("grape.policies.openvla_oft.loading.load_weights", never)
    robot_inputs = {"wrist": (pixels,), "proprio": (0.0, 0.0, 0.0, 0.0), **changes}
    with pytest.raises(error, match=words):
        run_predict(PredictSettings(saved, pixels, "open the drawer", **robot_inputs))


def test_numbers_and_images_that_are_none(saved, pixels, tmp_path, capsys):
    robot_inputs = {"wrist": (pixels,), "proprio": (0.0, 0.0, 0.0, float("nan"))}
    with pytest.raises(SettingsError, match="not finite"):
        run_predict(PredictSettings(saved, pixels, "open the drawer", **robot_inputs))
    with pytest.raises(DataError, match="no image"):
        run_predict(PredictSettings(saved, pixels, "open the drawer", wrist=(tmp_path / "wrist.png",)))
    words = ["predict", "--policy", saved, "--image", str(pixels), "--instruction", "go", "--proprio", "1,x"]
    assert main(words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_settings_of_chunks_are_refused_for_plain_openvla(golden, pixels):
    folder = str(golden.checkpoint())
    with pytest.raises(SettingsError, match=r"plain OpenVLA.*--wrist\), --convention cannot be used(.|\n)*--preset"):
        run_predict(
            PredictSettings(folder, pixels, "go", unnorm_key=LIBERO, wrist=(pixels,), convention=("stop-row=kept",))
        )


def test_a_decision_hashes_no_weights(tmp_path, monkeypatch):
    """Hashing takes seconds a gigabyte, and nothing here needs it."""
    nano = make_nano()
    save_oft_policy(nano, tmp_path / "oft")
    save_policy(create_nano(seed=0, norm_stats=nano_statistics(), gripper=""), tmp_path / "plain")
    Image.new("RGB", (64, 64)).save(tmp_path / "image.png")
    monkeypatch.setattr("grape.policies.openvla.policy.hash_weights", None)
    for kind in ("oft", "plain"):
        reply = run_predict(PredictSettings(str(tmp_path / kind), tmp_path / "image.png", "open the drawer"))
        assert np.isfinite(reply["logp"])
