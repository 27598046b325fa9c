"""OpenVLA-OFT (arXiv 2502.19645): a chunk of actions from one forward pass, as tokens or from an L1 regression head.

Shares vision towers, projector, Llama, image preprocessing and checkpoint files with :mod:`grape.policies.openvla`.
Nothing is imported here, so that names of presets (:mod:`~grape.policies.openvla_oft.conventions`) need no PyTorch.
"""
