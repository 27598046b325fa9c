"""A whole run made from nothing in a second: drawn images, made-up scores, real file formats."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from grape.core.files import write_json, write_jsonl, write_text
from grape.core.preferences import ConstraintScore, PreferencePair, Score, StageScore
from grape.core.runs import open_run
from grape.core.seeds import derive_rng
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.evaluation import EpisodeOutcome, EvaluationResults, write_results
from grape.preferences.curves import CURVES_FILE, curves_table, write_curves
from grape.preferences.records import pair_to_row, score_to_row
from grape.store import EpisodeStore

TASKS = {"drawer-open": "open the drawer", "faucet-open": "turn on the faucet"}
VERSIONS = {"mujoco": "3.3.0", "metaworld": "3.1.1", "numpy": "2.4.0"}
LIMIT = 16


def image(size: int, hand: tuple[float, float], opened: float, task: str) -> np.ndarray:
    """A table, a handle that moves by ``opened``, and a gripper at ``hand``; coordinates in [0, 1]."""
    image = Image.new("RGB", (size, size), (206, 199, 190))
    draw = ImageDraw.Draw(image)

    def box(x0: float, y0: float, x1: float, y1: float, color: tuple[int, int, int]) -> None:
        draw.rectangle([size * x0, size * y0, size * x1, size * y1], fill=color)

    box(0.0, 0.55, 1.0, 1.0, (164, 128, 92))
    body = (74, 104, 140) if task == "drawer-open" else (96, 120, 96)
    box(0.55, 0.38, 0.9, 0.72, body)
    box(0.5 - 0.2 * opened, 0.45, 0.56, 0.63, tuple(min(255, part + 50) for part in body))  # type: ignore[arg-type]
    box(0.475 - 0.2 * opened, 0.52, 0.51 - 0.2 * opened, 0.57, (222, 202, 60))
    x, y = hand
    box(x - 0.018, 0.0, x + 0.018, y - 0.05, (62, 62, 70))
    box(x - 0.05, y - 0.06, x + 0.05, y - 0.025, (40, 40, 46))
    box(x - 0.05, y - 0.03, x - 0.03, y + 0.03, (40, 40, 46))
    box(x + 0.03, y - 0.03, x + 0.05, y + 0.03, (40, 40, 46))
    return np.asarray(image)


def episode(task: str, state: int, sample: int, *, success: bool, display: bool = True) -> Trajectory:
    """One rollout: the hand goes to the handle and pulls, or misses it."""
    rng = derive_rng("synthetic", task, state, sample)
    steps = int(rng.integers(8, 14)) if success else LIMIT
    start = np.array([0.15 + 0.2 * rng.random(), 0.2 + 0.1 * rng.random()])
    handle = np.array([0.49, 0.545]) + (0 if success else np.array([0.02, 0.14]))
    reach = steps // 2 + 1
    hands, opened = [], []
    for index in range(steps + 1):
        way = min(1.0, index / reach)
        pull = max(0.0, (index - reach) / max(1, steps - reach)) if success else 0.1 * (index > reach)
        place = start + (handle - start) * way + 0.008 * rng.standard_normal(2)
        hands.append(place - np.array([0.2 * pull, 0.0]))
        opened.append(pull)
    states = np.array(hands, np.float32)
    gripper = np.concatenate([states, 0.1 * np.ones((steps + 1, 1), np.float32)], axis=1).astype(np.float32)
    object_ = np.tile(np.array([0.49, 0.545, 0.1], np.float32), (steps + 1, 1))
    object_[:, 0] -= 0.2 * np.array(opened, np.float32)
    actions = rng.uniform(-1, 1, (steps, 7)).astype(np.float32)
    meta = EpisodeMeta(
        episode_id=f"{task}-{state:05d}-{sample:02d}",
        suite="metaworld",
        task=task,
        task_index=list(TASKS).index(task) if task in TASKS else 0,
        instruction=TASKS.get(task, task),
        initial_state=state,
        sample=sample,
        seed=int(rng.integers(2**31)),
        success=success,
        steps=steps,
        actor="policy",
        temperature=0.7,
        policy_hash="a" * 64,
        preprocessing_hash="b" * 64,
        prompt=f"In: What action should the robot take to {TASKS.get(task, task)}?\nOut:",
        versions=VERSIONS,
    )
    solved = np.zeros(steps + 1, np.float32)
    solved[-1] = float(success)
    return Trajectory(
        meta=meta,
        frames=np.stack([image(64, tuple(h), o, task) for h, o in zip(hands, opened, strict=True)]),
        proprio=np.zeros((steps + 1, 4), np.float32),
        actions=actions,
        labels=actions.copy(),
        action_tokens=rng.integers(0, 32, (steps, 7)).astype(np.int32),
        token_logps=-rng.exponential(0.3, (steps, 7)).astype(np.float32),
        keypoints={"gripper": gripper, "object": object_},
        signals={"success": solved, "opened": np.array(opened, np.float32)},
        display=np.stack([image(128, tuple(h), o, task) for h, o in zip(hands, opened, strict=True)])
        if display
        else None,
    )


def score(trajectory: Trajectory) -> Score:
    """A plausible score with three stages and six constraints."""
    steps, success = trajectory.steps, trajectory.meta.success
    distance = np.linalg.norm(trajectory.keypoints["gripper"] - trajectory.keypoints["object"], axis=1)
    speed = np.concatenate([[0.0], np.linalg.norm(np.diff(trajectory.keypoints["gripper"], axis=0), axis=1)])
    left = 1 - trajectory.signals["opened"]
    reach = steps // 2 + 1

    def constraint(
        name: str, kind: str, curve: np.ndarray, threshold: float, weight: float, unit: str, cost: float, tags: str
    ) -> ConstraintScore:
        return ConstraintScore(
            name=name,
            kind=kind,
            cost=cost,
            threshold=threshold,
            weight=weight,
            contribution=weight * max(0.0, cost - threshold),
            unit=unit,
            objectives=(tags,),
            curve=tuple(float(value) for value in curve),
        )

    near, way, quick = distance[: reach + 1], speed[1 : reach + 1], left[reach + 1 :]
    lost = distance[reach + 1 :]
    stages = [
        StageScore(
            "reach",
            0,
            reach,
            True,
            success,
            0.0,
            (
                constraint("gripper near handle", "subgoal", near, 0.04, 4.0, "m", float(near[-1]), "completion"),
                constraint("slow approach", "path", way, 0.08, 2.0, "m/step", float(way.max()), "safety"),
            ),
        ),
        StageScore(
            "pull",
            reach + 1,
            steps,
            reach < steps,
            success,
            0.0,
            (
                constraint("handle opened", "subgoal", quick, 0.1, 1.5, "fraction", float(quick[-1]), "completion"),
                constraint("hand stays at handle", "path", lost, 0.05, 3.0, "m", float(lost.mean()), "completion"),
                constraint("still in sight", "path", lost, 0.9, 1.0, "m", float(lost.max()), "safety"),
            ),
        ),
        StageScore(
            "hold",
            steps,
            steps if success else steps - 1,
            success,
            success,
            0.0,
            (
                constraint(
                    "stays open", "path", left[-1:] if success else left[:0], 0.1, 1.0, "fraction", 0.0, "safety"
                ),
            ),
        ),
    ]
    stages = [dataclasses.replace(s, cost=sum(c.contribution for c in s.constraints)) for s in stages]
    cost = sum(stage.cost for stage in stages)
    r_self = trajectory.logp
    terms = {
        "self": 0.3 * (r_self / steps + 2.1),
        "ext": float(np.exp(-cost)) - 0.5,
        "success": 1.0 if success else 0.0,
    }
    return Score(
        episode_id=trajectory.meta.episode_id,
        task=trajectory.meta.task,
        initial_state=trajectory.meta.initial_state,
        success=success,
        steps=steps,
        r_self=r_self,
        r_ext=float(np.exp(-cost)),
        cost=cost,
        terms=terms,
        gcpg=sum(terms.values()),
        stages=tuple(stages),
    )


def pair_of(chosen: Score, rejected: Score) -> PreferencePair:
    """The pair, with a reason as the pairing writes it."""
    terms = {key: chosen.terms[key] - rejected.terms[key] for key in chosen.terms}
    if chosen.success and not rejected.success:
        reason = f"It solved the task in {chosen.steps} steps, the other never did; 'reach' cost it 0.1 against 0.6."
    else:
        reason = f"Both ended alike, but its external reward was {chosen.r_ext:.2f} against {rejected.r_ext:.2f}."
    return PreferencePair(
        pair_id=f"{chosen.episode_id}--{rejected.episode_id}",
        task=chosen.task,
        initial_state=chosen.initial_state,
        chosen=chosen.episode_id,
        rejected=rejected.episode_id,
        margin=chosen.gcpg - rejected.gcpg,
        mode="best-worst",
        reason=reason,
        terms=terms,
    )


def write_iteration(
    folder: Path, first_state: int, *, states: int = 3, tasks: Sequence[str] = tuple(TASKS), display: bool = True
) -> None:
    """Rollouts, scores, pairs and training metrics of one iteration."""
    store = EpisodeStore.create(folder / "collect" / "store", "metaworld", {"camera": "free"})
    scores, pairs = [], []
    for task in tasks:
        for state in range(first_state, first_state + states):
            outcomes = [True, False] if state % 3 else [False, False]
            rollouts = [
                episode(task, state, sample, success=success, display=display)
                for sample, success in enumerate(outcomes)
            ]
            for rollout in rollouts:
                store.write(rollout)
            ranked = sorted((score(rollout) for rollout in rollouts), key=lambda item: -item.gcpg)
            scores += ranked
            pairs.append(pair_of(ranked[0], ranked[1]))
    for verb, name, rows in (
        ("score", "scores.jsonl", [score_to_row(item) for item in scores]),
        ("pair", "pairs.jsonl", [pair_to_row(pair) for pair in pairs]),
    ):
        run = open_run(folder / verb, verb, {"scores": "score"})
        write_jsonl(folder / verb / name, rows)
        run.finish({"store": "../collect/store"})
    write_curves(folder / "score" / CURVES_FILE, [curves_table((item.episode_id, item.stages) for item in scores)])
    rng = derive_rng("metrics", first_state)
    rows = []
    for update in range(1, 51):
        way = 1 - np.exp(-update / 15)
        rows.append(
            {
                "update": update,
                "loss": float(0.69 - 0.4 * way + 0.03 * rng.standard_normal()),
                "loss/nll": float(0.5 - 0.1 * way + 0.02 * rng.standard_normal()),
                "rewards/margins": float(1.6 * way + 0.1 * rng.standard_normal()),
                "rewards/accuracies": float(np.clip(0.5 + 0.45 * way + 0.05 * rng.standard_normal(), 0, 1)),
                "logps/chosen": float(-34 + 3 * way + 0.6 * rng.standard_normal()),
                "logps/rejected": float(-38 - 14 * way + 0.9 * rng.standard_normal()),
            }
        )
    write_jsonl(folder / "train" / "metrics.jsonl", rows)


def write_evaluation(folder: Path, rate: float, *, first_state: int, states: int = 25) -> EvaluationResults:
    """Results in which about ``rate`` of the states are solved: the same easy ones first."""
    outcomes = []
    for task in TASKS:
        ease = derive_rng("ease", task).permutation(states)
        shift = 0.08 if task == "drawer-open" else -0.08
        for index in range(states):
            solved = bool(ease[index] < (rate + shift) * states)
            outcomes.append(EpisodeOutcome(task, first_state + index, 0, solved, 9 + index % 4 if solved else LIMIT))
    results = EvaluationResults.from_outcomes(
        outcomes,
        TASKS,
        suite="metaworld",
        policy="policy",
        policy_hash=f"{rate}",
        temperature=0.0,
        seed=0,
        versions=VERSIONS,
    )
    write_results(folder, results)
    # An evaluation keeps its own rollouts; the page must not take them for an iteration's.
    EpisodeStore.create(folder / "rollouts" / "store", "metaworld", {"camera": "free"})
    return results


def write_run(root: Path, *, iterations: int = 3, finished: bool = True) -> Path:
    """A run as ``grape loop`` leaves it; not ``finished`` is one that stopped during its last iteration."""
    write_text(
        root / "settings.yaml", f"title: Meta-World, nano policy\nsuite: metaworld\niterations: {iterations}\nseed: 0\n"
    )
    write_json(root / "run.json", {"verb": "loop", "settings": {"seed": 0}, "inputs": {}})
    demonstrations = EpisodeStore.create(root / "demonstrations" / "store", "metaworld", {"camera": "free"})
    for task in TASKS:
        demonstrations.write(episode(task, 0, 0, success=True, display=False))
    rng = derive_rng("sft")
    write_jsonl(
        root / "sft" / "metrics.jsonl",
        [
            {"update": update, "loss": float(0.9 + 2.4 * np.exp(-update / 60) + 0.08 * rng.standard_normal())}
            | ({"loss/holdout": float(1.0 + 2.4 * np.exp(-update / 60))} if update % 40 == 0 else {})
            for update in range(1, 401)
        ],
    )
    rates = [0.44, 0.62, 0.56, 0.84][: iterations + 1]
    names = ["evaluate/sft"] + [f"iteration-{number}/evaluate" for number in range(1, iterations + 1)]
    labels = ["SFT"] + [f"iteration {number}" for number in range(1, iterations + 1)]
    policies = []
    for index, (name, label, rate) in enumerate(zip(names, labels, rates, strict=True)):
        if index:
            write_iteration(root / f"iteration-{index}", 1000 + 3 * index)
        if not finished and index == iterations:
            break
        results = write_evaluation(root / name, rate, first_state=70_000)
        accepted = index != 2
        policies.append(
            {
                "label": label,
                "evaluation": name,
                "success_rate": results.success_rate,
                "interval": list(results.interval),
                "accepted": accepted,
                "verdict": "starting point"
                if index == 0
                else "accepted: significantly better (+12.0 points on 50 pairs, one-sided p = 0.031)"
                if accepted
                else "rejected: significantly worse (-14.0 points on 50 pairs, one-sided p = 0.013)",
            }
        )
    if not finished:
        return root
    write_evaluation(root / "test" / "sft", 0.46, first_state=20_000, states=50)
    write_evaluation(root / "test" / "last", 0.82, first_state=20_000, states=50)
    write_json(
        root / "loop.json",
        {
            "title": "Meta-World, nano policy",
            "suite": "metaworld",
            "tasks": list(TASKS),
            "seed": 0,
            "iterations": iterations,
            "policies": policies,
            "policy": f"iteration-{iterations}/train/policy",
            "test": {"before": "test/sft", "after": "test/last"},
            "comparison": {},
            "versions": VERSIONS,
            "commands": ["grape loop --out runs/demo --suite metaworld --tasks drawer-open,faucet-open"],
        },
    )
    write_json(root / "done.json", {})
    return root
