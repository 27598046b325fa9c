"""Tiny policies, stores recorded by them, and pairs, written through the project's own verbs' formats."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from grape.core.chunks import PLAIN, Chunks
from grape.core.files import write_json, write_jsonl
from grape.core.preferences import PreferencePair, Score
from grape.core.trajectories import EpisodeMeta, Observation, Trajectory
from grape.policies.base import PolicySpec, TrainablePolicy
from grape.policies.openvla import compute_norm_stats, create_nano, load_policy, save_policy
from grape.policies.presets import NanoShape, TowerConfig
from grape.preferences.records import pair_to_row, score_to_row
from grape.store import EpisodeStore

INSTRUCTIONS = ("open the drawer", "turn on the faucet")
NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
SIDE = 16
SHAPE = NanoShape(
    tower=TowerConfig(
        width=16,
        depth=2,
        heads=2,
        mlp_width=32,
        patch=8,
        image_size=SIDE,
        feature_block=0,
        final_norm=False,
        stem="patch",
    ),
    hidden=16,
    layers=1,
    heads=2,
    mlp=24,
    action_bins=8,
)


def write_policy(path: Path, seed: int = 0) -> Path:
    """Checkpoint folder of a tiny policy."""
    actions = np.random.default_rng(7).uniform(-1, 1, size=(200, len(NAMES)))
    statistics = compute_norm_stats(actions, NAMES)
    policy = create_nano(seed=seed, norm_stats=statistics, gripper="+1 closes", instructions=INSTRUCTIONS, shape=SHAPE)
    save_policy(policy, path)
    return path


def sampled_meta(policy: TrainablePolicy, spec: PolicySpec, index: int, length: int) -> EpisodeMeta:
    """Facts of episode ``index``: two samples of each initial state, of which the first one succeeds."""
    instruction = INSTRUCTIONS[index // 2 % 2]
    return EpisodeMeta(
        episode_id=f"toy-{index}",
        suite="toy",
        task="task",
        task_index=0,
        instruction=instruction,
        initial_state=index // 2,
        sample=index % 2,
        seed=index,
        success=index % 2 == 0,
        steps=length,
        actor="policy",
        temperature=1.0,
        policy_hash=spec.policy_hash,
        preprocessing_hash=spec.preprocessing_hash,
        prompt=policy.prompt(instruction),
    )


def record(path: Path, policy_path: Path, lengths=(5, 9, 3, 7, 6, 4), dtype="auto", **changes) -> EpisodeStore:
    """Store with one sampled episode a length; ``changes`` overwrite fields of the episodes' facts."""
    policy = load_policy(policy_path, dtype=dtype)
    spec = policy.spec
    store = EpisodeStore.create(path, "toy", {"action_space": {"names": list(NAMES), "gripper": "+1 closes"}})
    for index, length in enumerate(lengths):
        rng = np.random.default_rng(index)
        frames = rng.integers(0, 256, size=(length + 1, SIDE, SIDE, 3), dtype=np.uint8)
        instruction = INSTRUCTIONS[index // 2 % 2]
        observations = [Observation(frame, np.zeros(1, np.float32), instruction) for frame in frames[:-1]]
        decided = policy.act(observations, temperature=1.0, seeds=[1000 * index + t for t in range(length)])
        store.write(
            Trajectory(
                meta=replace(sampled_meta(policy, spec, index, length), **changes),
                frames=frames,
                proprio=np.zeros((length + 1, 1), np.float32),
                actions=decided.actions[:, 0].astype(np.float32),
                labels=decided.actions[:, 0].astype(np.float32),
                action_tokens=decided.tokens[:, 0],
                token_logps=decided.logps[:, 0],
                keypoints={},
                signals={"success": np.zeros(length + 1, np.float32)},
            )
        )
    return store


def record_chunks(
    path: Path, policy: TrainablePolicy, executed=((3, 3, 2), (3, 3, 3, 1), (1, 3), (2,), (3, 1), (3, 3)), **changes
) -> EpisodeStore:
    """Store with one sampled episode for each list of executed actions a decision; ``changes`` as for ``record``."""
    spec = policy.spec
    facts = {"length": spec.chunk, "support": spec.support, "temperature": spec.logp_temperature}
    plain = tuple(facts.values()) == PLAIN
    contract = {"action_space": {"names": list(NAMES), "gripper": "+1 closes"}} | ({} if plain else {"chunks": facts})
    store = EpisodeStore.create(path, "toy", contract)
    for index, counts in enumerate(executed):
        rng = np.random.default_rng(index)
        size = (len(counts) + 1, spec.image_size, spec.image_size, 3)
        frames = rng.integers(0, 256, size, dtype=np.uint8)
        cameras = {name: rng.integers(0, 256, size, dtype=np.uint8) for name in spec.cameras[1:]}
        instruction, length = INSTRUCTIONS[index // 2 % 2], sum(counts)
        proprio = rng.uniform(-2, 2, (length + 1, spec.proprio_dim or 1)).astype(np.float32)
        starts = np.cumsum((0, *counts))[:-1]
        observations = [
            Observation(frame, proprio[start], instruction, {name: some[n] for name, some in cameras.items()})
            for n, (frame, start) in enumerate(zip(frames[:-1], starts, strict=True))
        ]
        decided = policy.act(observations, temperature=1.0, seeds=[1000 * index + t for t in range(len(counts))])
        played = np.array(counts, np.int32)
        chunks = Chunks(played, spec.chunk, decided.tokens, decided.logps, spec.support, spec.logp_temperature)
        tokens, logps = chunks.executed_tokens(decided.actions.shape[-1])
        actions = decided.actions[chunks.executed_mask].astype(np.float32)
        store.write(
            Trajectory(
                meta=replace(sampled_meta(policy, spec, index, length), **changes),
                frames=frames,
                proprio=proprio,
                actions=actions,
                labels=actions,
                action_tokens=tokens,
                token_logps=logps,
                keypoints={},
                signals={"success": np.zeros(length + 1, np.float32)},
                chunks=None if plain else chunks,
                cameras=cameras,
            )
        )
    return store


def write_pairs(folder: Path, store: EpisodeStore, pairs=((0, 1), (2, 3), (4, 5))) -> Path:
    """Folder as made by ``grape pair``."""
    rows = [
        PreferencePair(
            pair_id=f"pair-{number}",
            task="task",
            initial_state=number,
            chosen=f"toy-{w}",
            rejected=f"toy-{l}",
            margin=1.0,
            mode="best-worst",
            reason="",
        )
        for number, (w, l) in enumerate(pairs)  # noqa: E741
    ]
    write_json(folder / "run.json", {"verb": "pair"})
    write_jsonl(folder / "pairs.jsonl", [pair_to_row(pair) for pair in rows])
    write_json(folder / "done.json", {"store": str(store.path.resolve())})
    return folder


def snapshot(folder: Path) -> dict[str, str]:
    """Hash of every file that must not depend on interruptions: all but the log with times and resolved paths."""
    skipped = {"log.jsonl", "settings.yaml", ".lock"}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped
    }


def write_scores(folder: Path, store: EpisodeStore, rewards: Sequence[float], **changes) -> Path:
    """Folder as made by ``grape score``; ``changes`` overwrite fields of every score."""
    metas = sorted(store.metas(), key=lambda meta: meta.episode_id)
    rows = [
        Score(
            episode_id=meta.episode_id,
            task=meta.task,
            initial_state=meta.initial_state,
            success=meta.success,
            steps=meta.steps,
            r_self=-1.0,
            r_ext=0.5,
            cost=0.7,
            terms={"self": 0.0, "ext": 0.0, "success": reward},
            gcpg=reward,
        )
        for meta, reward in zip(metas, rewards, strict=True)
    ]
    write_json(folder / "run.json", {"verb": "score"})
    write_jsonl(folder / "scores.jsonl", [score_to_row(replace(row, **changes)) for row in rows])
    write_json(folder / "done.json", {"store": str(store.path.resolve())})
    return folder
