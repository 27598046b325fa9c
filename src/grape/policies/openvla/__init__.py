"""OpenVLA's architecture, native: no timm, no TensorFlow, no code from checkpoints.

Opens the published checkpoint layout at any size and makes the nano policy. Needs the extra ``train``.
"""

from grape.core.errors import SettingsError

try:
    import safetensors  # noqa: F401
    import tokenizers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ModuleNotFoundError as error:
    raise SettingsError(f"Policies need the package {error.name!r}.", "pip install 'grape-vla[train]'") from error

from grape.policies.opening import read_norm_stats
from grape.policies.openvla.action_tokens import ActionTokenizer
from grape.policies.openvla.adapters import attach_adapter
from grape.policies.openvla.config import OpenVLAConfig
from grape.policies.openvla.loading import load_policy, read_policy, read_policy_config, save_policy
from grape.policies.openvla.model import OpenVLA, PolicyInputs
from grape.policies.openvla.nano import create_nano
from grape.policies.openvla.policy import OpenVLAPolicy
from grape.policies.statistics import compute_norm_stats

__all__ = [
    "ActionTokenizer",
    "OpenVLA",
    "OpenVLAConfig",
    "OpenVLAPolicy",
    "PolicyInputs",
    "attach_adapter",
    "compute_norm_stats",
    "create_nano",
    "load_policy",
    "read_norm_stats",
    "read_policy",
    "read_policy_config",
    "save_policy",
]
