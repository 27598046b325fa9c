"""Opening and saving policies."""

from pathlib import Path
from typing import Literal

import torch

from grape.core.errors import DataError, SettingsError
from grape.policies.openvla.adapters import adapter_base, attach_adapter, merged_weights
from grape.policies.openvla.checkpoint import empty_model, load_weights, read_files, write_files
from grape.policies.openvla.policy import OpenVLAPolicy

__all__ = ["load_policy", "save_policy"]


def load_policy(
    path: Path | str,
    *,
    unnorm_key: str | None = None,
    device: str = "cpu",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    merge: bool = False,
) -> OpenVLAPolicy:
    """Open a policy: a checkpoint folder in the published layout, or an adapter folder that points to one.

    Args:
        path: The folder. Nothing is ever downloaded.
        unnorm_key: Which normalisation statistics to use; None takes the only ones there are.
        device: Where to compute, e.g. ``"cpu"`` or ``"cuda"``.
        dtype: What to compute in. ``"auto"``: float32 on the CPU, else as stored.
        merge: Merge an adapter into the weights instead of keeping it beside them.

    Raises:
        SettingsError: The folder is not there or holds something else; the statistics' name is unknown or ambiguous.
        DataError: A file is missing, torn or does not fit the others.
    """
    folder = Path(path)
    base = adapter_base(folder) if folder.is_dir() else None
    if base is not None:
        if adapter_base(base) is not None:
            raise DataError(f"The base of adapter {folder} is an adapter itself ({base}).", "Merge that one first.")
        policy = load_policy(base, unnorm_key=unnorm_key, device=device, dtype=dtype)
        return attach_adapter(policy, folder, merge=merge)
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise SettingsError(f"Unknown device {device!r}.", "For example 'cpu' or 'cuda'.") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError("No CUDA device is available.", "Use device 'cpu'.")
    files = read_files(folder)
    storage = "float32" if dtype == "auto" and place.type == "cpu" else dtype
    name = files.config.storage_dtype if storage == "auto" else storage
    model = empty_model(files.config)
    load_weights(folder, model, torch.bfloat16 if name == "bfloat16" else torch.float32, device)
    return OpenVLAPolicy(model, files, unnorm_key)


def save_policy(policy: OpenVLAPolicy, path: Path) -> None:
    """Save a policy as a checkpoint folder in the published layout; it appears when complete.

    Adapters are merged into the saved weights; the policy itself is not changed. Weights are stored in the
    configuration's type (bfloat16 for published checkpoints, float32 for nano).

    Args:
        policy: The policy.
        path: The folder; an older one is replaced.

    Raises:
        GrapeError: The disk is full or not writable.
    """
    write_files(path, policy.files, merged_weights(policy.model))
