"""What the training verbs say where a module cannot be imported."""

import sys
from pathlib import Path

import pytest

from grape.core.errors import SettingsError
from grape.training import SftSettings, run_sft


def run_without(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "grape.training.sft", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    run_sft(SftSettings(data=(Path("nowhere"),), out=Path("nowhere")))


def test_a_missing_package_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="torch is missing") as caught:
        run_without("torch", monkeypatch)
    assert "grape-vla[train]" in caught.value.hint


def test_a_broken_installation_of_our_own_is_not_blamed_on_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"grape\.training\.batches"):
        run_without("grape.training.batches", monkeypatch)
