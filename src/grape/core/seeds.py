"""Seeds derived from names: the same parts give the same seed on every machine and run order."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["derive_rng", "derive_seed"]


def derive_seed(*parts: int | str) -> int:
    """Seed in ``[0, 2**63)`` derived from the parts by BLAKE2.

    Args:
        *parts: For example ``(run_seed, "collect", task_name, initial_state, sample)``. ``1`` and ``"1"`` differ.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derive_rng(*parts: int | str) -> np.random.Generator:
    """Numpy generator seeded with ``derive_seed(*parts)``."""
    return np.random.default_rng(derive_seed(*parts))
