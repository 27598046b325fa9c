"""Toy demonstrations that a tiny policy learns by heart in seconds, and policies that learned them."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from grape.core.chunks import cut_chunks
from grape.policies.openvla import compute_norm_stats, create_nano
from grape.policies.openvla_oft.conventions import Conventions, Layout
from grape.policies.openvla_oft.loading import with_conventions
from grape.policies.openvla_oft.nano import NANO_CONVENTIONS, create_nano_oft
from grape.policies.openvla_oft.policy import OFTPolicy
from grape.policies.openvla_oft.saving import save_oft_policy
from grape.policies.presets import NanoShape, TowerConfig
from grape.store import EpisodeStore
from tests.store.episodes import make_episode

NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
INSTRUCTIONS = ("open the drawer", "turn on the faucet")
STEPS, COLORS, CHUNK = 4, 3, 2
SHAPE = NanoShape(
    tower=TowerConfig(
        width=32,
        depth=1,
        heads=2,
        mlp_width=64,
        patch=16,
        image_size=32,
        feature_block=0,
        final_norm=False,
        stem="conv",
        stem_channels=(8, 16, 16),
    ),
    hidden=48,
    layers=2,
    heads=2,
    mlp=96,
    action_bins=16,
)


def table() -> np.ndarray:
    """Demonstrated actions by task, color of the image and control step."""
    actions = np.random.default_rng(0).uniform(-1, 1, (len(INSTRUCTIONS), COLORS, STEPS, 7)).astype(np.float32)
    actions[..., 6] = np.sign(actions[..., 6])
    return actions


def write_demonstrations(path: Path, episodes: int = 12, **facts) -> EpisodeStore:
    rng = np.random.default_rng(0)
    colors = rng.integers(40, 180, (COLORS, 3))
    store = EpisodeStore.create(
        path, "toy", {"action_space": {"names": list(NAMES), "gripper": "+1 closes", "rotation": "none"}}
    )
    for number in range(episodes):
        color, task = number % COLORS, number // COLORS % len(INSTRUCTIONS)
        labels = table()[task, color]
        images = (
            colors[color] + 15 * np.arange(STEPS + 1)[:, None, None, None] + rng.normal(0, 3, (STEPS + 1, 32, 32, 3))
        )
        given = {
            "instruction": INSTRUCTIONS[task],
            "task": INSTRUCTIONS[task].replace(" ", "-"),
            "actor": "expert",
            "initial_state": number,
            **facts,
        }
        episode = make_episode(f"episode-{number:03d}", STEPS, seed=number, **given)
        store.write(
            dataclasses.replace(
                episode,
                frames=np.clip(images, 0, 255).astype(np.uint8),
                labels=labels,
                actions=labels,
                action_tokens=np.full((STEPS, 7), -1, np.int32),
                token_logps=np.full((STEPS, 7), np.nan, np.float32),
            )
        )
    return store


def statistics() -> dict:
    return compute_norm_stats(table().reshape(-1, 7), NAMES, proprio=np.random.default_rng(1).normal(size=(64, 4)))


def fresh_policy(conventions: Conventions = NANO_CONVENTIONS, **layout) -> OFTPolicy:
    return create_nano_oft(
        seed=0,
        norm_stats={"toy": statistics()},
        gripper="+1 closes",
        layout=Layout(**{"chunk": CHUNK, "action_dim": 7, **layout}),
        instructions=INSTRUCTIONS,
        conventions=conventions,
        shape=SHAPE,
    )


def _samples(store: EpisodeStore):
    images, instructions, labels, inside = [], [], [], []
    for episode_id in store.ids():
        recorded = store.decisions(episode_id).labels
        chunks, mask = cut_chunks(recorded, np.arange(STEPS), CHUNK)
        images += list(store.images(episode_id, range(STEPS)))
        instructions += [store.meta(episode_id).instruction] * STEPS
        labels.append(chunks)
        inside.append(mask)
    return images, instructions, np.concatenate(labels), np.concatenate(inside)


def _learn(parameters, loss_of, samples: int, updates: int) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=5e-3)
    rng = np.random.default_rng(0)
    for _ in range(updates):
        loss = loss_of(rng.choice(samples, 24, replace=False))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def write_trained(
    store: EpisodeStore, conventions: Conventions, path: Path, *, updates: int = 150, stated=None
) -> Path:
    """A checkpoint that learned the demonstrations under some conventions, and states them or others."""
    policy = fresh_policy(dataclasses.replace(conventions, support="window", temperature=1.0))
    images, instructions, labels, inside = _samples(store)
    inputs = policy.encode_images([[image] for image in images], instructions)
    tokens, executed = torch.from_numpy(policy.action_tokens(labels)), torch.from_numpy(inside.sum(1))
    _learn(
        policy.model.parameters(),
        lambda rows: (
            -policy.decision_logps(inputs.select(rows), tokens[rows], executed[rows]).sum() / (7 * executed[rows].sum())
        ),
        len(images),
        updates,
    )
    save_oft_policy(with_conventions(policy, stated or conventions), path)
    return path


def write_trained_plain(store: EpisodeStore, path: Path, updates: int = 150) -> Path:
    """The same of a policy that decides on one action, token by token."""
    from grape.policies.openvla import save_policy

    policy = create_nano(
        seed=0, norm_stats={"toy": statistics()}, gripper="+1 closes", instructions=INSTRUCTIONS, shape=SHAPE
    )
    images, instructions, labels, _ = _samples(store)
    inputs = policy.encode_images(images, instructions)
    tokens = torch.from_numpy(policy.action_tokens(labels[:, 0]))
    _learn(
        policy.model.parameters(),
        lambda rows: -policy.model.action_logps(inputs.select(rows), tokens[rows]).mean(),
        len(images),
        updates,
    )
    save_policy(policy, path)
    return path
