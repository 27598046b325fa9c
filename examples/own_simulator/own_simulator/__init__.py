"""A simulator of one's own: a dot that is to reach a green square, as a Gymnasium environment and as a suite."""

from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from grape.envs.gymnasium_suite import GymnasiumSuite, GymnasiumTask


class DotReach(gymnasium.Env):
    """A dot on a table of 40 x 40 cm, which moves by up to 5 cm an action."""

    action_space = Box(-1, 1, (2,), np.float32)
    observation_space = Dict(image=Box(0, 255, (64, 64, 3), np.uint8), position=Box(-0.2, 0.2, (2,), np.float32))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.dot, self.goal = self.np_random.uniform(-0.18, 0.18, (2, 2))
        return self.observe()

    def step(self, action):
        self.dot = np.clip(self.dot + 0.05 * action, -0.2, 0.2)
        observation, info = self.observe()
        return observation, float(info["success"]), info["success"], False, info

    def observe(self):
        image = np.full((64, 64, 3), 230, np.uint8)
        for half, point, color in ((5, self.goal, (60, 160, 60)), (2, self.dot, (20, 20, 20))):
            x, y = (32 + 150 * point).astype(int)
            image[y - half : y + half, x - half : x + half] = color
        success = bool(np.linalg.norm(self.dot - self.goal) < 0.03)
        keypoints = {"dot": [*self.dot, 0.0], "goal": [*self.goal, 0.0]}  # optional: costs are written against them
        return {"image": image, "position": self.dot.astype(np.float32)}, {"success": success, "keypoints": keypoints}


gymnasium.register("DotReach-v0", DotReach, max_episode_steps=12)


class DotSuite(GymnasiumSuite):
    """The environment under a name of its own, with a scripted expert and a cost specification."""

    operators = ("clean",)

    def __init__(self):
        task = GymnasiumTask("own_simulator:DotReach-v0", instruction="move the dot to the green square")
        super().__init__("dots", {"reach": task}, costs=Path(__file__).with_name("costs"))

    def make_expert(self, task, operator, seed):
        return DotExpert()


class DotExpert:
    """Goes straight to the goal."""

    def act(self, snapshot):
        way = (snapshot.keypoints["goal"] - snapshot.keypoints["dot"])[:2]
        action = np.clip(way / 0.05, -1, 1).astype(np.float32)
        return action, action  # what is executed, and what an imitator learns
