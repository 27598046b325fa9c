"""The verb probe names the conventions that tiny policies were trained with, and refuses what cannot be measured."""

import dataclasses
import json
import math
import shlex
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grape.checkpoints import ProbeSettings, run_probe
from grape.checkpoints.probing.likelihoods import Measured, Statistics
from grape.checkpoints.probing.sampling import Sampler, choose_episodes
from grape.checkpoints.probing.scores import SCORES_NAME, ScoredDecision
from grape.cli.main import main
from grape.core.errors import CompatibilityError, DataError, GrapeError, SettingsError
from grape.core.events import SILENT
from grape.policies.openvla_oft.conventions import PRESETS, Conventions
from grape.policies.openvla_oft.loading import load_oft_policy, with_conventions
from grape.policies.openvla_oft.nano import NANO_CONVENTIONS
from grape.policies.openvla_oft.probing import open_probe
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.policies.probes import Reading
from grape.policies.types import AS_STATED, OpeningOptions
from grape.store import EpisodeStore
from tests.checkpoints.demonstrations import (
    CHUNK,
    STEPS,
    fresh_policy,
    write_demonstrations,
    write_trained,
    write_trained_plain,
)
from tests.reporters import Hearing
from tests.store.episodes import make_chunked_episode


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def store(scratch) -> EpisodeStore:
    return write_demonstrations(scratch / "store")


@pytest.fixture(scope="module")
def random_policy(scratch):
    save_oft_policy(fresh_policy(), scratch / "random")
    return scratch / "random"


@pytest.fixture(scope="module")
def trained(scratch, store):
    """Checkpoints by the conventions that they learned under; each states others."""
    folders = {}

    def checkpoint(name: str, conventions: Conventions, stated: Conventions = NANO_CONVENTIONS):
        if name not in folders:
            folders[name] = write_trained(store, conventions, scratch / name, stated=stated)
        return folders[name]

    return checkpoint


def probe(policy, store, **changes):
    fields = {"policy": str(policy), "data": store.path, "samples": 48, "batch": 48, "device": "cpu", **changes}
    return run_probe(ProbeSettings(**fields))


def row_of(summary, name):
    return next(row for row in summary["candidates"] if row["name"] == name)


def test_the_preset_that_a_policy_learned_under_is_named(trained, store):
    summary = probe(trained("rlinf", PRESETS["rlinf"]), store)
    assert (summary["verdict"], summary["preset"], summary["changes"]) == ("fits", "rlinf", {})
    assert summary["sentence"].startswith("rlinf fits best")
    assert "--preset rlinf --out" in summary["next"]
    assert summary["conventions"] == PRESETS["rlinf"].to_json()
    rows = {row["name"]: row for row in summary["candidates"]}
    assert rows["openvla-oft"]["nll"] == rows["simplevla-rl"]["nll"] > rows["rlinf"]["nll"] + 1
    assert rows["openvla-oft"]["difference_interval"][0] > 1
    assert rows["rlinf"]["accuracy"] > rows["openvla-oft"]["accuracy"] + 0.2
    assert rows["simplevla-rl"]["like"] == "openvla-oft"
    assert "What the checkpoint states itself" in " ".join(summary["notes"])
    costs = {(row["convention"], str(row["to"])): row["cost"] for row in summary["variations"] if "cost" in row}
    assert costs["attention", "causal"] > 0.3
    assert costs["support", "vocabulary"] > 0
    assert costs["temperature", "1.6"] > 0


def test_presets_that_give_the_same_input_are_told_as_such(trained, store):
    summary = probe(trained("bidirectional", Conventions(), PRESETS["rlinf"]), store)
    assert summary["verdict"] == "alike"
    assert [row["name"] for row in summary["candidates"] if row["stated"]] == ["rlinf"]
    assert "Choose the preset of the software that trained it" in summary["next"]
    assert "openvla-oft" in summary["sentence"]
    assert "simplevla-rl" in summary["sentence"]
    assert "support and temperature" in summary["sentence"]
    assert row_of(summary, "openvla-oft")["own"]["support"] == "vocabulary"
    assert row_of(summary, "simplevla-rl")["own"]["temperature"] == 1.6


def test_a_convention_that_no_preset_has_is_found(trained, store):
    summary = probe(trained("causal", Conventions(attention="causal")), store)
    assert summary["verdict"] == "between"
    assert summary["changes"] == {"attention": "causal"}
    assert "attention=causal" in summary["sentence"]
    assert "--convention attention=causal" in summary["next"]
    assert summary["conventions"]["attention"] == "causal"
    same = [(row["convention"], row["to"]) for row in summary["variations"] if "same input" in row.get("problem", "")]
    assert same == [("prompt_tail", "none")]  # the nano tokenizer has no empty token to append
    back = next(row for row in summary["variations"] if row["convention"] == "attention")
    assert back["to"] == "bidirectional"
    assert back["interval"][0] > 0.5


def test_the_advised_command_states_what_was_found(trained, store, tmp_path):
    summary = probe(trained("causal", Conventions(attention="causal")), store)
    words = shlex.split(summary["next"].partition(": ")[2])
    assert words[0] == "grape"
    assert main([*words[1:-1], str(tmp_path / "stated"), "--quiet"]) == 0
    again = probe(tmp_path / "stated", store)
    assert again["verdict"] == "fits"
    assert again["preset"] == "stated"
    assert again["conventions"] == summary["conventions"]
    assert again["nll"] == summary["nll"]
    assert "states that already" in again["next"]


def test_plain_openvla_is_recognized(scratch, store):
    summary = probe(write_trained_plain(store, scratch / "plain"), store, chunk=CHUNK)
    assert (summary["verdict"], summary["preset"], summary["conventions"]) == ("fits", "openvla", None)
    assert "without --preset" in summary["next"]
    assert row_of(summary, "openvla")["nll"] < 0.5 < row_of(summary, "openvla-oft")["first_nll"]


@pytest.mark.parametrize("placeholders", ["zeros", "per-action"])
def test_an_untrained_head_is_named(placeholders, store, tmp_path):
    save_oft_policy(fresh_policy(placeholders=placeholders), tmp_path / "random")
    summary = probe(tmp_path / "random", store)
    assert (summary["verdict"], summary["preset"]) == ("untrained", None)
    assert summary["uniform"] == pytest.approx(math.log(16))
    assert summary["nll"] > 0.9 * summary["uniform"]
    assert "untrained" in summary["sentence"]
    assert "--unnorm-key" in summary["next"]


def test_few_decisions_tell_nothing_apart(random_policy, trained, store):
    from grape.checkpoints.probing.verdict import Ranking, conclude

    path = trained("bidirectional", Conventions(), PRESETS["rlinf"])
    opened = open_probe(path, AS_STATED, weights=True)
    sampler = Sampler(store, opened, 24, 0, SILENT)
    candidates = opened.candidates(sampler.instructions)
    right = next(other for other in candidates if other.name == "openvla-oft")
    rows = opened.score(right.reading, sampler.read(sampler.decisions))
    values = Measured.of(rows, 7)
    noise = np.random.default_rng(0).normal(0, 1, len(rows))
    near = dataclasses.replace(values, nll_each=values.nll_each + noise)
    wrong = next(other for other in candidates if other.name == "rlinf")
    ranking = Ranking(
        Statistics([decision.episode_id for decision in sampler.decisions]),
        {right.reading: values, wrong.reading: near},
        [right, wrong],
        right,
        right.reading,
    )
    verdict = conclude(ranking, {"uniform": math.log(16), "frequencies": 2.0}, ["--policy", "x"])
    assert verdict["verdict"] == "undecided"
    assert "cannot be told apart on 24 decisions" in verdict["sentence"]
    assert "--samples" in verdict["next"]


def test_scores_are_the_policys_own_log_probabilities(trained, store):
    """Against the policy as it acts: sums over executed tokens, on the common footing and on the preset's own."""
    path = trained("rlinf", PRESETS["rlinf"])
    opened = open_probe(path, AS_STATED, weights=True)
    sampler = Sampler(store, opened, 10, 3, SILENT)
    batch = sampler.read(sampler.decisions)
    rlinf = next(other for other in opened.candidates(sampler.instructions) if other.name == "rlinf")
    scores = opened.score(rlinf.reading, batch, [rlinf.footing])
    policy = load_oft_policy(path)
    for temperature, nats in ((1.0, [sum(score.nll) for score in scores]), (1.6, None)):
        run = with_conventions(policy, dataclasses.replace(PRESETS["rlinf"], temperature=temperature))
        tokens = torch.from_numpy(run.action_tokens(batch.labels))
        with torch.inference_mode():
            logps = run.decision_logps(
                run.encode_images(batch.images, batch.instructions), tokens, torch.from_numpy(batch.inside.sum(1))
            )
        expected = nats or [score.footings["window, temperature 1.6"] for score in scores]
        np.testing.assert_allclose(-logps.numpy(), expected, rtol=1e-4)
    assert {len(score.nll) for score in scores} == {1, CHUNK}  # the last step has one action of the chunk inside


def test_other_conventions_share_the_weights_and_leave_the_policy_as_it_is(random_policy, tmp_path):
    policy = load_oft_policy(random_policy)
    other = with_conventions(policy, PRESETS["rlinf"])
    assert policy.conventions == policy.model.conventions == NANO_CONVENTIONS
    assert other.conventions == PRESETS["rlinf"]
    assert all(a is b for a, b in zip(policy.model.parameters(), other.model.parameters(), strict=True))
    assert policy.preprocessing_hash != other.preprocessing_hash
    save_oft_policy(other, tmp_path / "other")
    assert load_oft_policy(tmp_path / "other").conventions == PRESETS["rlinf"]


def test_readings_that_hardly_differ_are_not_ranked(scratch, store):
    """Images of one color stay the same when they are cropped."""
    path = write_trained(store, Conventions(), scratch / "cropped", stated=Conventions(center_crop=False))
    summary = probe(path, store)
    assert summary["verdict"] == "undecided"
    assert "what the checkpoint states" in summary["sentence"].lower()
    assert "next rlinf" in summary["sentence"]


def test_the_command_line(random_policy, store, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = ["probe", "--policy", str(random_policy), "--data", str(store.path), "--samples", "12", "--device", "cpu"]
    out = tmp_path / "probe"
    assert main([*words, "--json", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    reply = json.loads(captured.out)
    assert reply == json.loads((out / "probe.json").read_text()) == json.loads((out / "done.json").read_text())
    for text in ("rlinf", "nats a token", "untrained", "Not varied: image preprocessing", "attention"):
        assert text in captured.err
    assert main([*words, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["forward_passes"]["candidates"] == 36  # three readings of twelve decisions
    assert plan["forward_passes"]["with_variations_of_the_best_at_most"] == 12 * 7
    assert not set(plan) & {"verdict", "nll"}


def test_a_dry_run_reads_no_weights(random_policy, store, tmp_path):
    folder = shutil.copytree(random_policy, tmp_path / "policy")
    (folder / "model.safetensors").write_bytes(b"no weights")
    plan = probe(folder, store, dry_run=True, out=tmp_path / "out")
    assert plan["decisions"] == 48
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError):
        probe(folder, store)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(random_policy, store, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    probe(random_policy, store, out=whole, samples=12, batch=5)
    probe(random_policy, store, out=cut, samples=12, batch=5)
    lines = (cut / SCORES_NAME).read_bytes().splitlines(keepends=True)
    (cut / "done.json").unlink()
    (cut / "probe.json").unlink()
    (cut / SCORES_NAME).write_bytes(b"".join(lines[:17]) + b'{"reading": 1}\n[]\n' + lines[17][:20])
    probe(random_policy, store, out=cut, samples=12, batch=5)
    for name in (SCORES_NAME, "probe.json", "done.json", "run.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    scored = []
    monkeypatch.setattr("grape.policies.openvla_oft.probing.OFTProbe.score", lambda *args: scored.append(args))
    probe(random_policy, store, out=cut, samples=12, batch=5)
    assert not scored
    with pytest.raises(CompatibilityError, match="samples was 12, now 13"):
        probe(random_policy, store, out=cut, samples=13, batch=5)


def test_rlds_data_gives_what_the_store_gave(trained, store, tmp_path):
    """Exported with the gripper as the loaders have it, and read into the checkpoint's convention."""
    words = ["export", "rlds", "--collection", str(store.path), "--val-fraction", "0", "--out", str(tmp_path / "rlds")]
    assert main([*words, "--quiet"]) == 0
    save_oft_policy(fresh_policy(proprio_dim=4), tmp_path / "state")
    with pytest.raises(CompatibilityError, match="reads 4 numbers of the robot's state"):
        run_probe(ProbeSettings(policy=str(tmp_path / "state"), data=f"rlds+plain:{tmp_path / 'rlds' / 'toy'}"))
    policy = trained("rlinf", PRESETS["rlinf"])
    fields = {"policy": str(policy), "samples": 48, "batch": 48, "device": "cpu"}
    summary = run_probe(ProbeSettings(data=f"rlds+plain:{tmp_path / 'rlds' / 'toy'}", **fields))
    recorded = run_probe(ProbeSettings(data=store.path, **fields))
    assert (summary["verdict"], summary["preset"]) == ("fits", "rlinf")
    assert summary["tokens"] == recorded["tokens"]
    assert summary["accuracy"] == pytest.approx(recorded["accuracy"], abs=0.01)
    assert summary["frequencies"] == pytest.approx(recorded["frequencies"], abs=0.01)


def test_a_batch_changes_nothing_but_rounding(random_policy, store):
    one, other = (probe(random_policy, store, samples=12, batch=batch) for batch in (1, 12))
    assert one["nll"] == pytest.approx(other["nll"], abs=1e-5)
    assert one["verdict"] == other["verdict"]


def test_chunked_rollouts_and_cameras(scratch, tmp_path):
    """Images stand at decisions only, of two cameras, beside the robot's state."""
    store = EpisodeStore.create(tmp_path / "store", "toy", {"chunks": {"length": 4}})
    for number in range(3):
        store.write(make_chunked_episode(episode_id=f"episode-{number}", seed=number))
    save_oft_policy(fresh_policy(cameras=("agentview", "wrist"), proprio_dim=4), tmp_path / "policy")
    reporter = Hearing()
    fields = {"policy": str(tmp_path / "policy"), "data": tmp_path / "store", "device": "cpu"}
    summary = run_probe(ProbeSettings(**fields), reporter)
    assert (summary["decisions"], summary["episodes"]) == (9, 3)
    assert "decided by a policy" in reporter.warnings[0]
    assert "decisions of fewer than 10 episodes" in summary["method"]


def test_what_does_not_fit_is_refused_before_weights_are_read(random_policy, store, tmp_path, monkeypatch):
    monkeypatch.setattr("grape.policies.openvla_oft.probing.load_oft_policy", None)
    save_oft_policy(fresh_policy(cameras=("agentview", "wrist")), tmp_path / "two-cameras")
    with pytest.raises(CompatibilityError, match="none of 'wrist'"):
        probe(tmp_path / "two-cameras", store)
    other = EpisodeStore.create(tmp_path / "other", "toy", {"action_space": {"gripper": "+1 opens"}})
    other.write(make_chunked_episode())
    with pytest.raises(CompatibilityError, match=r"means '\+1 opens', to the checkpoint '\+1 closes'"):
        probe(random_policy, other)
    with pytest.raises(DataError, match="does not exist"):
        run_probe(ProbeSettings(policy=str(random_policy), data=tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="no such checkpoint"):
        probe(tmp_path / "nowhere", store)
    with pytest.raises(SettingsError, match="Did you mean 'toy'"):
        probe(random_policy, store, unnorm_key="toys")
    with pytest.raises(CompatibilityError, match="checkpoint decides 2"):
        probe(random_policy, store, chunk=5)
    with pytest.raises(SettingsError, match="samples"):
        probe(random_policy, store, samples=1)


def test_failed_rollouts_are_no_demonstrations(tmp_path):
    with pytest.raises(DataError, match="no demonstration"):
        choose_episodes(EpisodeStore.create(tmp_path / "empty", "toy", {}), 4, 0)
    failed = write_demonstrations(tmp_path / "failed", 2, actor="policy", success=False)
    with pytest.raises(DataError, match="none of a policy that succeeded"):
        choose_episodes(failed, 4, 0)
    assert len(choose_episodes(write_demonstrations(tmp_path / "noisy", 2, success=False), 4, 0)) == 2


def test_other_actions_are_refused(random_policy, tmp_path):
    store = EpisodeStore.create(tmp_path / "store", "toy", {})
    episode = make_chunked_episode((2, 2), 2, cameras=(), sampled=False)
    store.write(
        dataclasses.replace(
            episode,
            **{name: getattr(episode, name)[:, :6] for name in ("actions", "labels", "action_tokens", "token_logps")},
        )
    )
    with pytest.raises(CompatibilityError, match="actions of 6 dimensions; under its statistics 'toy'"):
        probe(random_policy, store)


def test_an_l1_head_has_nothing_to_probe(random_policy, store, tmp_path):
    folder = shutil.copytree(random_policy, tmp_path / "l1")
    (folder / "action_head--1000_checkpoint.pt").write_bytes(b"never read")
    with pytest.raises(CompatibilityError, match="L1 regression head"):
        probe(folder, store)


def test_a_damaged_episode_is_named(random_policy, tmp_path):
    store = write_demonstrations(tmp_path / "store", 6)
    path = tmp_path / "store" / "episodes" / "episode-003.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(GrapeError, match=r"episode-003\.parquet"):
        probe(random_policy, store)


def test_published_checkpoints_say_nothing_and_read_alike(request):
    """The golden checkpoint has Llama's tokenizer: a written space and an appended token are the same prompt."""
    golden = request.getfixturevalue("oft_checkpoint")
    opened = open_probe(golden, OpeningOptions(unnorm_key="libero_spatial_no_noops"), weights=False)
    candidates = {other.name: other for other in opened.candidates(["open the drawer"])}
    assert list(candidates) == ["openvla-oft", "simplevla-rl", "rlinf", "openvla"]
    oft = candidates["openvla-oft"].reading
    assert oft.facts == {
        "attention": "bidirectional",
        "stop_row": "kept",
        "prompt_tail": "appended",
        "center_crop": True,
    }
    assert candidates["simplevla-rl"].reading == oft
    assert candidates["rlinf"].reading == oft.changed("stop_row", "removed").changed("center_crop", False)
    assert candidates["openvla"].reading == Reading(False, (("center_crop", False),))
    assert opened.chunk == 8
    varied = {(other.convention, other.value): other.reading for other in opened.variations(oft, ["open the drawer"])}
    assert varied["prompt_tail", "written"] == oft
    assert varied["prompt_tail", "none"] == oft.changed("prompt_tail", "none")


def test_a_published_checkpoint_is_probed_whole(oft_checkpoint, store):
    """Random weights, 32,064 ids, nothing stated; chunks are longer than the demonstrations."""
    reporter = Hearing()
    fields = {"policy": str(oft_checkpoint), "data": store.path, "samples": 4, "device": "cpu"}
    summary = run_probe(ProbeSettings(unnorm_key="libero_spatial_no_noops", **fields), reporter)
    assert summary["verdict"] == "untrained"
    assert [row["name"] for row in summary["candidates"]] == ["openvla-oft", "simplevla-rl", "rlinf", "openvla"]
    assert summary["uniform"] == pytest.approx(math.log(256))
    assert "'+1 closes'" in reporter.warnings[0]
    with pytest.raises(SettingsError, match="choose one"):
        run_probe(ProbeSettings(**fields))


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(0, 5))
def test_samples_are_spread_over_tasks_and_seeded(store, random_policy, count, seed):
    opened = open_probe(random_policy, AS_STATED, weights=False)
    first, again = (Sampler(store, opened, count, seed, SILENT).decisions for _ in range(2))
    assert first == again
    assert len(first) == len(set(first)) == min(count, 12 * STEPS)
    by_task = [sum(decision.task == task for decision in first) for task in {decision.task for decision in first}]
    by_episode = [sum(decision.episode_id == name for decision in first) for name in {d.episode_id for d in first}]
    assert max(by_episode) - min(by_episode) <= 1
    assert max(by_task) - min(by_task) <= 1
    assert all(0 <= decision.step < STEPS for decision in first)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.floats(0, 9)), min_size=2, max_size=30), st.data())
def test_means_and_intervals_of_likelihoods(rows, data):
    """The interval holds the mean, does not depend on the order of decisions, and is a point for equal values."""
    scored = [
        ScoredDecision("r", place, str(episode), 0, (nats,) * actions, (0,) * actions, {}, 0)
        for place, (episode, actions, nats) in enumerate(rows)
    ]
    order = data.draw(st.permutations(range(len(scored))))
    results = []
    for places in (range(len(scored)), order):
        values = Measured.of([scored[place] for place in places], 7)
        statistics = Statistics([scored[place].episode_id for place in places], draws=200)
        results.append((values.nll, statistics.interval(values.nll_each, values.tokens_each)))
        assert statistics.difference(values, values) == (0.0, (0.0, 0.0))
    assert results[0][0] == pytest.approx(results[1][0])
    low, high = results[0][1]
    assert low <= high
    if len({nats for _, _, nats in rows}) == 1:
        assert low == pytest.approx(high) == pytest.approx(results[0][0])
