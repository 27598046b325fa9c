"""A hub that is asked for nothing but the names of a model's files."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest


def list_on_hub(monkeypatch: pytest.MonkeyPatch, names: Sequence[str]) -> None:
    """Let every model on the hub have files of these names; what is appended to a list later counts, too."""

    def model_info(*_args: object, **_options: object) -> SimpleNamespace:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
