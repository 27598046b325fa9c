"""Kinds of checkpoints, what is refused before weights are read, and saving."""

import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.policies.kinds import recognize_checkpoint
from grape.policies.opening import read_checkpoint_kind
from grape.policies.openvla import load_policy
from grape.policies.openvla_oft.conventions import PRESETS
from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy, read_oft_policy
from grape.policies.openvla_oft.parts import L1ActionHead
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.policies.registry import read_checkpoint_info
from grape.policies.types import OpeningOptions
from tests.hub.listing import list_on_hub
from tests.openvla_oft.conftest import LIBERO, TWIN, make_nano, nano_inputs

OPENVLA = {"model_type": "openvla"}
HEAD, PROJECTOR = "action_head--150000_checkpoint.pt", "proprio_projector--latest_checkpoint.pt"


@pytest.mark.parametrize(
    ("config", "names", "kind"),
    [
        (OPENVLA, ["model.safetensors"], ("openvla", "tokens", "", "")),
        (OPENVLA, [PROJECTOR], ("openvla-oft", "tokens", "", PROJECTOR)),
        (OPENVLA, [HEAD], ("openvla-oft", "l1", HEAD, "")),
        (OPENVLA, [HEAD, PROJECTOR, "lora_adapter"], ("openvla-oft", "l1", HEAD, PROJECTOR)),
        ({**OPENVLA, "grape": {"oft": {}}}, [], ("openvla-oft", "tokens", "", "")),
        ({**OPENVLA, "grape": {"preset": "nano"}}, ["action_heads.pt"], ("openvla", "tokens", "", "")),
    ],
)
def test_kinds(config, names, kind):
    kind_of_checkpoint = recognize_checkpoint(config, names)
    assert (
        kind_of_checkpoint.name,
        kind_of_checkpoint.head,
        kind_of_checkpoint.action_head,
        kind_of_checkpoint.proprio_projector,
    ) == kind
    assert bool(kind_of_checkpoint.reason) == (kind_of_checkpoint.name == "openvla-oft")


@pytest.mark.parametrize(
    ("config", "names", "words"),
    [
        (OPENVLA, [HEAD, "noisy_action_projector--5_checkpoint.pt"], "diffusion head"),
        (OPENVLA, ["vision_backbone--5_checkpoint.pt"], "FiLM"),
        (OPENVLA, [HEAD, "action_head--5_checkpoint.pt"], "2 files of one part"),
        ({"model_type": "pi0"}, [], "type 'pi0'; policies known here: openvla, openvla-oft"),
        ([], [], "type None"),
    ],
)
def test_kinds_that_are_refused(config, names, words):
    with pytest.raises(SettingsError, match=words):
        recognize_checkpoint(config, names)


@pytest.fixture
def copy(golden, tmp_path):
    def copied(*parts):
        shutil.copytree(golden.checkpoint(*parts), tmp_path / "copy")
        return tmp_path / "copy"

    return copied


HEADS = ("libero/action_head--1_checkpoint.pt", "libero/proprio_projector--1_checkpoint.pt")


def test_an_l1_checkpoint_is_never_run_as_tokens(golden):
    folder = golden.checkpoint(*HEADS)
    with pytest.raises(SettingsError, match="OpenVLA-OFT, not of OpenVLA"):
        load_policy(folder, unnorm_key=LIBERO)
    policy = golden.policy("simplevla-rl", *HEADS)
    inputs = policy.encode_images([[golden.images[0]]], ["go"], np.zeros((1, 8)))
    with pytest.raises(Exception, match="no action tokens"):
        policy.model.token_logps(inputs, torch.zeros(1, 8, 7, dtype=torch.long))
    with pytest.raises(Exception, match="no action tokens"):
        policy.decision_logps(inputs, torch.zeros(1, 8, 7, dtype=torch.long), torch.tensor([8]))
    with pytest.raises(SettingsError, match="cannot sample"):
        policy.decide(inputs, temperature=1.0, seeds=[1])
    assert policy.decide(inputs).tokens is None


def test_a_token_checkpoint_needs_a_preset(golden):
    with pytest.raises(SettingsError, match="Choose a --preset"):
        load_oft_policy(golden.checkpoint(HEADS[1]), OFTChoices(unnorm_key=LIBERO))


@pytest.mark.parametrize(
    ("parts", "choices", "words"),
    [
        (HEADS, {"unnorm_key": TWIN}, "14 dimensions, the action head decides 7"),
        (HEADS[1:], {"unnorm_key": TWIN, "preset": "rlinf"}, "states of 14 dimensions.*reads 8"),
        (HEADS[1:], {"unnorm_key": "nomask_dataset", "preset": "rlinf"}, "none of the robot's state|robot states of"),
        (HEADS[1:], {"unnorm_key": LIBERO, "preset": "rlinf", "proprio_dim": 7}, "reads 8 numbers.*7 are given"),
        ((), {"unnorm_key": LIBERO, "preset": "rlinf", "proprio_dim": 8}, "reads no numbers.*8 are given"),
        ((), {"unnorm_key": LIBERO, "preset": "rlinf", "chunk": 300}, "take 2358 positions; the network has 2048"),
        ((), {"unnorm_key": LIBERO, "preset": "rlinf", "cameras": 9}, "9 cameras and 8 actions"),
        ((), {"unnorm_key": LIBERO, "preset": "rlinf", "chunk": 0}, "--chunk is 0"),
        ((), {"unnorm_key": "libero_goal", "preset": "rlinf"}, "unnorm_key"),
        ((), {"preset": "rlinf"}, "choose one"),
        ((), {"unnorm_key": LIBERO, "preset": "openvla"}, "preset"),
    ],
)
def test_what_does_not_fit_is_found_without_weights(copy, parts, choices, words):
    folder = copy(*parts)
    (folder / "model.safetensors").unlink()
    with pytest.raises((SettingsError, CompatibilityError, DataError), match=words):
        load_oft_policy(folder, OFTChoices(**choices))


def test_statistics_are_found_under_the_published_suffix(golden):
    policy = read_oft_policy(golden.checkpoint(), OFTChoices("rlinf", unnorm_key="libero_spatial"))
    assert policy.unnorm_key == LIBERO


class _Trap:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", ["cut", "pickle", "list", "foreign", "expanded"])
def test_a_damaged_part_is_an_error_and_runs_nothing(copy, content, capsys):
    folder = copy(*HEADS)
    path = folder / "action_head--1_checkpoint.pt"
    if content == "cut":
        path.write_bytes(path.read_bytes()[:2000])
    elif content == "pickle":
        path.write_bytes(pickle.dumps(_Trap()))
    elif content == "list":
        torch.save([1], path)
    elif content == "foreign":
        torch.save({"model.fc1.weight": torch.zeros(3, 3), "model.fc2.weight": torch.zeros(7, 3)}, path)
    else:
        torch.save({"model.fc1.weight": torch.zeros(1).expand(10**6, 10**6)}, path)
    with pytest.raises(DataError, match=r"action_head--1_checkpoint\.pt"):
        load_oft_policy(folder, OFTChoices(unnorm_key=LIBERO))
    assert "run" not in capsys.readouterr().out


def test_parts_on_the_hub_are_fetched_with_the_weights_and_others_refused_before(copy, monkeypatch):
    folder, patterns_requested = copy(*HEADS), []

    def snapshot_download(repository, **options):
        patterns_requested.append(options["allow_patterns"])
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    names = [path.name for path in folder.iterdir()]
    list_on_hub(monkeypatch, names)
    assert not load_oft_policy("somebody/oft", OFTChoices(unnorm_key=LIBERO)).has_logps
    assert "action_head--*.pt" in patterns_requested[-1]
    patterns_requested.clear()
    names.append("noisy_action_projector--1_checkpoint.pt")
    with pytest.raises(SettingsError, match="diffusion head"):
        load_oft_policy("somebody/oft", OFTChoices(unnorm_key=LIBERO))
    assert not [
        pattern
        for patterns in patterns_requested
        for pattern in patterns
        if "safetensors" in pattern or ".pt" in pattern
    ]


@pytest.mark.parametrize("parts", [(), HEADS[1:], HEADS])
def test_a_saved_checkpoint_is_as_published_and_says_how_it_is_run(golden, tmp_path, parts):
    cameras = 2 if parts else 1
    policy = golden.policy("rlinf", *parts, cameras=cameras)
    save_oft_policy(policy, tmp_path / "saved")
    source = golden.checkpoint()
    assert json.loads((tmp_path / "saved/config.json").read_text()) == json.loads((source / "config.json").read_text())
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "saved"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    facts = json.loads((tmp_path / "saved/grape.json").read_text())
    assert facts["oft"]["conventions"] == policy.conventions.to_json()
    kind = read_checkpoint_kind(tmp_path / "saved")
    assert (kind.name, kind.stated, kind.head) == ("openvla-oft", True, "l1" if len(parts) == 2 else "tokens")
    again = load_oft_policy(tmp_path / "saved")
    assert (again.conventions, again.layout, again.unnorm_key) == (policy.conventions, policy.layout, LIBERO)
    assert again.preprocessing_hash == policy.preprocessing_hash
    assert again.spec.policy_hash == policy.spec.policy_hash
    state = np.zeros((1, 8)) if parts else None
    batches = [
        one.decide(one.encode_images([golden.images[:cameras]], ["open the drawer"], state)) for one in (policy, again)
    ]
    assert np.array_equal(batches[0].actions, batches[1].actions)
    with pytest.raises(SettingsError, match="OpenVLA-OFT"):
        load_policy(tmp_path / "saved")


def test_a_nano_policy_is_saved_and_read_back(tmp_path):
    policy = make_nano(cameras=("agentview", "wrist"), proprio_dim=4)
    save_oft_policy(policy, tmp_path / "policy")
    again = load_oft_policy(tmp_path / "policy")
    assert again.spec == policy.spec
    inputs = nano_inputs(policy, ["open the drawer"])
    assert np.array_equal(policy.decide(inputs).logps, again.decide(nano_inputs(again, ["open the drawer"])).logps)
    # one preset of another stack, whose crop and support are others
    other = load_oft_policy(tmp_path / "policy", OFTChoices("openvla-oft", ("prompt-tail=none",)))
    assert other.conventions == dataclasses.replace(PRESETS["openvla-oft"], prompt_tail="none")
    assert other.layout == policy.layout
    for choices, words in [
        (OFTChoices(chunk=4), "chunk of 4 actions.*decides 3"),
        (OFTChoices(cameras=1), r"1 cameras are given; the checkpoint reads 2 \(agentview, wrist\)"),
        (OFTChoices(cameras=3), "3 cameras"),
    ]:
        with pytest.raises(CompatibilityError, match=words):
            load_oft_policy(tmp_path / "policy", choices)


def test_what_a_checkpoint_states_must_fit_its_files(tmp_path):
    save_oft_policy(make_nano(proprio_dim=4), tmp_path / "policy")
    path = tmp_path / "policy/config.json"
    whole = json.loads(path.read_text())
    del whole["grape"]["oft"]["conventions"]["support"]
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match=r"grape\.oft\.conventions lacks support"):
        load_oft_policy(tmp_path / "policy")
    save_oft_policy(make_nano(proprio_dim=4), tmp_path / "policy")
    (tmp_path / "policy/proprio_projector--0_checkpoint.pt").unlink()
    with pytest.raises(CompatibilityError, match="states that it reads 4 numbers"):
        load_oft_policy(tmp_path / "policy")


def test_a_lost_action_head_does_not_turn_a_policy_into_one_with_tokens(golden, tmp_path):
    save_oft_policy(golden.policy("", *HEADS), tmp_path / "policy")
    (tmp_path / "policy/action_head--0_checkpoint.pt").unlink()
    for choices in (OFTChoices(), OFTChoices("simplevla-rl")):
        with pytest.raises(CompatibilityError, match=r"an L1 regression head.*its files give action tokens"):
            load_oft_policy(tmp_path / "policy", choices)


def test_the_l1_head_reads_the_rows_of_an_action_together():
    head = L1ActionHead(1, 4, 8, 2)
    rows = torch.randn(1, 6, 4)
    moved = rows.clone()
    moved[:, 3] += 1.0
    changed = (head(moved) - head(rows)).abs().sum(-1)[0]
    assert (changed > 0).tolist() == [False, True, False]


def test_a_preset_and_single_conventions_say_whether_images_are_cropped(golden, tmp_path):
    plain = golden.checkpoint()
    save_oft_policy(make_nano(), tmp_path)
    for policy, options, crop in (
        (plain, OpeningOptions(), None),
        (plain, OpeningOptions(preset="rlinf"), False),
        (plain, OpeningOptions(preset="simplevla-rl"), True),
        (plain, OpeningOptions(preset="rlinf", convention=("center-crop=yes",)), True),
        (tmp_path, OpeningOptions(), False),
        (tmp_path, OpeningOptions(preset="openvla-oft"), True),
    ):
        assert read_checkpoint_info(policy, options).center_crop is crop
