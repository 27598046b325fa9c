"""Low-rank adapters of policies of OpenVLA's family, written apart from their base."""

from pathlib import Path
from typing import Any

from grape.core.files import write_json
from grape.policies.openvla.adapter_pointer import write_pointer
from grape.policies.tensor_files import save_tensors

__all__ = ["save_adapter"]


def save_adapter(policy: Any, folder: Path, base: Path, place: Path) -> None:
    """Write a policy's adapter in PEFT's layout, with a pointer to its base.

    Args:
        policy: The policy, with PEFT's wrapper as ``adapter`` and the checkpoint's configuration as ``config``.
        folder: Where to write.
        base: Folder of the policy it belongs to.
        place: Where the folder will lie in the end.
    """
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(policy.adapter)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    save_tensors(tensors, folder / "adapter_model.safetensors")
    write_json(folder / "adapter_config.json", _plain(policy.adapter.peft_config["default"].to_dict()))
    write_pointer(folder, base, policy.config, place=place)


def _plain(value: Any) -> Any:
    """JSON value; PEFT keeps names in sets, whose order would differ from run to run."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
