"""The scorers that GRAPE brings: success, and cost specifications."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grape.core.errors import SettingsError
from grape.core.trajectories import Trajectory
from grape.costs import (
    CostSpecification,
    evaluate,
    known_specification,
    load_specification,
    specification_hash,
    with_unknown_outcome,
)
from grape.scorers.base import EpisodeScore, Scorer

__all__ = ["CostScorer", "SuccessScorer"]

_COST_NOISE = 0.001  # as of pairs: less than what keypoints and contacts reproduce


class SuccessScorer(Scorer):
    """I_success: 1 for a solved task, 0 for one that was not, no value where nobody knows."""

    def score(self, trajectory: Trajectory) -> EpisodeScore:
        """The recorded outcome."""
        success = trajectory.meta.success
        if success is None:
            return EpisodeScore(trajectory.meta.episode_id, None, problem="the outcome is unknown")
        return EpisodeScore(trajectory.meta.episode_id, float(success))


class CostScorer(Scorer):
    """Minus the cost of a specification, ``-sum_i C_i``, without the simulator's verdict.

    Args:
        path: A YAML file, or a folder of them; built-in specifications price what is not in it. Empty for those alone.
    """

    noise = _COST_NOISE

    def __init__(self, path: str = "") -> None:
        self._of_tasks: dict[str, CostSpecification | None] = {}
        self._of_any: CostSpecification | None = None
        for file in _files(path):
            specification = load_specification(file)
            if specification.task or Path(path).is_dir():
                self._of_tasks[specification.task or file.stem] = specification
            else:
                self._of_any = specification

    def score(self, trajectory: Trajectory) -> EpisodeScore:
        """Price the episode; no value where its task has no specification."""
        meta = trajectory.meta
        if meta.task not in self._of_tasks:
            self._of_tasks[meta.task] = self._of_any or known_specification(meta.suite, meta.task)
        specification = self._of_tasks[meta.task]
        if specification is None:
            return EpisodeScore(meta.episode_id, None, problem=f"task '{meta.task}' has no cost specification")
        stages = evaluate(specification, with_unknown_outcome(trajectory))
        return EpisodeScore(meta.episode_id, -sum(stage.cost for stage in stages))

    def provenance(self) -> Mapping[str, Any]:
        """Hashes of the specifications that were used."""
        hashes = {task: specification_hash(item) for task, item in sorted(self._of_tasks.items()) if item is not None}
        return {"specifications": hashes}


def _files(path: str) -> list[Path]:
    if not path:
        return []
    place = Path(path)
    if not place.exists():
        raise SettingsError(f"--scorer costs:{path}: there is no such file.", "Give a YAML file or a folder of them.")
    files = sorted(item for item in place.iterdir() if item.suffix in (".yaml", ".yml")) if place.is_dir() else [place]
    if not files:
        raise SettingsError(f"--scorer costs:{path} holds no YAML file.", "Give a YAML file or a folder of them.")
    return files
