"""robosuite's control of the arm within an environment step, to the bit, at half of its time.

Its ``control`` runs 25 times an environment step. Each time it looks up the names of sites and actuators, asks MuJoCo
four times for Jacobians of one site, and computes the limits of the action space three times over to check the action's
length. This was 85 of some 160 microseconds of a physics step, and is 45 here; see docs/rollout-speed.md.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ArmControl"]

Float64 = npt.NDArray[np.float64]

_FINGERS = np.array([-1.0, 1.0])  # which way each finger moves where the gripper's action is positive


class ArmControl:
    """Stands in for robosuite's ``_pre_action`` in physics steps that bring no new action.

    Args:
        mujoco: The module.
        domain: LIBERO's environment of one Panda arm under operational space control, after a reset.
    """

    def __init__(self, mujoco: Any, domain: Any) -> None:
        self._mujoco = mujoco
        self._robot = robot = domain.robots[0]
        self._model = model = domain.sim.model._model
        arm = robot.controller
        self._site = int(model.site(arm.eef_name).id)
        self._positions, self._velocities = np.array(arm.qpos_index), np.array(arm.qvel_index)
        self._arm_actuators = np.array(robot._ref_joint_actuator_indexes)
        self._low, self._high = robot.torque_limits
        self._finger_actuators = np.array(robot._ref_joint_gripper_actuator_indexes)
        low, high = model.actuator_ctrlrange[self._finger_actuators].T
        self._finger_center, self._finger_reach = 0.5 * (high + low), 0.5 * (high - low)
        self._jacobians: tuple[Float64, Float64] = (np.zeros((3, model.nv)), np.zeros((3, model.nv)))
        self._inertia: Float64 = np.zeros((model.nv, model.nv))

    def hold(self, data: Any, gripper_action: Float64) -> None:
        """Drive on to the goal of the last action: torques and finger positions of one physics step.

        Args:
            data: The ``mujoco.MjData``, its constraint forces solved.
            gripper_action: The part of the last action that moves the fingers, ``(1,)``.
        """
        robot = self._robot
        self._measure(robot.controller, data)
        torques = robot.controller.run_controller()
        data.ctrl[self._arm_actuators] = np.minimum(np.maximum(torques, self._low), self._high)
        gripper = robot.gripper
        fingers = gripper.current_action + _FINGERS * gripper.speed * np.sign(gripper_action)
        gripper.current_action = np.minimum(np.maximum(fingers, -1.0), 1.0)
        data.ctrl[self._finger_actuators] = self._finger_center + self._finger_reach * gripper.current_action

    def _measure(self, arm: Any, data: Any) -> None:
        """What robosuite's ``Controller.update`` reads, by its own operations in its memory layout."""
        linear, angular = self._jacobians
        self._mujoco.mj_jacSite(self._model, data, linear, angular, self._site)
        self._mujoco.mj_fullM(self._model, self._inertia, data.qM)
        velocities = data.qvel
        arm.ee_pos = data.site_xpos[self._site].copy()
        arm.ee_ori_mat = data.site_xmat[self._site].reshape(3, 3).copy()
        arm.ee_pos_vel, arm.ee_ori_vel = np.dot(linear, velocities), np.dot(angular, velocities)
        arm.joint_pos, arm.joint_vel = data.qpos[self._positions], velocities[self._velocities]
        arm.J_pos, arm.J_ori = linear[:, self._velocities], angular[:, self._velocities]
        arm.J_full = np.vstack([arm.J_pos, arm.J_ori])
        arm.mass_matrix = self._inertia[self._velocities, :][:, self._velocities]
        arm.new_update = False
