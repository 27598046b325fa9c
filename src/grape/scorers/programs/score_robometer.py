"""Scores episodes by Robometer's progress head, as LeRobot runs it."""

from __future__ import annotations

from typing import Any


class RobometerProgress:
    """Progress in the task at the last image, in [0, 1], by Robometer's progress head.

    Written against LeRobot 0.6.2 (commit 7427f31, Apache-2.0; 0.6.1 has the same interface), ``lerobot.rewards``:
    ``make_reward_model_config`` of ``"robometer"``, ``make_reward_model``, ``make_reward_pre_post_processors`` and
    ``compute_reward``, which takes images ``(B, T, 3, H, W)`` and a task, keeps the last ``max_frames`` and returns the
    progress at the last one, ``(B,)``. So the images are chosen here, evenly from the first one on. Weights:
    ``lerobot/Robometer-4B``. Paper: arXiv 2603.02115.
    """

    task = "scorer"
    package = "lerobot"
    needs = "'lerobot[robometer]', 0.6 or later"

    @staticmethod
    def add_options(parser: Any) -> None:
        """Options of this reward."""
        parser.add_argument("--model", default="lerobot/Robometer-4B", help="folder or name of the weights")
        parser.add_argument("--revision", help="their revision")
        parser.add_argument("--device", help="e.g. cuda or cpu (default: what LeRobot chooses)")
        parser.add_argument("--frames", type=int, default=8, help="images that it sees at once (default: 8)")

    def __init__(self, options: Any) -> None:
        from reward_protocol import LeRobotClips

        self._reward = LeRobotClips(
            "robometer",
            options.frames,
            pretrained_path=options.model,
            pretrained_revision=options.revision,
            device=options.device,
        )
        self.about = {"name": "Robometer progress", "base_model": self._reward.config.base_model_id}

    def value(self, episode: Any, image: int) -> Any:
        """Progress at an image, seen with those before it."""
        return self._reward.value(episode, image)


if __name__ == "__main__":
    from reward_protocol import serve

    serve(RobometerProgress)
