"""Scores episodes by TOPReward: how likely a vision-language model finds it that the task was done."""

from __future__ import annotations

from typing import Any


class TopReward:
    """Log-probability of the answer "True" to whether the images show the task done, at most 0, by TOPReward.

    Written against LeRobot 0.6.2 (commit 7427f31, Apache-2.0; 0.6.1 has the same interface), ``lerobot.rewards``:
    ``make_reward_model_config`` of ``"topreward"``, ``make_reward_model``, ``make_reward_pre_post_processors`` and
    ``compute_reward``, which takes images ``(B, T, 3, H, W)`` and a task, keeps the last ``max_frames`` and returns one
    log-probability a sample, ``(B,)``. The method has no weights of its own: ``--model`` is a vision-language model of
    the Qwen3-VL family. LeRobot scales the values of each episode to [0, 1] for its curves; here they stay as they are,
    since episodes are compared. Paper: arXiv 2602.19313.
    """

    task = "scorer"
    package = "lerobot"
    needs = "'lerobot[topreward]', 0.6 or later"

    @staticmethod
    def add_options(parser: Any) -> None:
        """Options of this reward."""
        parser.add_argument("--model", default="Qwen/Qwen3-VL-8B-Instruct", help="folder or name of the model")
        parser.add_argument("--device", help="e.g. cuda or cpu (default: what LeRobot chooses)")
        parser.add_argument("--frames", type=int, default=16, help="images that it sees at once (default: 16)")

    def __init__(self, options: Any) -> None:
        from reward_protocol import LeRobotClips

        self._reward = LeRobotClips("topreward", options.frames, vlm_name=options.model, device=options.device)
        config = self._reward.config
        self.about = {"name": "TOPReward", "prompt": config.prompt_prefix + config.prompt_suffix_template}

    def value(self, episode: Any, image: int) -> Any:
        """Log-probability at an image, seen with those before it."""
        return self._reward.value(episode, image)


if __name__ == "__main__":
    from reward_protocol import serve

    serve(TopReward)
