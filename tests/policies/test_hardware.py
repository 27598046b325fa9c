"""Releases and threads that a policy's outputs depend on."""

import importlib.metadata
import sys

import pytest

from grape.policies.hardware import policy_releases, policy_threads


def test_builds_for_other_processors_are_one_release_and_what_is_missing_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name != "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.13.0+cu128"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert policy_releases() == {"torch": "2.13.0"}


def test_without_pytorch_it_has_no_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert policy_threads() is None


@pytest.mark.needs("train")
def test_threads_are_those_of_this_process() -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert policy_threads() == 3
    finally:
        torch.set_num_threads(before)
