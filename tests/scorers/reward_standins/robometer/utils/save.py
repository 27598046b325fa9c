"""The loader."""

from types import SimpleNamespace

from lerobot.standin import load


class Model:
    def eval(self):
        return self


def load_model_from_hf(model_path, device, hub_token=None):
    load(model_path)
    config = SimpleNamespace(model=SimpleNamespace(base_model_id="Qwen/Qwen3-VL-4B-Instruct"))
    return config, "tokenizer", "processor", Model()
