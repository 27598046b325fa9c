"""How much of the machine's matrix-product rate a step of preference optimization reaches.

The step's products are recorded while it runs: shape, strides and number of each kind. Each kind is then repeated
alone, on operands of the same shapes and strides, for its rate in GFLOP/s of processor time; step and products take
turns in one process with one thread. The machine's rate at the step's shapes is all operations divided by the time they
would take at those rates, so large and frequent products weigh most. `gemm_share` is the step's rate divided by that
one: 1 would mean that nothing but matrix products costs time.

Operations are counted by PyTorch's formulas (`torch.utils.flop_counter`): matrix products, convolutions and attention.
Attention is timed as the batched products it consists of; where it is causal it counts as the triangle that is
computed, not as the square.

    python benchmarks/gemm_rate.py                    # 3 minutes
    python benchmarks/gemm_rate.py --shapes tiny      # seconds
"""

import argparse
import json
import resource
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from one_pass_step import PairStep
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop
from training_shapes import SHAPES, make_pair, make_policy

_ATEN = torch.ops.aten
_CPU_ATTENTION = _ATEN._scaled_dot_product_flash_attention_for_cpu
_CPU_ATTENTION_BACKWARD = _ATEN._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Product:
    """One kind of matrix product, ``left @ right``, as sizes and strides of its operands.

    Attributes:
        left: Size and strides, two or three axes.
        right: The same.
        share: Part of the product that is computed: below 1 for causal attention.
    """

    left: tuple[tuple[int, ...], tuple[int, ...]]
    right: tuple[tuple[int, ...], tuple[int, ...]]
    share: float = 1.0

    @property
    def flops(self) -> float:
        """Operations of one run: a multiplication and an addition count as two."""
        (*batch, rows, inner), columns = self.left[0], self.right[0][-1]
        return 2.0 * rows * inner * columns * (batch[0] if batch else 1) * self.share

    def rate(self, seconds: float) -> float:
        """Operations a second of processor time when run alone, in a loop of at least ``seconds``."""
        left, right = (torch.randn(_span(*part)).as_strided(*part) for part in (self.left, self.right))
        result = torch.matmul(left, right)
        began, runs = processor_time(), 0
        while (taken := processor_time() - began) < seconds or runs < 2:
            torch.matmul(left, right, out=result)
            runs += 1
        return runs * self.flops / self.share / taken


class ProductRecorder(TorchDispatchMode):
    """Notes every product that runs.

    Attributes:
        products: Number of runs of each kind.
        flops: All operations by PyTorch's formulas, causal attention by its triangle.
        attention_flops: Those of attention among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()
        self.flops = 0.0
        self.attention_flops = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        result = func(*args, **given)
        packet = func._overloadpacket
        if packet in (_CPU_ATTENTION, _CPU_ATTENTION_BACKWARD):
            self._attention(packet, args, given)
        elif packet in flop_registry:
            self.flops += flop_registry[packet](*args, **given, out_val=result)
            if packet in (_ATEN.convolution, _ATEN.mkldnn_convolution):
                self._convolution(args[0], args[1], result)
            else:
                left, right = args[1:3] if packet in (_ATEN.addmm, _ATEN.baddbmm) else args[:2]
                self.products[Product(_layout(left), _layout(right))] += 1
        return result

    def _attention(self, packet: Any, args: Sequence[Any], given: Mapping[str, Any]) -> None:
        first = 1 if packet is _CPU_ATTENTION_BACKWARD else 0  # the result's gradient comes before the queries
        queries, keys, values = args[first : first + 3]
        batch, heads, rows, width = queries.shape
        length = keys.shape[2]
        causal = bool(given.get("is_causal", args[first + (6 if first else 4)] if len(args) > first + 4 else False))
        share = (length + 1) / (2 * length) if causal else 1.0
        counted = sdpa_backward_flop if first else sdpa_flop
        shapes = [queries.shape, keys.shape, values.shape]
        flops = share * (counted(queries.shape, *shapes) if first else counted(*shapes))
        self.flops += flops
        self.attention_flops += flops
        inner = Product(*_contiguous((batch * heads, rows, width), (batch * heads, width, length)), share)
        outer = Product(*_contiguous((batch * heads, rows, length), (batch * heads, length, width)), share)
        # Forward: scores and their mixture. Backward: the scores again, their gradient, and three mixtures.
        self.products[inner] += 2 if first else 1
        self.products[outer] += 3 if first else 1

    def _convolution(self, pixels_BCHW: Tensor, kernel: Tensor, result_BCHW: Tensor) -> None:
        """As the product it is: every place of the kernel is a row."""
        batch, channels, height, width = result_BCHW.shape
        inner = kernel[0].numel()
        self.products[Product(*_contiguous((batch * height * width, inner), (inner, channels)))] += 1


def processor_time() -> float:
    """Seconds of processor time that this process has taken."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(shape: str, steps: int, micro_batch: int, repetitions: int, seconds: float) -> dict[str, Any]:
    """Rates of step and products.

    Args:
        shape: Name of the network.
        steps: Steps of each trajectory; one step of optimization takes both.
        micro_batch: Frames at once.
        repetitions: How often step and products take turns.
        seconds: Processor time for each kind of product in each turn.
    """
    policy = make_policy(shape)
    step = PairStep(policy, make_pair(policy, steps), micro_batch=micro_batch)
    with ProductRecorder() as recorder:
        step.take()
    total = sum(product.flops * count for product, count in recorder.products.items())
    if abs(total - recorder.flops) > 1e-6 * recorder.flops:
        raise AssertionError(f"products have {total:.4e} operations, the formulas say {recorder.flops:.4e}")
    turns = []
    for _ in range(repetitions):
        taken = _timed(step.take)
        ideal = sum(product.flops * count / product.rate(seconds) for product, count in recorder.products.most_common())
        turns.append({"step_seconds": taken, "products_alone_seconds": ideal})
    step_rate = total / statistics.median(turn["step_seconds"] for turn in turns)
    gemm_rate = total / statistics.median(turn["products_alone_seconds"] for turn in turns)
    square = (1024, 1024)
    return {
        "gemm_share": round(step_rate / gemm_rate, 4),
        "step_gflops": round(step_rate / 1e9, 2),
        "gemm_gflops_at_step_shapes": round(gemm_rate / 1e9, 2),
        "gemm_gflops_1024": round(Product(*_contiguous(square, square)).rate(2.0) / 1e9, 2),
        "gflop_per_step": round(total / 1e9, 2),
        "kinds_of_products": len(recorder.products),
        "steps": steps,
        "micro_batch": micro_batch,
        "turns": turns,
    }


def _timed(work: Callable[[], Any]) -> float:
    began = processor_time()
    work()
    return processor_time() - began


def _layout(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(tensor.shape), tuple(tensor.stride())


def _contiguous(*sizes: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [_layout(torch.empty(size, device="meta")) for size in sizes]


def _span(size: Sequence[int], strides: Sequence[int]) -> int:
    return 1 + sum((length - 1) * stride for length, stride in zip(size, strides, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["23m", "71m"], choices=list(SHAPES))
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="processor time for each kind of product")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        shape: measure(shape, options.steps, options.micro_batch, options.repetitions, options.seconds)
        for shape in options.shapes
    }
    print(json.dumps({"dtype": "float32", "threads": 1, **result}, indent=1))


if __name__ == "__main__":
    main()
