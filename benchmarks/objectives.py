"""Do the weights of objectives change pairs as they should? ``python benchmarks/objectives.py --out runs/objectives``.

Records LIBERO's scripted experts without images at one task (a drawer, where some bump into the cabinet), then
scores and pairs the same rollouts again and again with its built-in costs: first with more and more weight on the tag
``safety``, then on ``efficiency``, the other tags left as they are, and looks at the chosen trajectories: states with a
collision, and steps. Writes one JSON record and one drawing. About 2 s of an idle core an episode (56 by default); what
was recorded or scored is not done again.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measured_on import commit, processor

from grape.core.files import write_json, write_text
from grape.core.selections import format_numbers, parse_numbers
from grape.core.trajectories import EpisodeMeta, Trajectory
from grape.envs.base import Environment
from grape.envs.libero.suite import LiberoSuite
from grape.envs.registry import select_tasks
from grape.preferences import PairSettings, ScoreSettings, read_pairs, run_pair, run_score
from grape.store import EpisodeStore

TAGS = ("safety", "efficiency")

FACTORS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Of one tag's weights, while those of the other tags stay."""

OPERATORS = {"clean": 1, "noisy": 3, "sloppy": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for recordings, scores and pairs")
    parser.add_argument("--suite", default="libero_goal")
    parser.add_argument("--task", default="open_the_middle_drawer_of_the_cabinet")
    parser.add_argument("--initial-states", default="10-17")
    parser.add_argument("--record", type=Path, default=Path("docs/results/objectives.json"))
    parser.add_argument("--drawing", type=Path, default=Path("docs/images/objectives.svg"))
    chosen = parser.parse_args()
    states = parse_numbers(chosen.initial_states, "initial states")
    store = record_all(chosen.out / "store", chosen.suite, chosen.task, states)
    facts = {name: facts_of(store.read(name, frames=False)) for name in store.ids()}
    sweeps = {tag: sweep(chosen.out, store, facts, tag) for tag in TAGS}
    record = {
        "command": "python benchmarks/objectives.py --out runs/objectives",
        "commit": commit(),
        "processor": processor(),
        "versions": dict(LiberoSuite(chosen.suite, images=False).versions()),
        "suite": chosen.suite,
        "task": chosen.task,
        "initial_states": format_numbers(states),
        "operators": OPERATORS,
        "episodes": len(facts),
        "successes": sum(fact["success"] for fact in facts.values()),
        "sweeps": sweeps,
    }
    write_json(chosen.record, record)
    chosen.drawing.parent.mkdir(parents=True, exist_ok=True)
    write_text(chosen.drawing, drawing(record))
    for tag, rows in sweeps.items():
        for row in rows:
            print(tag, row, flush=True)


def sweep(out: Path, store: EpisodeStore, facts: Mapping[str, Mapping[str, Any]], tag: str) -> list[dict[str, Any]]:
    """What is chosen under each factor of a tag, and how many pairs differ from those of the factor 1."""
    rows = [paired(out / f"{tag}-{factor:g}", store, facts, {tag: factor}) for factor in FACTORS]
    usual = rows[FACTORS.index(1.0)]["names"]
    for factor, row in zip(FACTORS, rows, strict=True):
        row["factor"] = factor
        row["pairs_changed"] = sum(pair not in usual for pair in row.pop("names"))
    return rows


def record_all(path: Path, suite_name: str, task_name: str, states: Sequence[int]) -> EpisodeStore:
    """Every operator from every initial state; episodes that are there already are left alone."""
    suite = LiberoSuite(suite_name, images=False)
    (task,) = select_tasks(suite, task_name)
    store = EpisodeStore.open(path) if path.exists() else EpisodeStore.create(path, suite_name, {})
    environment: Environment | None = None
    for state in states:
        for operator, samples in OPERATORS.items():
            for sample in range(samples):
                name = f"{state:03d}-{operator}-{sample}"
                if name not in store:
                    environment = environment or suite.make_environment(task)
                    store.write(play(suite, task, environment, name, operator, state, sample))
                    print(name, flush=True)
    return store


def play(
    suite: LiberoSuite, task: Any, environment: Environment, name: str, operator: str, state: int, sample: int
) -> Trajectory:
    """One episode of a scripted expert, without images."""
    snapshots = [environment.reset(state)]
    expert = suite.make_expert(task, operator, 1000 * sample + state)
    actions = []
    while not snapshots[-1].success and len(actions) < task.max_steps:
        actions.append(expert.act(snapshots[-1])[0])
        snapshots.append(environment.step(actions[-1]))
    steps = len(actions)
    executed = np.array(actions, dtype=np.float32).reshape(steps, suite.action_space.dim)
    meta = EpisodeMeta(
        episode_id=name,
        suite=suite.name,
        task=task.name,
        task_index=task.index,
        instruction=task.instruction,
        initial_state=state,
        sample=len(OPERATORS) * sample + list(OPERATORS).index(operator),
        seed=0,
        success=snapshots[-1].success,
        steps=steps,
        actor="expert",
        operator=operator,
    )
    return Trajectory(
        meta=meta,
        frames=np.zeros((steps + 1, 1, 1, 3), dtype=np.uint8),
        proprio=np.stack([snapshot.proprio for snapshot in snapshots]).astype(np.float32),
        actions=executed,
        labels=executed,
        action_tokens=np.full(executed.shape, -1, dtype=np.int32),
        token_logps=np.full(executed.shape, np.nan, dtype=np.float32),
        keypoints={
            key: np.stack([one.keypoints[key] for one in snapshots]).astype(np.float32)
            for key in snapshots[0].keypoints
        },
        signals={
            key: np.array([one.signals[key] for one in snapshots], dtype=np.float32) for key in snapshots[0].signals
        },
    )


def facts_of(trajectory: Trajectory) -> dict[str, Any]:
    """What the objectives are about, measured on the recording itself and not by the costs."""
    return {
        "success": trajectory.meta.success,
        "steps": trajectory.steps,
        "collisions": int((np.asarray(trajectory.signals["collision"]) > 0.5).sum()),
    }


def paired(
    out: Path, store: EpisodeStore, facts: Mapping[str, Mapping[str, Any]], objectives: Mapping[str, float]
) -> dict[str, Any]:
    """Pairs under one choice of weights, and what their chosen sides are like."""
    run_score(ScoreSettings(store=store.path, out=out / "scores", objectives=objectives))
    run_pair(PairSettings(scores=out / "scores", out=out / "pairs", mode="best-worst", require_mixed_outcomes=False))
    pairs = read_pairs(out / "pairs")
    sides = [facts[pair.chosen] for pair in pairs]
    return {
        "pairs": len(pairs),
        "chosen_collisions": float(np.mean([side["collisions"] for side in sides])),
        "chosen_steps": float(np.mean([side["steps"] for side in sides])),
        "chosen_success": float(np.mean([side["success"] for side in sides])),
        "names": [[pair.chosen, pair.rejected] for pair in pairs],
    }


def drawing(record: Mapping[str, Any]) -> str:
    """Two small charts above one another: what each tag is about, in chosen trajectories, by its factor."""
    charts = [
        ("safety", "States with a collision in chosen trajectories", "chosen_collisions", "#b3261e"),
        ("efficiency", "Steps of chosen trajectories", "chosen_steps", "#1a5fb4"),
    ]
    width, height, left, right = 640, 220, 56, 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {2 * height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f"<title>Chosen trajectories by the factors of safety and efficiency, {record['task']}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for number, (tag, title, key, color) in enumerate(charts):
        rows = record["sweeps"][tag]
        top = number * height
        values = [row[key] for row in rows]
        ceiling = 1.15 * max(values)
        xs = [left + (width - left - right) * (index + 0.5) / len(rows) for index in range(len(rows))]
        base = top + height - 52
        ys = [base - (height - 92) * value / ceiling for value in values]
        parts.append(f'<text x="{left}" y="{top + 24}" font-weight="600">{title}</text>')
        parts.append(f'<line x1="{left}" y1="{base}" x2="{width - right}" y2="{base}" stroke="#888"/>')
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2.5"/>')
        for x, y, value, row in zip(xs, ys, values, rows, strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
            parts.append(f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="middle">{value:.1f}</text>')
            parts.append(f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle">{row["factor"]:g}</text>')
        parts.append(f'<text x="{width / 2}" y="{base + 38}" text-anchor="middle">factor of {tag}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
