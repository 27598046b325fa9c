"""The benchmark's two sides compute what they claim: same log-probabilities, same window losses, same gradients."""

from pathlib import Path

import numpy as np
import pytest
import torch

STEPS, BETA = 9, 0.1


@pytest.fixture
def sides(monkeypatch):
    """Modules of the benchmarks, and a tiny network on one thread."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    pytest.importorskip("peft")
    import one_pass_step
    import training_shapes
    import window_loop

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield training_shapes, window_loop, one_pass_step
    torch.set_num_threads(threads)


def test_windows_of_both_sides_agree(sides):
    shapes, loop, ours = sides
    policy = shapes.make_policy("tiny")
    reference = shapes.make_policy("tiny", seed=1, adapters=False)
    pair = shapes.make_pair(policy, STEPS)
    with torch.no_grad():
        inputs = policy.encode_images(pair.images_NHWC, [pair.instructions[0]] * (2 * STEPS))
        expected_N = policy.model.action_logps(inputs, torch.from_numpy(pair.tokens_NKD[:, 0])).sum(1)
        pair.logps_NKD[:, 0] = reference.model.action_logps(inputs, torch.from_numpy(pair.tokens_NKD[:, 0])).numpy()
        naive_N = torch.stack([loop.log_probability(policy, pair, row) for row in range(2 * STEPS)])
    torch.testing.assert_close(naive_N, expected_N, atol=1e-4, rtol=0)

    losses = []
    loop.train_pair_by_windows(policy, reference, pair, BETA, lambda start, loss: losses.append(loss))
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    naive_gradient = torch.cat([p.grad.flatten() for p in parameters]) / len(losses)
    assert len(losses) == len(loop.window_starts(STEPS)) == 2

    step = ours.PairStep(policy, pair, BETA, micro_batch=4)
    windows = [
        ours.ComparisonItem(f"window {start}", (start, start + 8), (STEPS + start, STEPS + start + 8))
        for start in loop.window_starts(STEPS)
    ]
    result = step.gradient(windows)
    gradient = torch.cat([p.grad.flatten() for p in parameters])
    assert result.loss == pytest.approx(np.mean(losses), abs=1e-4)
    assert (gradient - naive_gradient).norm() <= 1e-4 * naive_gradient.norm()
    assert naive_gradient.norm() > 1e-3


def test_one_window_is_the_whole_pair_of_eight_steps(sides):
    shapes, loop, ours = sides
    policy = shapes.make_policy("tiny")
    pair = shapes.make_pair(policy, 8)
    losses = []
    with torch.no_grad():
        inputs = policy.encode_images(pair.images_NHWC, [pair.instructions[0]] * 16)
        pair.logps_NKD[:, 0] = policy.model.action_logps(inputs, torch.from_numpy(pair.tokens_NKD[:, 0])).numpy() - 0.3
        pair.logps_NKD[:8] -= 0.2
    step = ours.PairStep(policy, pair, BETA, micro_batch=4)
    assert step.gradient(ours.whole_pair(pair)).loss == pytest.approx(np.log1p(np.exp(-BETA * 0.2 * 56)), abs=1e-4)
    loop.train_pair_by_windows(policy, policy, pair, BETA, lambda start, loss: losses.append(loss))
    assert losses == [pytest.approx(np.log(2), abs=1e-5)]


def test_every_product_of_a_step_is_recorded(sides):
    """PyTorch's own counter sees the same operations, but for attention on the CPU, which it does not know."""
    from torch.utils.flop_counter import FlopCounterMode

    shapes, _, ours = sides
    import gemm_rate

    policy = shapes.make_policy("tiny")
    step = ours.PairStep(policy, shapes.make_pair(policy, 4))
    with gemm_rate.ProductRecorder() as recorder:
        step.take()
    with FlopCounterMode(display=False) as counter:
        step.take()
    assert recorder.attention_flops > 0
    assert recorder.flops - recorder.attention_flops == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert sum(p.flops * n for p, n in recorder.products.items()) == pytest.approx(recorder.flops, rel=1e-6)
    assert any(p.share < 1 for p in recorder.products)  # the language model's attention is causal
