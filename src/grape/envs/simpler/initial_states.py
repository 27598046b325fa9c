"""Initial states: the 24 of the benchmark, and those that are drawn beyond them in the suite with small images.

State *i* >= 24 of a task is drawn by numpy's generator seeded with ``derive_rng("simpler_widowx", task's name,
"initial-state", i)``, a function of task and index alone:

1. the source's place, then the target's, each uniform over the smallest axis-parallel rectangle that holds all the
   places of that thing in ManiSkill's task. Both are drawn again until they are as far apart as source and target are
   in ManiSkill's closest pair of places (0.15 m for carrot and spoon, 0.1 m for the cubes; the basket stays);
2. one of ManiSkill's orientations (carrot and spoon 2, cubes 1, eggplant 8), uniform;
3. an angle, uniform over a full turn, by which the source is turned about the vertical; the target's stays.

Heights are ManiSkill's, and things come to rest from there as in its own states. The eggplant alone starts 1 cm higher
and falls into the sink: turned freely at ManiSkill's height it overlaps the bottom, and one in a hundred was pressed
through it.
"""

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from grape.core.errors import SettingsError
from grape.core.seeds import derive_rng
from grape.core.tasks import Task
from grape.envs.simpler.tasks import arrangement_of, is_nano

__all__ = ["N_BENCHMARK", "about_initial_states", "check_initial_state", "drawn_placement", "n_initial_states"]

N_BENCHMARK = 24
"""Initial states a task that the benchmark plays: where source and target stand, times how the source lies.

ManiSkill 3 has as many of each task but the eggplant's, which has 64 (8 places times 8 orientations): the benchmark's
are its first 24."""

_N_NANO = 1_000_000
_FALL = 0.01  # meters

Float64 = npt.NDArray[np.float64]


def n_initial_states(suite: str) -> int:
    """How many initial states each task of a suite has."""
    return _N_NANO if is_nano(suite) else N_BENCHMARK


def about_initial_states(task: Task) -> str:
    """Why a task has fewer initial states than ManiSkill, in a sentence; empty where it does not."""
    if is_nano(task.suite) or not arrangement_of(task).hidden_target:
        return ""
    return (
        "ManiSkill 3 has 64 of the eggplant's task (8 places, 8 orientations); the benchmark and published evaluations "
        "play the first 24, and so does this suite."
    )


def check_initial_state(task: Task, initial_state: int) -> None:
    """Refuse an initial state that a task does not have.

    Raises:
        SettingsError: There is no such initial state.
    """
    count = n_initial_states(task.suite)
    if not 0 <= initial_state < count:
        raise SettingsError(
            f"Task {task.id} has no initial state {initial_state}.",
            f"Choose from 0 to {count - 1}. {about_initial_states(task)}".rstrip(),
        )


def drawn_placement(task: Task, initial_state: int, places: Float64, turns: Float64) -> tuple[Float64, Float64]:
    """Where source and target start in an initial state beyond the benchmark's.

    Args:
        task: The task.
        initial_state: Its index.
        places: ManiSkill's places of source and target, meters ``(N, 2, 3)``.
        turns: ManiSkill's orientations of both, quaternions ``(M, 2, 4)``, real part first.

    Returns:
        Places, meters ``(2, 3)``, and orientations, quaternions ``(2, 4)``.
    """
    rng = derive_rng("simpler_widowx", task.name, "initial-state", initial_state)
    low, high = places.min(axis=0), places.max(axis=0)
    least = float(np.linalg.norm(places[:, 0, :2] - places[:, 1, :2], axis=1).min()) - 1e-9
    while True:
        drawn: Float64 = rng.uniform(low, high)
        if np.linalg.norm(drawn[0, :2] - drawn[1, :2]) >= least:
            break
    if arrangement_of(task).hidden_target:
        drawn[0, 2] += _FALL
    orientations = turns[rng.integers(len(turns))].copy()
    turn = Rotation.from_euler("z", rng.uniform(0.0, 2.0 * np.pi))
    source = turn * Rotation.from_quat(orientations[0], scalar_first=True)
    orientations[0] = source.as_quat(scalar_first=True)
    return drawn, orientations
