"""The nine tasks: names, objects, goals and success criteria.

Success is Meta-World's own criterion, restated here as one formula so that a decision need not compute rewards; a
test compares it with the package's ``info["success"]``. Keypoints are chosen so that ``object`` can physically reach
``goal``, which Meta-World's observation of the object and its target do not always allow.
"""

from dataclasses import dataclass
from typing import Literal

from grape.core.tasks import Task

__all__ = ["TASKS", "TASK_MODELS", "Anchor", "TaskModel"]

_Vector = tuple[float, float, float]
_ORIGIN: _Vector = (0.0, 0.0, 0.0)
_XYZ: _Vector = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Anchor:
    """A point fixed to something in the simulator.

    Attributes:
        kind: What ``name`` names in the MuJoCo model.
        name: Name in the model.
        offset: Added in the world frame, meters.
    """

    kind: Literal["body", "geom", "site"]
    name: str
    offset: _Vector = _ORIGIN


@dataclass(frozen=True)
class TaskModel:
    """Names and constants of one Meta-World task.

    Attributes:
        task: The task as the rest of the project sees it.
        module: Module of the environment class under ``metaworld.envs``.
        environment: Name of the environment class.
        policy: Name of the scripted policy in ``metaworld.policies``.
        gain: Factor on the policy's translation. The scripts are written for a decision every simulator step; with
            gain 25 a held action overshoots the point it aims at.
        anchor: The point that has to get to the goal; None for the gripper itself.
        bodies: Bodies whose contact with the fingers counts as touching the object.
        articulated: Whether the object is a handle (then keypoint ``handle`` exists).
        goal_axes: Axes along which the goal keypoint is Meta-World's target; on the others it is the object's start.
        travel: Where the object's end stop and not the target limits the motion: displacement of the goal keypoint
            from the object's start, meters; overrides ``goal_axes``.
        success_radius: Success is ``|(seen + success_offset - target) * success_axes| <= success_radius``, meters,
            with ``seen`` Meta-World's observed object position (or the gripper, where ``anchor`` is None).
        success_axes: See ``success_radius``.
        success_offset: See ``success_radius``.
        show_goal: Whether the goal's marker is drawn: where the instruction speaks of a target.
    """

    task: Task
    module: str
    environment: str
    policy: str
    gain: float
    anchor: Anchor | None
    bodies: tuple[str, ...]
    articulated: bool
    success_radius: float
    success_axes: _Vector = _XYZ
    success_offset: _Vector = _ORIGIN
    goal_axes: _Vector = _XYZ
    travel: _Vector | None = None
    show_goal: bool = False


def _task(index: int, name: str, instruction: str, max_steps: int = 16) -> Task:
    return Task("metaworld", index, name, instruction, max_steps)  # one decision = 8 simulator steps = 0.1 s


TASK_MODELS = (
    TaskModel(
        task=_task(0, "drawer-open", "open the drawer"),
        module="sawyer_drawer_open_v3",
        environment="SawyerDrawerOpenEnvV3",
        policy="SawyerDrawerOpenV3Policy",
        gain=2.0,
        anchor=Anchor("body", "drawer_link", (0.0, -0.16, 0.0)),
        bodies=("drawer_link",),
        articulated=True,
        success_radius=0.03,
    ),
    TaskModel(
        task=_task(1, "faucet-open", "turn on the faucet"),
        module="sawyer_faucet_open_v3",
        environment="SawyerFaucetOpenEnvV3",
        policy="SawyerFaucetOpenV3Policy",
        gain=0.5,
        anchor=Anchor("site", "handleStartOpen"),
        bodies=("faucet_link2",),
        articulated=True,
        success_radius=0.07,
        success_offset=(-0.04, 0.0, 0.03),
    ),
    TaskModel(
        task=_task(2, "button-press", "press the button"),
        module="sawyer_button_press_v3",
        environment="SawyerButtonPressEnvV3",
        policy="SawyerButtonPressV3Policy",
        gain=0.5,
        anchor=Anchor("body", "button", (0.0, -0.193, 0.0)),
        bodies=("button",),
        articulated=True,
        success_radius=0.02,
        success_axes=(0.0, 1.0, 0.0),
        goal_axes=(0.0, 1.0, 0.0),
    ),
    TaskModel(
        task=_task(3, "drawer-close", "close the drawer"),
        module="sawyer_drawer_close_v3",
        environment="SawyerDrawerCloseEnvV3",
        policy="SawyerDrawerCloseV3Policy",
        gain=1.0,
        anchor=Anchor("body", "drawer_link", (0.0, -0.16, 0.0)),
        bodies=("drawer_link",),
        articulated=True,
        success_radius=0.055,
    ),
    TaskModel(
        task=_task(4, "door-open", "open the door", max_steps=28),
        module="sawyer_door_v3",
        environment="SawyerDoorEnvV3",
        policy="SawyerDoorOpenV3Policy",
        gain=1.0,
        anchor=Anchor("geom", "handle"),
        bodies=("door_link",),
        articulated=True,
        success_radius=0.08,
        success_axes=(1.0, 0.0, 0.0),
    ),
    TaskModel(
        task=_task(5, "window-open", "open the window"),
        module="sawyer_window_open_v3",
        environment="SawyerWindowOpenEnvV3",
        policy="SawyerWindowOpenV3Policy",
        gain=0.7,
        anchor=Anchor("site", "handleOpenStart"),
        bodies=("windowb_a",),
        articulated=True,
        success_radius=0.05,
        success_axes=(1.0, 0.0, 0.0),
        travel=(0.2, 0.0, 0.0),
    ),
    TaskModel(
        task=_task(6, "reach", "reach the red target"),
        module="sawyer_reach_v3",
        environment="SawyerReachEnvV3",
        policy="SawyerReachV3Policy",
        gain=2.0,
        anchor=None,
        bodies=(),
        articulated=False,
        success_radius=0.05,
        show_goal=True,
    ),
    TaskModel(
        task=_task(7, "push", "push the puck to the target"),
        module="sawyer_push_v3",
        environment="SawyerPushEnvV3",
        policy="SawyerPushV3Policy",
        gain=0.7,
        anchor=Anchor("body", "obj"),
        bodies=("obj",),
        articulated=False,
        success_radius=0.05,
        show_goal=True,
    ),
    TaskModel(
        task=_task(8, "pick-place", "pick up the puck and move it to the target"),
        module="sawyer_pick_place_v3",
        environment="SawyerPickPlaceEnvV3",
        policy="SawyerPickPlaceV3Policy",
        gain=0.7,
        anchor=Anchor("body", "obj"),
        bodies=("obj",),
        articulated=False,
        success_radius=0.07,
        show_goal=True,
    ),
)
"""All tasks; position equals index."""

TASKS = tuple(model.task for model in TASK_MODELS)
