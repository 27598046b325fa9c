"""Our own rendering of the training loop of the first public implementation, for comparison only.

What it does, and what is kept of it here because it costs time:

- a window is 8 consecutive steps of each side; windows move by one step, so most frames are computed 8 times;
- every pair of frames takes four forward passes of batch 1: policy and reference on the chosen and on the rejected one;
- the reference is a second model, and its passes run without graph;
- every forward pass computes the logits of all positions, and their log-softmax over the whole vocabulary, of which the
  action tokens' entries are picked afterwards;
- images and prompts are prepared again each time;
- the graph of all 8 pairs is kept, and each window ends with its own backward pass and optimizer step.

What is left out: its end-of-sequence token (so that both sides of the comparison score the same tokens), its mixing of
different tasks' windows after the first pair of unequal length, and the steps that it drops.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from grape.policies.openvla import OpenVLAPolicy
from grape.training.dataset import StepDataset
from grape.training.losses import WINDOW

__all__ = ["log_probability", "train_pair_by_windows", "window_starts"]


def window_starts(steps: int) -> range:
    """First steps of all windows of a trajectory."""
    return range(steps - WINDOW + 1)


def train_pair_by_windows(
    policy: OpenVLAPolicy,
    reference: OpenVLAPolicy,
    pair: StepDataset,
    beta: float,
    after_backward: Callable[[int, float], None],
) -> None:
    """Go through all windows of one preference pair.

    Args:
        policy: The policy; its gradient adds up in its trainable parameters.
        reference: A second model.
        pair: Trajectories of equal length, named ``chosen`` and ``rejected``.
        beta: Inverse temperature of the loss.
        after_backward: Called behind each window's backward pass with the window's first step and loss; steps and
            clears the gradient.
    """
    (chosen, stop), (rejected, _) = pair.spans["chosen"], pair.spans["rejected"]
    for start in window_starts(stop - chosen):
        margin = torch.zeros(())
        for offset in range(start, start + WINDOW):
            policy_w = log_probability(policy, pair, chosen + offset)
            policy_l = log_probability(policy, pair, rejected + offset)
            with torch.no_grad():
                reference_w = log_probability(reference, pair, chosen + offset)
                reference_l = log_probability(reference, pair, rejected + offset)
            margin = margin + (policy_w - policy_l) - (reference_w - reference_l)
        loss = -torch.nn.functional.logsigmoid(beta * margin)
        loss.backward()
        after_backward(start, float(loss.detach()))


def log_probability(policy: OpenVLAPolicy, pair: StepDataset, row: int) -> Tensor:
    """Summed log-probability of one step's action tokens, the long way round."""
    model = policy.model
    inputs = policy.encode_images(pair.images_NHWC[row : row + 1], [pair.instructions[0]])
    tokens_1D = torch.from_numpy(pair.tokens_NKD[row : row + 1][:, 0])
    count = tokens_1D.shape[1]
    embeds_1SH = model.embed_prompts(inputs).extend(model.language_model.model.embed_tokens(tokens_1D)).embeds_BSH
    output = model.language_model(inputs_embeds=embeds_1SH, use_cache=False)
    logps_1SV = torch.log_softmax(output.logits, dim=-1)
    labels_1S = torch.full(embeds_1SH.shape[:2], -100)
    labels_1S[:, -count:] = tokens_1D
    # Each position predicts the next one's token.
    shifted_1S = labels_1S[:, 1:]
    scored_1S = shifted_1S != -100
    picked_1S = logps_1SV[:, :-1].gather(2, shifted_1S.clamp(min=0).unsqueeze(2)).squeeze(2)
    return (picked_1S * scored_1S).sum()
