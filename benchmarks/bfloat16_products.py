"""Products of bfloat16 tensors at the speed of float32, on processors without instructions for bfloat16.

There PyTorch multiplies bfloat16 matrices by a plain loop: measured on an AVX2 processor, one thread, 3.4 GFLOP/s
forward and 0.24 GFLOP/s backward against 25 GFLOP/s in float32. So operands are widened, multiplied in float32, and the
result is rounded: what bfloat16 units do as well, which also add up in float32.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
# Operation -> how many of its results are in the operands' type; attention also gives one float32 number a row.
_WIDENED = {
    _ATEN.mm.default: 1,
    _ATEN.addmm.default: 1,
    _ATEN.bmm.default: 1,
    _ATEN.convolution.default: 1,
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default: 1,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default: 3,
}
_LARGE = 2**20


class WideProducts(TorchDispatchMode):
    """Runs products of bfloat16 tensors in float32, forward and backward.

    Args:
        largest: Elements of the largest weight: it is widened into memory of that size, used again each time.

    Attributes:
        scratch: That memory.
    """

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.scratch = torch.empty(largest)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        narrow = _WIDENED.get(func, 0) if any(map(_is_bfloat16, args)) else 0
        if not narrow:
            return func(*args, **(kwargs or {}))
        sizes = [value.numel() if _is_bfloat16(value) else 0 for value in args]
        weight = sizes.index(max(sizes))  # of the operands, one may use the scratch
        widened = [self._widen(value, i == weight) if _is_bfloat16(value) else value for i, value in enumerate(args)]
        results = func(*widened, **(kwargs or {}))
        if isinstance(results, Tensor):
            return results.bfloat16()
        return tuple(value.bfloat16() if place < narrow else value for place, value in enumerate(results))

    def _widen(self, value: Tensor, into_scratch: bool) -> Tensor:
        if not into_scratch or not _LARGE <= value.numel() <= self.scratch.numel():
            return value.float()
        return self.scratch.as_strided(value.size(), value.stride()).copy_(value)


def _is_bfloat16(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.bfloat16
