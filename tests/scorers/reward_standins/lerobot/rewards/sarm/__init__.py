"""``lerobot.rewards.sarm``: the reward of a window of images and states, and a processor that is in training mode."""

from types import SimpleNamespace

import numpy as np

from lerobot.standin import Tensor, answer, load

GAP = 3
WINDOW = 4
REWIND = 2


class SARMRewardModel:
    @classmethod
    def from_pretrained(cls, pretrained_name_or_path, *, config=None, revision=None, strict=False, **kwargs):
        load(pretrained_name_or_path)
        return cls()

    def __init__(self):
        half = [GAP * step for step in range(-WINDOW // 2, WINDOW // 2 + 1)]
        self.config = SimpleNamespace(
            device="cuda",
            image_key="observation.images.top",
            state_key="observation.state",
            n_obs_steps=WINDOW,
            annotation_mode="single_stage",
            uses_dual_heads=False,
            observation_delta_indices=half + [-GAP * (step + 1) for step in range(REWIND)],
        )
        self.training = True

    def to(self, device):
        return self

    def eval(self):
        self.training = False
        return self

    def calculate_rewards(
        self,
        text_embeddings,
        video_embeddings,
        state_features=None,
        lengths=None,
        return_all_frames=False,
        return_stages=False,
        return_confidence=False,
        head_mode="sparse",
        frame_index=None,
    ):
        """Brightness and state of each image of the window, ``(1, T)``."""
        assert not self.training
        assert return_all_frames
        assert head_mode == "sparse"
        video, states = np.array(video_embeddings.tolist()), np.array(state_features.tolist())
        rewards = video.mean(-1) + states.mean(-1) / 100
        misbehavior = answer(0.0, text_embeddings)
        return rewards + misbehavior.tolist()[0] if misbehavior.shape == (1,) else rewards[0]


class _Encoding:
    def __init__(self):
        self.training = True

    def eval(self):
        self.training = False


class _Pipeline:
    def __init__(self, config, stats):
        self._config, self._stats = config, stats
        self.steps = [object(), _Encoding()]

    def __call__(self, batch):
        video, states = batch[self._config.image_key], batch[self._config.state_key]
        if video.ndim != 4 or video.shape[1] != 3 or video.dtype != np.uint8 or states.dtype != np.float32:
            raise ValueError(f"got images {video.shape} and states {states.dtype}")
        if batch.get("index") is None or batch.get("episode_index") is None:
            raise ValueError("Frame index ('index') not found in COMPLEMENTARY_DATA")
        task = "something perturbed" if self.steps[1].training else batch["task"]
        scaled = (states - self._stats["mean"]) / (self._stats["std"] + 1e-8)
        brightness = video.reshape(len(video), -1).mean(1, keepdims=True) / 255
        if self.steps[1].training:
            brightness = brightness[::-1]
        video[WINDOW + 1 :] = 0  # in place, as LeRobot does
        return {
            "video_features": Tensor(brightness[None]),
            "text_features": task,
            "state_features": Tensor(scaled[None]),
            "lengths": Tensor([WINDOW + 1]),
        }


def make_sarm_pre_post_processors(config, dataset_stats=None, dataset_meta=None):
    return _Pipeline(config, dataset_stats[config.state_key]), None
