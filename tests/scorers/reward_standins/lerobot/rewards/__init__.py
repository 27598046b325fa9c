"""The factory functions of ``lerobot.rewards``, for Robometer and TOPReward."""

from types import SimpleNamespace

import numpy as np

from lerobot.standin import answer, load

_FIELDS = {
    "robometer": {"pretrained_path", "pretrained_revision", "device", "max_frames", "image_key", "reward_output"},
    "topreward": {"vlm_name", "device", "max_frames", "image_key", "fps", "add_chat_template"},
}


def make_reward_model_config(reward_type, **kwargs):
    if unknown := set(kwargs) - _FIELDS[reward_type]:
        raise TypeError(f"unexpected keyword arguments {unknown}")
    facts = {"image_key": "observation.images.top", "base_model_id": "Qwen/Qwen3-VL-4B-Instruct"}
    facts |= {"prompt_prefix": "The task: ", "prompt_suffix_template": "{instruction} True"}
    return SimpleNamespace(**{**facts, "type": reward_type, **kwargs, "device": kwargs.get("device") or "cpu"})


def make_reward_model(cfg, **kwargs):
    load(getattr(cfg, "pretrained_path", None) or cfg.vlm_name)
    return _Model(cfg)


def make_reward_pre_post_processors(reward_cfg, **kwargs):
    def preprocess(batch):
        video = np.asarray(batch[reward_cfg.image_key])
        if video.ndim != 5 or video.shape[2] != 3 or video.dtype != np.uint8:
            raise ValueError(f"Expected frames with shape (B,T,C,H,W); got {video.shape}")
        if not isinstance(batch["task"], str):
            raise TypeError("task must be a string")
        return {f"observation.{reward_cfg.type}.video": video[:, -reward_cfg.max_frames :], "task": [batch["task"]]}

    return preprocess, None


class _Model:
    def __init__(self, config):
        self.config = config

    def compute_reward(self, batch):
        """The brightness of each image, weighted by its place among them; minus that for TOPReward."""
        (video,) = batch[f"observation.{self.config.type}.video"]
        brightness = video.reshape(len(video), -1).mean(1) / 255
        weights = np.arange(1, len(video) + 1)
        value = float((brightness * weights).sum() / weights.sum())
        return answer(-value if self.config.type == "topreward" else value, batch["task"][0])
