"""Scores episodes by SARM, a stage-aware reward model that somebody trained on a dataset of the robot's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


class Sarm:
    """Progress in the task at the last image, in [0, 1], by SARM.

    Written against LeRobot 0.6.2 (commit 7427f31, Apache-2.0; 0.6.1 has the same interface), ``lerobot.rewards.sarm``:
    ``SARMRewardModel.from_pretrained``, ``make_sarm_pre_post_processors`` and ``calculate_rewards`` with
    ``return_all_frames``, called as LeRobot's own program that computes progress for a dataset calls them: a window of
    images and robot states around a control step (``observation_delta_indices`` of the configuration, steps beyond the
    episode clamped to it), the processor in evaluation mode, and of the ``(B, T)`` values the one in the middle of the
    window. A model is trained on a dataset of the robot and task, one row a control step, as ``grape export lerobot``
    writes them; ``--stats`` names that dataset's statistics. Paper: arXiv 2509.25358.
    """

    task = "scorer"
    package = "lerobot"
    needs = "'lerobot[sarm,dataset]', 0.6 or later"

    @staticmethod
    def add_options(parser: Any) -> None:
        """Options of this reward."""
        parser.add_argument("--model", required=True, help="folder or name of the trained model")
        parser.add_argument("--revision", help="its revision")
        parser.add_argument(
            "--stats", required=True, help="meta/stats.json of the dataset that it was trained on, which scales states"
        )
        parser.add_argument("--head", choices=("sparse", "dense"), default="sparse", help="(default: sparse)")
        parser.add_argument("--device", help="e.g. cuda or cpu (default: what LeRobot chooses)")

    def __init__(self, options: Any) -> None:
        from lerobot.rewards.sarm import SARMRewardModel, make_sarm_pre_post_processors

        self._model = SARMRewardModel.from_pretrained(options.model, revision=options.revision)
        config = self._model.config
        if options.device:
            config.device = options.device
            self._model.to(options.device)
        self._model.eval()
        if options.head == "dense" and not config.uses_dual_heads:
            raise ValueError(f"a model of mode {config.annotation_mode} has no dense head")
        self._config, self._head = config, options.head
        with open(options.stats, encoding="utf-8") as file:
            stats = json.load(file)[config.state_key]
        self._width = len(stats["mean"])
        scaling = {name: np.asarray(stats[name], dtype=np.float32) for name in ("mean", "std")}
        self._preprocess, _ = make_sarm_pre_post_processors(
            config=config, dataset_stats={config.state_key: scaling}, dataset_meta=None
        )
        # Else it rewinds episodes and changes the task at random, as it does to train.
        for step in self._preprocess.steps:
            if hasattr(step, "eval"):
                step.eval()
        self.about = {"name": f"SARM progress, {options.head} head", "mode": config.annotation_mode}

    def value(self, episode: Any, image: int) -> Any:
        """Progress at an image, seen in the middle of a window of images and states."""
        states = episode.states()  # one a control step, and the last
        if states.shape[1] != self._width:
            raise ValueError(f"a state has {states.shape[1]} numbers, and the dataset's statistics have {self._width}")
        steps = episode.times[image] + np.array(self._config.observation_delta_indices)
        window = np.clip(steps, 0, episode.control_steps)
        batch = self._preprocess(
            {
                self._config.image_key: episode.images_at(window).transpose(0, 3, 1, 2),
                self._config.state_key: states[window].astype(np.float32),
                "task": episode.instruction,
                "index": int(episode.times[image]),
                "episode_index": 0,
            }
        )
        progress = self._model.calculate_rewards(
            text_embeddings=batch["text_features"],
            video_embeddings=batch["video_features"],
            state_features=batch["state_features"],
            lengths=batch["lengths"],
            return_all_frames=True,
            head_mode=self._head,
        )
        if progress.shape != (1, len(window)):
            raise ValueError(f"the model answered progress of shape {progress.shape}, not {(1, len(window))}")
        return progress[0, self._config.n_obs_steps // 2]


if __name__ == "__main__":
    from reward_protocol import serve

    serve(Sarm)
