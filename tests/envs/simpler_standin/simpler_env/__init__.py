"""Stands in for SimplerEnv in tests: its interface over a table without physics. Runs on Python 3.9 and numpy 1.26.

The hand goes where it is told, about axes of the base, which is turned by half a turn. It grasps the source when it
closes beside it, carries it along, and lets it fall where it opens. Numbers are a function of the episode alone.
"""

from types import SimpleNamespace

import numpy as np

assert np.__version__ < "2", "SimplerEnv gives wrong poses with numpy 2"

_TABLE = 0.87
_SIZES = ((0.115, 0.032, 0.038), (0.11, 0.11, 0.006))
_BASE = SimpleNamespace(p=np.array([0.147, 0.028, 0.87], np.float32), q=np.array([0, 0, 0, 1], np.float32))


def make(name):
    if name == "widowx_stack_cube":
        raise FileNotFoundError("info_bridge_custom_baked_tex_v0.json is not found")
    return Wrapper(World(name))


class Wrapper:
    """As gymnasium's wrappers: attributes of the world are behind ``unwrapped``."""

    def __init__(self, world):
        self.unwrapped = world

    def reset(self, seed=None, options=None):
        assert options["reconfigure"], "state of the last episode would be left"
        return self.unwrapped.reset(options["obj_init_options"]["episode_id"])

    def step(self, action):
        return self.unwrapped.step(action)

    def close(self):
        pass


class World:
    def __init__(self, name):
        self.name = name
        self.agent = SimpleNamespace(robot=self)
        self.pose = _BASE
        self.episode_model_bbox_sizes = [np.array(size) for size in _SIZES]

    def reset(self, episode):
        rng = np.random.RandomState(episode)
        height = _TABLE + _SIZES[0][2] / 2
        self._tool = np.array([-0.1, 0.0, 1.0])
        self._opening = 0.037
        self._source = np.array([*rng.uniform([-0.2, -0.1], [-0.12, 0.0]), height])
        self._target = np.array([*rng.uniform([-0.2, 0.05], [-0.12, 0.1]), _TABLE + _SIZES[1][2] / 2])
        self._begin = self._source.copy()
        self._grasped, self._in_a_row, self._ever_in_a_row = False, 0, False
        return self._observation(), {"episode_id": episode}

    def step(self, action):
        action = np.asarray(action, np.float64)
        assert action.shape == (7,)
        assert action[6] in (-1.0, 1.0)
        self._tool = self._tool + action[:3] * [-1, -1, 1]  # the base is turned about the vertical
        self._opening = 0.037 if action[6] > 0 else 0.015
        near = np.linalg.norm(self._tool - self._source) < 0.03
        self._grasped = bool(action[6] < 0 and (self._grasped or near))
        if self._grasped:
            self._source = self._tool.copy()
        else:
            on_plate = np.linalg.norm((self._source - self._target)[:2]) < 0.08
            self._source[2] = _TABLE + _SIZES[0][2] / 2 + (_SIZES[1][2] if on_plate else 0.0)
        self._in_a_row = self._in_a_row + 1 if self._grasped else 0
        self._ever_in_a_row = self._ever_in_a_row or self._in_a_row >= 5
        info = self.evaluate()
        return self._observation(), 0.0, info["success"], False, info

    def evaluate(self):
        offset = self._source - self._target
        on_target = bool(np.linalg.norm(offset[:2]) < 0.08 and 0 < offset[2] < 0.03 and not self._grasped)
        return {
            "moved_correct_obj": bool(np.linalg.norm((self._source - self._begin)[:2]) > 0.03),
            "moved_wrong_obj": False,
            "is_src_obj_grasped": self._grasped,
            "consecutive_grasp": self._in_a_row >= 5,
            "src_on_target": on_target,
            "success": np.bool_(on_target),
            "episode_stats": {"consecutive_grasp": self._ever_in_a_row},
        }

    def _observation(self):
        image = np.full((480, 640, 3), 40, np.uint8)
        for point, color in (
            (self._target, (80, 160, 80)),
            (self._source, (220, 120, 30)),
            (self._tool, (10, 10, 10)),
        ):
            row, column = (int(240 + 800 * (point[0] + 0.15)), int(320 + 800 * point[1]))
            image[max(0, row - 12) : max(0, row + 12), max(0, column - 12) : max(0, column + 12)] = color
        return {
            "image": {"3rd_view_camera": {"rgb": image}},
            "camera_param": {
                "3rd_view_camera": {
                    "extrinsic_cv": np.array(
                        [[1, 0, 0, 0.1], [0, -1, 0, 0], [0, 0, -1, 1.5], [0, 0, 0, 1]], np.float32
                    ),
                    "intrinsic_cv": np.array([[623.588, 0, 319.501], [0, 623.588, 239.545], [0, 0, 1]], np.float32),
                }
            },
        }

    # What the simulator's objects are asked for.
    def _thing(self, name, point):
        return SimpleNamespace(
            name=name, pose=SimpleNamespace(p=point.astype(np.float32), q=np.array([1, 0, 0, 0], np.float32))
        )

    @property
    def episode_source_obj(self):
        return self._thing("carrot", self._source)

    @property
    def episode_target_obj(self):
        return self._thing("plate", self._target)

    @property
    def episode_objs(self):
        return [self.episode_source_obj, self.episode_target_obj]

    @property
    def source_obj_pose(self):
        return self.episode_source_obj.pose

    @property
    def target_obj_pose(self):
        return self.episode_target_obj.pose

    def get_links(self):
        half = np.array([0.0, self._opening, 0.0])
        return [
            self._thing("ee_gripper_link", self._tool),
            self._thing("left_finger_link", self._tool + half),
            self._thing("right_finger_link", self._tool - half),
        ]

    def get_qpos(self):
        return np.array([0.0] * 6 + [self._opening] * 2, np.float32)

    @property
    def _scene(self):
        return self

    def get_contacts(self):
        def contact(one, other, impulse):
            return SimpleNamespace(
                actor0=SimpleNamespace(name=one),
                actor1=SimpleNamespace(name=other),
                points=[SimpleNamespace(impulse=np.array([0, 0, impulse], np.float32))],
            )

        contacts = [contact("carrot", "arena", 0.01), contact("left_finger_link", "arena", 0.0)]
        if self._grasped:
            contacts += [contact("left_finger_link", "carrot", 0.01), contact("carrot", "right_finger_link", 0.01)]
        if self._tool[2] < _TABLE:
            contacts.append(contact("left_finger_link", "arena", 0.02))
        return contacts
