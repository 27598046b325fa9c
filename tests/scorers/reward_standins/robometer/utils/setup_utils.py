"""The collator, which shows the chosen side first in evaluation alone."""


class Moved:
    """A tensor on the device."""

    def __init__(self, values, device="cpu"):
        self.values, self.device = values, device

    def to(self, device):
        return Moved(self.values, device)


def setup_batch_collator(processor, tokenizer, cfg, is_eval=False):
    def collate(samples):
        sides = [[sample.chosen_trajectory, sample.rejected_trajectory] for sample in samples]
        for side in (trajectory for pair in sides for trajectory in pair):
            if side.frames.ndim != 4 or side.frames.shape != side.frames_shape:
                raise ValueError(f"Unexpected frames shape {side.frames.shape}")
        if not is_eval:
            sides = [side[::-1] for side in sides]
        inputs = {"input_ids": Moved([[side.frames for side in pair] for pair in sides]), "task": [sides[0][0].task]}
        return {"preference_inputs": inputs, "progress_inputs": {}, "num_preferences": len(samples), "num_progress": 0}

    return collate
