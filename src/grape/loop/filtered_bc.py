"""Filtered behavior cloning (filtered BC) beside the loop: what imitating the successes gives from the same rollouts.

The comparison a reader asks for first. Filtered BC starts from the same policy as iteration 1 and sees the same
rollouts, scored the same way; it imitates the successes among the best, also of initial states where all succeeded.
Both policies are then measured on the loop's test states.
"""

from pathlib import Path
from typing import Any

from grape.core.errors import NoPairsError
from grape.core.events import Reporter
from grape.evaluation import read_results, run_compare, run_evaluate
from grape.loop.stages import Stages
from grape.loop.trainings import Trainings
from grape.preferences import run_pair

__all__ = ["compare_filtered_bc"]

LABEL = "filtered BC"


def compare_filtered_bc(
    stages: Stages,
    first: Path,
    first_entry: dict[str, Any],
    trained: Path,
    method: str,
    trainings: Trainings,
    reporter: Reporter,
) -> list[dict[str, Any]]:
    """Train and measure the baseline; every stage resumes like the loop's own.

    Args:
        stages: The loop's stages.
        first: The policy that collected iteration 1's rollouts.
        first_entry: Its entry among the loop's policies.
        trained: The policy that iteration 1 trained on them.
        method: How it was trained, for people, e.g. ``"tpo"``.
        trainings: Runs the training.
        reporter: Hears of progress.

    Returns:
        The loop's ``arms``, one or none: ``label``, ``folder``, ``policies`` (the first one and the baseline, measured
        on the validation states), ``test`` (folder, success and interval of both policies on the test states) and
        ``comparison`` (filtered BC as A, the loop's own method as B).
    """
    reporter.info(f"{LABEL} on the rollouts of iteration 1")
    folder = stages.filtered_bc_folder
    try:
        chosen_success_rate = run_pair(stages.filtered_bc_pair(), reporter)["chosen_success_rate"]
    except NoPairsError:  # where the loop itself learns from single episodes
        chosen_success_rate = None
    if not chosen_success_rate:
        reporter.warn("No chosen trajectory of iteration 1 succeeded: there is nothing to imitate, so no comparison.")
        return []
    trainings.train(stages.filtered_bc_train(first), reporter)
    policy = folder / "train" / "policy"
    run_evaluate(stages.validate(policy, folder / "evaluate"), reporter, chooses=True)
    own, baseline = stages.root / "test" / "iteration-1", stages.root / "test" / "filtered-cloning"
    run_evaluate(stages.test(trained, own), reporter)
    run_evaluate(stages.test(policy, baseline), reporter)
    comparison = run_compare(stages.compare(baseline, own, stages.root / "test" / "compare-cloning"), reporter)
    name = method.upper() if method in ("tpo", "kto", "rloo") else method
    return [
        {
            "label": LABEL,
            "folder": folder.name,
            "policies": [
                {key: first_entry[key] for key in ("label", "policy", "evaluation", "success_rate", "interval")},
                {"label": LABEL, "policy": f"{folder.name}/train/policy"} | _measured(folder / "evaluate", stages.root),
            ],
            "test": [
                {"label": f"{name}, iteration 1"} | _measured(own, stages.root),
                {"label": f"{LABEL}, rollouts of iteration 1"} | _measured(baseline, stages.root),
            ],
            "comparison": dict(comparison),
        }
    ]


def _measured(evaluation: Path, root: Path) -> dict[str, Any]:
    results = read_results(evaluation)
    return {
        "evaluation": str(evaluation.relative_to(root)),
        "success_rate": results.success_rate,
        "interval": list(results.interval),
        "episodes": results.episodes,
    }
