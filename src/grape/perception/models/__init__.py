"""Models of transformers behind the protocols of perception; torch is loaded when one is opened, not before.

Images are prepared here, with Pillow and numpy. In transformers 5 the image processor of SAM 2 needs torchvision, and
those of Grounding DINO and DINOv2 fall back to others without it; what they do is little: resize, scale, normalize.
"""
