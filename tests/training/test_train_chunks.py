"""Training on decisions of chunks: the exact gradient of executed tokens, against autograd over single observations."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import CompatibilityError, SettingsError
from grape.core.events import SILENT
from grape.core.files import read_jsonl
from grape.core.preferences import PreferencePair
from grape.core.trajectories import Observation
from grape.policies.openvla_oft.loading import load_oft_policy
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.store import EpisodeStore
from grape.training.batches import collate
from grape.training.dataset import load_steps
from grape.training.decision_axis import DecisionAxis, Segments
from grape.training.distributed import SINGLE_PROCESS
from grape.training.gradients import one_pass_gradient, two_pass_gradient
from grape.training.items import make_items
from grape.training.logprobs import StepLogprobs, recomputed_reference, recorded_reference
from grape.training.losses import TrajectorySums
from grape.training.objectives import Objective
from grape.training.settings import TrainSettings
from grape.training.tpo import run_train
from grape.training.unpaired import WeightedEpisode
from tests.openvla_oft.conftest import make_nano
from tests.training.recordings import record, record_chunks, snapshot, write_pairs, write_policy, write_scores

CHUNK = 3
EXECUTED = ((3, 3, 2), (3, 3, 3, 1), (1, 3), (2,), (3, 1), (3, 3))
WHOLE = ("toy-0", (0, 8)), ("toy-1", (0, 10))
PAIR = PreferencePair("p0", "task", 0, "toy-0", "toy-1", 1.0, "best-worst", "")
OTHER = replace(PAIR, pair_id="p1", chosen="toy-2", rejected="toy-3", initial_state=1)
CUT = replace(PAIR, chosen_steps=(1, 7), rejected_steps=(2, 8))
EPISODES = (WeightedEpisode("toy-0", "task", 0, 0.5), WeightedEpisode("toy-1", "task", 0, -1.5))
NONE = ("toy-0", (0, 0))
CASES = {
    "tpo": ("tpo", (PAIR, OTHER), {}, [WHOLE, (("toy-2", (0, 4)), ("toy-3", (0, 2)))]),
    "cut": ("tpo", (CUT, PAIR), {}, [(("toy-0", (1, 7)), ("toy-1", (2, 8))), WHOLE]),
    "normalized": ("tpo", (CUT, PAIR), {"length_normalised": True}, [(("toy-0", (1, 7)), ("toy-1", (2, 8))), WHOLE]),
    "floor": ("tpo", (PAIR,), {"chosen_floor": 1.0, "anchor": 0.0}, [WHOLE]),
    "windows": (
        "tpo",
        (PAIR,),
        {"window": 2},
        [(("toy-0", (0, 6)), ("toy-1", (0, 6))), (("toy-0", (3, 8)), ("toy-1", (3, 9)))],
    ),
    "step-dpo": (
        "step-dpo",
        (PAIR,),
        {},
        [(("toy-0", steps), ("toy-1", other)) for steps, other in (((0, 3),) * 2, ((3, 6),) * 2, ((6, 8), (6, 9)))],
    ),
    "step-dpo cut": (
        "step-dpo",
        (CUT,),
        {},
        [
            (("toy-0", steps), ("toy-1", other))
            for steps, other in (((1, 3), (2, 3)), ((3, 6), (3, 6)), ((6, 7), (6, 8)))
        ],
    ),
    "filtered-bc": ("filtered-bc", (PAIR,), {}, [(("toy-0", steps), NONE) for steps in ((0, 3), (3, 6), (6, 8))]),
    "kto": ("kto", EPISODES, {}, [(WHOLE[0], NONE), (NONE, WHOLE[1])]),
    "rloo": ("rloo", EPISODES, {}, [(WHOLE[0], NONE), (NONE, WHOLE[1])]),
}


@pytest.fixture(scope="module")
def policy():
    return make_nano(cameras=("agentview", "wrist"), proprio_dim=4, placeholders="per-action")


@pytest.fixture(scope="module")
def store(policy, tmp_path_factory):
    """Recorded by another policy: its log-probabilities are not those of the policy that trains."""
    other = make_nano(seed=1, cameras=("agentview", "wrist"), proprio_dim=4, placeholders="per-action")
    return record_chunks(tmp_path_factory.mktemp("chunks") / "store", other, EXECUTED)


@pytest.fixture(scope="module")
def steps(store, policy):
    return load_steps([store], [store.ids()], SILENT, proprio=True, cameras=("wrist",), spec=policy.spec)


def side_sum(policy, store, side):
    """Log-probability of the control steps of an episode, and the recorded one, observation by observation."""
    name, (start, stop) = side
    episode = store.read(name)
    total = torch.zeros((), dtype=torch.float64)
    for row, first in enumerate(episode.decision_starts):
        taken = [k for k in range(int(episode.chunks.executed[row])) if start <= first + k < stop]
        if taken:
            wrist = {"wrist": episode.cameras["wrist"][row]}
            seen = Observation(episode.frames[row], episode.proprio[first], episode.meta.instruction, wrist)
            tokens = torch.from_numpy(episode.chunks.tokens[row : row + 1].astype(np.int64))
            total = total + policy.token_logps(policy.encode([seen]), tokens)[0, taken].double().sum()
    return total, float(episode.token_logps[start:stop].sum(dtype=np.float64))


def settings_of(method, **changes):
    return TrainSettings(policy=Path("policy"), out=Path("out"), method=method, **changes)


@pytest.mark.parametrize(
    ("case", "mode"),
    # KTO's reference point needs all sums of an update, which one pass does not have.
    [
        (case, mode)
        for case in CASES
        for mode in ("one-pass", "two-pass")
        if (CASES[case][0], mode) != ("kto", "one-pass")
    ],
)
def test_the_gradient_is_that_of_autograd_over_executed_tokens(policy, store, steps, case, mode):
    method, samples, changes, expected_sides = CASES[case]
    settings = settings_of(method, **changes)
    loss = Objective(settings, 7, SINGLE_PROCESS).loss(1.0)
    items, _ = make_items(
        method, samples, steps.step_spans, settings.window, settings.stride, {"toy-0", "toy-2"}, steps.axis
    )
    logps = StepLogprobs(policy, steps, 4)
    segments, comparisons = collate(items, recorded_reference(steps), steps.axis)
    parameters = [parameter for parameter in policy.module.parameters() if parameter.requires_grad]
    gradient = one_pass_gradient if mode == "one-pass" else two_pass_gradient
    result = gradient(lambda positions: logps.sums(segments[positions]), comparisons, loss, 3, parameters)
    ours = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]

    chosen, rejected = ([side_sum(policy, store, both[number]) for both in expected_sides] for number in (0, 1))
    lengths = [[float(stop - start) for _, (start, stop) in side] for side in zip(*expected_sides, strict=True)]
    weights = [abs(sample.weight) for sample in samples] if method in ("kto", "rloo") else [1.0] * len(items)
    as_tensor = lambda values: torch.tensor(values, dtype=torch.float64)  # noqa: E731
    sums = TrajectorySums(
        torch.stack([total for total, _ in chosen]),
        torch.stack([total for total, _ in rejected]),
        as_tensor([recorded for _, recorded in chosen]),
        as_tensor([recorded for _, recorded in rejected]),
        *map(as_tensor, (*lengths, weights)),
        as_tensor([float(both[0][0] in ("toy-0", "toy-2")) for both in expected_sides]),
    )
    terms, metrics = loss(sums)
    expected = torch.autograd.grad(sum(terms.values()), parameters, allow_unused=True, materialize_grads=True)
    assert result.metrics == pytest.approx(metrics, rel=1e-4, abs=1e-5)
    assert any(one.abs().max() > 1e-6 for one in expected)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-5 * float(other.abs().max()) + 1e-7)


@given(data=st.data())
def test_tokens_outside_of_a_run_have_no_gradient_and_runs_add_up(policy, steps, data):
    rows = torch.tensor(data.draw(st.lists(st.integers(0, len(steps) - 1), min_size=1, max_size=3)))
    cuts = [data.draw(st.integers(0, int(steps.axis.executed(np.array([row]))[0]))) for row in rows]
    whole = Segments(rows, torch.zeros_like(rows), torch.from_numpy(steps.axis.executed(rows.numpy())))
    heads, tails = Segments(rows, whole.first_F, torch.tensor(cuts)), Segments(rows, torch.tensor(cuts), whole.stop_F)
    logps = StepLogprobs(policy, steps, 4)
    with torch.no_grad():
        torch.testing.assert_close(logps.sums(whole), logps.sums(heads) + logps.sums(tails), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logps.sums(whole), logps(rows).flatten(1).sum(1), rtol=1e-5, atol=1e-5)
    kept, honest = [], policy.model.chunk_logits

    def watched(inputs):
        kept.append(honest(inputs))
        kept[-1].retain_grad()
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy.model, "chunk_logits", watched)
        for segments in (heads, tails):
            logps.sums(segments).sum().backward()
    for segments, logits in zip((heads, tails), kept, strict=True):
        touched = logits.grad.abs().sum(dim=-1).reshape(len(rows), CHUNK, 7) > 0
        for position in range(len(rows)):
            inside = torch.zeros(CHUNK, dtype=torch.bool)
            inside[int(segments.first_F[position]) : int(segments.stop_F[position])] = True
            assert (touched[position] == inside[:, None]).all()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.data())
def test_a_range_is_cut_where_decisions_begin(executed, data):
    axis = DecisionAxis.of(np.array(executed))
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, sum(executed))] * 2)))
    parts = axis.cut((start, stop))
    assert [step for part in parts for step in range(*part)] == list(range(start, stop))
    owners = np.repeat(np.arange(len(executed)), executed)
    assert [set(owners[slice(*part)].tolist()) for part in parts] == [
        {row} for row in sorted(set(owners[start:stop].tolist()))
    ]
    segments = axis.segments(parts)
    for row, first, last in zip(segments.rows_F, segments.first_F, segments.stop_F, strict=True):
        assert 0 <= first < last <= executed[row]
    assert axis.count((start, stop)) == len(segments)


def test_the_recomputed_reference_is_the_policys_own_of_each_control_step(policy, store, steps, tmp_path):
    reference = recomputed_reference(StepLogprobs(policy, steps, 4), 5, tmp_path / "reference.safetensors")
    for name, span in steps.step_spans.items():
        for start in range(span[1] - span[0]):
            with torch.no_grad():
                own, _ = side_sum(policy, store, (name, (start, start + 1)))
            assert reference[span[0] + start] == pytest.approx(float(own), abs=1e-4)
    again = recomputed_reference(None, 5, tmp_path / "reference.safetensors")
    np.testing.assert_array_equal(again, reference)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A policy, episodes that it collected, pairs and scores."""
    root = tmp_path_factory.mktemp("world")
    policy = make_nano(cameras=("agentview", "wrist"), proprio_dim=4)
    save_oft_policy(policy, root / "policy")
    store = record_chunks(root / "store", load_oft_policy(root / "policy").freeze(), EXECUTED)
    write_pairs(root / "pairs", store)
    write_scores(root / "scores", store, [1.0, -1.0, 0.5, -0.2, 0.3, 0.0])
    return TrainSettings(pairs=root / "pairs", policy=root / "policy", out=root / "none", epochs=2, pairs_per_update=2)


@pytest.mark.parametrize("method", ["tpo", "step-dpo", "filtered-bc", "kto", "rloo"])
def test_every_method_trains_and_a_stopped_run_ends_alike(world, tmp_path, method):
    data = {"pairs": None, "scores": world.pairs.parent / "scores"} if method in ("kto", "rloo") else {}
    settings = replace(
        world, method=method, out=tmp_path / "whole", max_updates=3, epochs=3, checkpoint_every=1, **data
    )
    summary = run_train(settings)
    if method != "filtered-bc":
        assert summary["parity"]["mean_abs"] < 1e-5
    assert summary["policy_hash"] != summary["start_policy_hash"]
    trained = load_oft_policy(tmp_path / "whole" / "policy")
    assert trained.spec.policy_hash == summary["policy_hash"]
    assert trained.spec.preprocessing_hash == load_oft_policy(world.policy).spec.preprocessing_hash
    stopped = replace(settings, out=tmp_path / "stopped")
    shutil.copytree(settings.out, stopped.out)
    for name in ("done.json", "policy"):
        path = stopped.out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in sorted((stopped.out / "checkpoints").glob("update-*"))[1:]:
        shutil.rmtree(path)
    run_train(stopped)
    assert snapshot(stopped.out) == snapshot(settings.out)


@pytest.mark.parametrize("mode", ["one-pass", "two-pass"])
def test_adapters_train_with_the_towers_features_kept_and_train_on(world, tmp_path, mode):
    settings = replace(world, out=tmp_path / "first", lora_rank=2, gradient=mode, micro_batch=3)
    plan = run_train(replace(settings, dry_run=True))
    summary = run_train(settings)
    assert plan["trainable_parameters"] == summary["trainable_parameters"] > 0
    assert summary["parity"]["mean_abs"] < 1e-5
    uncached = run_train(replace(settings, out=tmp_path / "uncached", feature_cache_gb=0.0))
    assert uncached["metrics"] == pytest.approx(summary["metrics"], rel=1e-3, abs=1e-4)
    adapter = tmp_path / "first" / "policy"
    trained = load_oft_policy(adapter)
    assert trained.adapter is not None
    assert trained.spec.policy_hash == summary["policy_hash"]
    store = record_chunks(tmp_path / "store", trained.freeze(), EXECUTED)
    again = replace(settings, policy=adapter, pairs=write_pairs(tmp_path / "pairs", store), out=tmp_path / "second")
    assert run_train(again)["parity"]["mean_abs"] < 1e-5
    with pytest.raises(SettingsError, match="is an adapter with rank 2, and --lora-rank is 4"):
        run_train(replace(again, lora_rank=4, out=tmp_path / "third"))


def test_the_first_update_counts_executed_tokens(world, tmp_path):
    """Nats a token of the metrics, and the length that normalization divides by, on the recorded reference."""
    pairs = write_pairs(tmp_path / "pairs", EpisodeStore.open(world.pairs.parent / "store"), ((0, 1),))
    settings = replace(world, pairs=pairs, out=tmp_path / "run", epochs=1, reference="recorded")
    run_train(settings)
    (row,) = read_jsonl(settings.out / "metrics.jsonl")
    recorded = EpisodeStore.open(world.pairs.parent / "store").read("toy-0").token_logps
    assert row["loss/nll"] == pytest.approx(-float(recorded.mean()), rel=1e-4)
    assert row["logps/chosen"] == pytest.approx(float(recorded.sum()), rel=1e-4)
    assert row["frames"] == 3 + 4


def test_a_plan_knows_chunks(world, tmp_path):
    plan = run_train(replace(world, out=tmp_path / "none", dry_run=True))
    assert plan["steps"] == sum(map(sum, EXECUTED))
    assert plan["decisions"] == plan["frames_per_epoch"] == sum(map(len, EXECUTED))
    assert plan["chunk"] == CHUNK
    policy = load_oft_policy(world.policy)
    prompt = policy.prompt_length("open the drawer")
    inputs = policy.encode(
        [
            Observation(
                np.zeros((64, 64, 3), np.uint8),
                np.zeros(4),
                "open the drawer",
                {"wrist": np.zeros((64, 64, 3), np.uint8)},
            )
        ]
    )
    positions = []
    policy.model.language_model.model.register_forward_pre_hook(
        lambda module, args, options: positions.append(options["inputs_embeds"].shape[1]), with_kwargs=True
    )
    policy.model.chunk_logits(inputs)
    longest = max(policy.prompt_length(text) for text in ("open the drawer", "turn on the faucet"))
    assert plan["sequence"] == positions[0] + longest - prompt
    assert plan["peak_memory_gb"] > 0
    assert not (tmp_path / "none").exists()


def test_episodes_of_other_decisions_are_refused_before_the_first_update(world, tmp_path):
    plain = record(tmp_path / "plain", write_policy(tmp_path / "nano"))
    pairs = write_pairs(tmp_path / "pairs", plain)
    for dry_run in (False, True):
        settings = replace(world, pairs=pairs, out=tmp_path / "run", dry_run=dry_run)
        with pytest.raises(CompatibilityError, match=r"decides on 1 action at once, with .* vocabulary") as caught:
            run_train(settings)
        assert "As demonstrations" in caught.value.hint
        reverse = replace(world, policy=tmp_path / "nano", out=tmp_path / "run", dry_run=dry_run)
        with pytest.raises(CompatibilityError, match="decides on 3 actions at once"):
            run_train(reverse)
    with pytest.raises(CompatibilityError, match="decides on 1 action at once"):
        run_train(replace(world, replay=(pairs,), out=tmp_path / "run"))
    warm = replace(world, convention=("temperature=1.6",), out=tmp_path / "run")
    with pytest.raises(CompatibilityError, match=r"at temperature 1\.6"):
        run_train(warm)
    assert not (tmp_path / "run").exists()
