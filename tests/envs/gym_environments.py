"""Gymnasium environments for tests, registered where this module is imported: sound ones, and faulty ones by name."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

IMAGE, STATE = Box(0, 255, (24, 32, 3), np.uint8), Box(-1, 1, (2,), np.float32)
MODULE = __name__


class Line(gymnasium.Env):
    """A point on a line; solved at 1, over at -1. ``fault`` names what is wrong with it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    instruction = "go right"
    action_space = Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32))
    observation_space = Dict(image=IMAGE, state=STATE)

    def __init__(self, render_mode=None, fault="", tells="success"):
        self.render_mode, self.fault, self.tells = render_mode, fault, tells
        if fault == "state alone":
            self.observation_space = STATE
        elif fault == "no image":
            self.observation_space, self.metadata = STATE, {"render_modes": []}
        elif fault == "two images":
            self.observation_space = Dict(left=IMAGE, right=IMAGE, state=STATE)
        elif fault == "discrete":
            self.action_space = Discrete(3)
        elif fault == "unbounded":
            self.action_space = Box(-np.inf, np.inf, (2,), np.float32)
        elif fault == "make":
            raise OSError("no such robot")
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=None if self.fault == "seedless" else seed)
        self.x, self.steps = float(self.np_random.uniform(-0.2, 0.2)), 0
        return self._observation(), self._info()

    def step(self, action):
        self.steps += 1
        self.actions.append(action)
        if self.fault == "step":
            raise ZeroDivisionError("the motor stalls")
        self.x += 0.5 * float(action[0])
        return self._observation(), self.x, abs(self.x) >= 1, False, self._info()

    def render(self):
        return np.full((24, 32, 3), round(100 + 50 * self.x), np.uint8)

    def _observation(self):
        image = self.render()
        state = np.array([self.x, np.nan if self.fault == "nan" and self.steps else 0], np.float32)
        if self.fault in ("state alone", "no image"):
            return state
        if self.fault == "two images":
            return {"left": image, "right": image // 2, "state": state}
        if self.fault == "float image":
            return {"image": image / 255, "state": state}
        return {"image": image, "state": state}

    def _info(self):
        points = {"point": [self.x, 0, 0]}
        if self.fault == "lost keypoint" and self.steps:
            points = {}
        elif self.fault == "flat keypoint":
            points = {"point": [self.x, 0]}
        info = {"keypoints": points, "signals": {"speed": 0.5}}
        if self.tells == "late" and self.steps < 2:
            return info
        return info | ({} if self.tells in ("", "late") else {self.tells: np.bool_(self.x >= 1)})


gymnasium.register("Line-v0", Line, max_episode_steps=6)
gymnasium.register("Endless-v0", Line)
