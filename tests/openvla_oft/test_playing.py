"""Checkpoints with an L1 head, end to end: evaluated and collected without log-probabilities, or refused in time."""

import json
import shutil

import numpy as np
import pytest
import torch

from grape.cli.main import main
from grape.core.trajectories import Observation
from grape.envs.registry import get_suite
from grape.policies.openvla_oft.loading import OFTChoices, load_oft_policy, read_oft_policy
from grape.policies.openvla_oft.parts import L1ActionHead
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.policies.registry import open_policy, read_policy
from grape.store import EpisodeStore
from tests.hub.listing import list_on_hub
from tests.openvla_oft.conftest import LIBERO, make_nano

CHUNK, STEPS = 3, 5
HEAD, PROJECTOR = "action_head--0_checkpoint.pt", "proprio_projector--0_checkpoint.pt"
PARTS = ("libero/action_head--1_checkpoint.pt", "libero/proprio_projector--1_checkpoint.pt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A nano policy with an L1 head that reads the toy suite's robot state."""
    folder = tmp_path_factory.mktemp("l1") / "policy"
    policy = make_nano(head="l1", proprio_dim=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy.model.action_head = L1ActionHead(2, policy.config.hidden, policy.config.hidden, 7)
    save_oft_policy(policy, folder)
    return folder


def command(verb, policy, *words):
    given = ["--suite", "toy", "--tasks", "push-block", "--policy", str(policy), "--initial-states", "0-1", "--json"]
    return main([verb, *given, "--workers", "1", "--max-steps", str(STEPS), *map(str, words)])


@pytest.mark.parametrize("verb", ["evaluate", "collect"])
def test_an_l1_checkpoint_is_played_without_log_probabilities(checkpoint, tmp_path, capsys, verb):
    assert command(verb, checkpoint, "--out", tmp_path / "out", "--temperature", 0) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["episodes"] == 2
    store = EpisodeStore.open(next((tmp_path / "out").rglob("store")))
    assert store.contract["chunks"] == {"length": CHUNK, "support": "", "temperature": 0.0}
    suite, policy = get_suite("toy"), load_oft_policy(checkpoint)
    for name in store.ids():
        episode = store.read(name)
        assert episode.chunks.executed.tolist() == [CHUNK, STEPS - CHUNK]
        assert episode.chunks.tokens is None
        assert episode.chunks.logps is None
        assert np.isnan(episode.logp)
        # the actions are those of the head, un-normalized and not clipped, from the decision's image and state
        task = suite.tasks[episode.meta.task_index]
        environment = suite.make_environment(task)
        state = environment.reset(episode.meta.initial_state)
        seen = Observation(state.image, state.proprio, task.instruction)
        chunk = policy.act([seen]).actions[0].astype(np.float32)
        np.testing.assert_array_equal(episode.actions[:CHUNK], chunk)
        moved = policy.act([Observation(state.image, state.proprio + 1, task.instruction)]).actions[0]
        assert np.abs(moved - chunk).max() > 1e-3  # it reads the robot's state
    if verb == "evaluate":
        assert json.loads((tmp_path / "out/results.json").read_text())


@pytest.mark.parametrize("verb", ["evaluate", "collect"])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_sampling_is_refused_before_the_first_rollout(checkpoint, tmp_path, capsys, verb, dry):
    assert command(verb, checkpoint, "--out", tmp_path / "out", "--temperature", 0.7, *dry) == 2
    message = capsys.readouterr().err
    assert "has no action tokens and cannot sample; --temperature is 0.7" in message
    assert "Give --temperature 0." in message
    assert not (tmp_path / "out").exists()


def damaged(source, folder):
    """A copy whose weights and separate parts cannot be read."""
    shutil.copytree(source, folder)
    for path in folder.iterdir():
        if path.suffix in (".safetensors", ".pt"):
            path.write_bytes(path.read_bytes()[:100])
    return folder


@pytest.mark.parametrize("verb", ["evaluate", "collect"])
def test_dry_runs_read_the_configuration_alone(checkpoint, tmp_path, capsys, verb):
    folder = damaged(checkpoint, tmp_path / "policy")
    words = ("--out", tmp_path / "out", "--temperature", 0)
    assert command(verb, folder, *words, "--dry-run") == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 2
    assert command(verb, folder, *words) == 2
    assert "--0_checkpoint.pt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_policy_without_its_weights_is_as_with_them(golden, checkpoint, tmp_path):
    for source, choices in ((checkpoint, OFTChoices()), (golden.checkpoint(*PARTS), OFTChoices(unnorm_key=LIBERO))):
        unread = read_oft_policy(damaged(source, tmp_path / source.name), choices)
        loaded = load_oft_policy(source, choices)
        assert (unread.layout, unread.conventions) == (loaded.layout, loaded.conventions)
        assert unread.preprocessing_hash == loaded.preprocessing_hash
        weights = (unread.model.state_dict(), loaded.model.state_dict())
        unread_sizes, sizes = ({name: value.shape for name, value in part.items()} for part in weights)
        assert unread_sizes == sizes
        assert all(value.is_meta for value in unread.model.parameters())


def test_no_part_is_downloaded_for_a_dry_run(golden, tmp_path, monkeypatch):
    """Names of the repository's files say what it is."""
    source, folder, patterns_requested = golden.checkpoint(*PARTS), tmp_path / "snapshot", []
    folder.mkdir()
    for path in source.iterdir():
        if path.suffix in (".json", ".model"):
            shutil.copyfile(path, folder / path.name)

    def snapshot_download(repository, **options):
        patterns_requested.extend(options["allow_patterns"])
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    names = [path.name for path in source.iterdir()]
    list_on_hub(monkeypatch, names)
    policy = read_oft_policy("somebody/oft", OFTChoices(unnorm_key=LIBERO))
    assert (policy.has_logps, policy.layout.proprio_dim) == (False, 8)
    assert not [pattern for pattern in patterns_requested if "safetensors" in pattern or ".pt" in pattern]


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ("noisy_action_projector--1_checkpoint.pt", "acts through a diffusion head"),
        ("vision_backbone--1_checkpoint.pt", "changes its vision towers by the instruction (FiLM"),
    ],
)
@pytest.mark.parametrize("preset", [(), ("--preset", "openvla-oft")])
def test_diffusion_heads_and_film_are_refused_by_every_verb(checkpoint, tmp_path, capsys, extra, sentence, preset):
    folder = shutil.copytree(checkpoint, tmp_path / "policy")
    (folder / extra).write_bytes(b"not read")
    for verb in ("evaluate", "collect"):
        for dry in ((), ("--dry-run",)):
            assert command(verb, folder, "--out", tmp_path / "out", "--temperature", 0, *preset, *dry) == 2
            assert sentence in capsys.readouterr().err
    assert main(["export", "merged", "--policy", str(folder), "--out", str(tmp_path / "out"), *preset]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    for one in (open_policy, read_policy):
        with pytest.raises(Exception, match="not supported"):
            one(folder)
