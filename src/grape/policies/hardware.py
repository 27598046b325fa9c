"""What the last bits of a policy's outputs depend on beside its settings: releases and threads of this process."""

import importlib.metadata
from collections.abc import Mapping

__all__ = ["policy_releases", "policy_threads"]

_DISTRIBUTIONS = ("torch", "transformers", "tokenizers", "pillow", "scipy")


def policy_releases() -> Mapping[str, str]:
    """Releases of the packages that policies compute with, by name, as far as they are installed.

    What follows a plus sign is left out: it names the kind of processor that a build is for, which a policy's contract
    holds already.
    """
    releases = {}
    for name in _DISTRIBUTIONS:
        try:
            releases[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return releases


def policy_threads() -> int | None:
    """Threads that PyTorch computes with in this process; None where it is not installed."""
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None
    return torch.get_num_threads()
