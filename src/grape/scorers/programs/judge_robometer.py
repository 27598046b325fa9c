"""Judges couples of episodes by Robometer's preference head, as its own package runs it."""

from __future__ import annotations

from typing import Any


class RobometerPreference:
    """Probability that the first of two episodes makes more progress in the task, by Robometer's preference head.

    Written against robometer 0.0.1 (commit c7f38e2 of github.com/robometer/robometer, MIT by its README, Python 3.10),
    as its script for local inference calls it: ``load_model_from_hf``, ``setup_batch_collator`` for evaluation, which
    shows the chosen side of a ``PreferenceSample`` first, and ``compute_batch_outputs``, whose ``prediction_probs`` are
    the probabilities that this side is better. LeRobot keeps the head's weights and does not ask it. Weights:
    ``robometer/Robometer-4B``. Paper: arXiv 2603.02115.
    """

    task = "judge"
    package = "robometer"
    needs = "robometer from its repository, for Python 3.10"

    @staticmethod
    def add_options(parser: Any) -> None:
        """Options of this judge."""
        parser.add_argument(
            "--model", default="robometer/Robometer-4B", help="folder or name of the weights, NAME@REVISION for one"
        )
        parser.add_argument("--device", default="cuda", help="(default: cuda)")
        parser.add_argument("--frames", type=int, default=8, help="images of each episode that it sees (default: 8)")

    def __init__(self, options: Any) -> None:
        from robometer.data.dataset_types import PreferenceSample, Trajectory
        from robometer.evals.eval_server import compute_batch_outputs
        from robometer.utils.save import load_model_from_hf
        from robometer.utils.setup_utils import setup_batch_collator

        self._sample_of, self._trajectory_of, self._outputs_of = PreferenceSample, Trajectory, compute_batch_outputs
        self._device, self._frames = options.device, options.frames
        config, self._tokenizer, processor, self._model = load_model_from_hf(
            model_path=options.model, device=options.device
        )
        self._model.eval()
        self._collate = setup_batch_collator(processor, self._tokenizer, config, is_eval=True)
        self.about = {"name": "Robometer preference", "base_model": config.model.base_model_id}

    def prefer(self, a: Any, b: Any) -> Any:
        """Probability that the first one is better."""
        sample = self._sample_of(chosen_trajectory=self._trajectory(a), rejected_trajectory=self._trajectory(b))
        inputs = self._collate([sample])["preference_inputs"]
        for name, value in inputs.items():
            if hasattr(value, "to"):
                inputs[name] = value.to(self._device)
        outputs = self._outputs_of(self._model, self._tokenizer, inputs, sample_type="preference")
        if "prediction_probs" not in outputs:
            raise RuntimeError("the model has no preference head")
        return outputs["prediction_probs"]

    def _trajectory(self, episode: Any) -> Any:
        clip = episode.clip(episode.last, self._frames)
        return self._trajectory_of(
            frames=clip, frames_shape=clip.shape, task=episode.instruction, id=episode.name, metadata={}
        )


if __name__ == "__main__":
    from reward_protocol import serve

    serve(RobometerPreference)
