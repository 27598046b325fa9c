"""The 7 B shape, without its memory; and a machine without the extra."""

import subprocess
import sys

from grape.policies.openvla import OpenVLAConfig
from grape.policies.openvla.checkpoint import empty_model
from grape.policies.openvla_oft.conventions import PRESETS, Layout
from grape.policies.openvla_oft.model import empty_oft_model

PUBLISHED = {
    "model_type": "openvla",
    "arch_specifier": "no-align+gelu-mlp",
    "image_resize_strategy": "resize-naive",
    "image_sizes": [224, 224],
    "n_action_bins": 256,
    "norm_stats": {},
    "pad_to_multiple_of": 64,
    "pad_token_id": 32000,
    "text_config": {"model_type": "llama", "pad_token_id": 32000, "torch_dtype": "bfloat16", "vocab_size": 32064},
    "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
    "torch_dtype": "bfloat16",
    "use_fused_vision_backbone": True,
}


def test_seven_billion_parameters_to_the_last_one():
    config = OpenVLAConfig.from_json(PUBLISHED)
    model = empty_model(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_541_237_184
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["vision_backbone.featurizer.blocks.23.ls1.scale_factor"] == (1024,)
    assert shapes["vision_backbone.fused_featurizer.attn_pool.mlp.fc1.weight"] == (4304, 1152)
    assert shapes["projector.fc1.weight"] == (8704, 2176)
    assert shapes["language_model.lm_head.weight"] == (32064, 4096)
    unread = {name.rsplit(".", 2)[0] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert "vision_backbone.featurizer.blocks.23.attn" in unread
    assert not any(name.startswith(("projector", "language_model")) for name in unread)


def test_chunks_change_no_weight_of_the_network():
    config = OpenVLAConfig.from_json(PUBLISHED)
    model = empty_oft_model(config, PRESETS["openvla-oft"], Layout.of_platform(7))
    plain = {name: tensor.shape for name, tensor in empty_model(config).state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == plain
    assert (model.window, len(model.support)) == (range(31744, 32000), 32064)


def test_a_machine_without_torch_is_told_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from grape.core.errors import SettingsError\n"
        "try:\n    import grape.policies.openvla\n"
        "except SettingsError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'torch'" in done.stdout
    assert "grape-vla[train]" in done.stdout
