"""Checks of the machine, each fed with a machine of our own making."""

import importlib.metadata
import os
import platform

import pytest

from grape.doctor import machine
from grape.doctor.findings import ProbeReply

MEMINFO = "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:    {} kB\n"


def only(findings):
    (finding,) = findings
    return finding


def test_this_interpreter_is_good():
    assert only(machine.check_interpreter()).level == "ok"


@pytest.mark.parametrize("version", ["3.10.14", "3.14.0"])
def test_interpreter_out_of_range(monkeypatch, version):
    monkeypatch.setattr(platform, "python_version", lambda: version)
    finding = only(machine.check_interpreter())
    assert finding.level == "error"
    assert version in finding.found
    assert "PYTHON=" in finding.fix


@pytest.mark.parametrize(("gib", "level"), [(8, "ok"), (2, "warn"), (0.5, "error")])
def test_memory(tmp_path, gib, level):
    (tmp_path / "meminfo").write_text(MEMINFO.format(int(gib * 2**20)))
    (tmp_path / "limit").write_text("max\n")
    finding = only(machine.check_memory(tmp_path / "meminfo", tmp_path / "limit"))
    assert finding.level == level
    assert f"{gib:.1f} GiB available of 16.0 GiB" in finding.found


def test_a_containers_limit_counts(tmp_path):
    (tmp_path / "meminfo").write_text(MEMINFO.format(8 * 2**20))
    (tmp_path / "limit").write_text(str(2**29))
    finding = only(machine.check_memory(tmp_path / "meminfo", tmp_path / "limit"))
    assert finding.level == "error"
    assert "limited to 0.5 GiB" in finding.found


@pytest.mark.parametrize("text", ["", "MemTotal: many kB\n", "nonsense"])
def test_unknown_memory_is_no_fault(tmp_path, text):
    (tmp_path / "meminfo").write_text(text)
    assert only(machine.check_memory(tmp_path / "meminfo")).level == "ok"
    assert only(machine.check_memory(tmp_path / "absent")).level == "ok"


@pytest.mark.parametrize(("gib", "level"), [(100, "ok"), (3, "warn"), (0.1, "error")])
def test_disk(monkeypatch, tmp_path, gib, level):
    usage = type("Usage", (), {"free": int(gib * 2**30)})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)
    assert only(machine.check_disk(tmp_path)).level == level


def test_disk_without_permission(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert only(machine.check_disk(tmp_path)).level == "error"


def test_one_core_is_a_warning(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert only(machine.check_cores()).level == "warn"


def levels(findings):
    return {finding.name: finding.level for finding in findings}


def answer(monkeypatch, reply, cards=()):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setattr(machine, "probe", lambda arguments, timeout: reply)
    monkeypatch.setattr(machine, "_driver_cards", lambda timeout: list(cards))


def test_no_card_is_no_fault(monkeypatch):
    answer(monkeypatch, ProbeReply({"version": "2.13.0+cpu", "cuda_build": "", "devices": []}))
    assert levels(machine.check_gpu(1)) == {"torch": "ok", "gpu": "ok"}


def test_card_that_torch_cannot_use(monkeypatch):
    answer(monkeypatch, ProbeReply({"version": "2.13.0+cpu", "cuda_build": "", "devices": []}), ["A100, 80 GB"])
    _, gpu = machine.check_gpu(1)
    assert gpu.level == "warn"
    assert "A100" in gpu.found
    assert "TORCH_INDEX=" in gpu.fix


def test_card_in_use(monkeypatch):
    answer(monkeypatch, ProbeReply({"version": "2.13.0", "cuda_build": "13.0", "devices": ["A100"]}), ["A100, 80 GB"])
    torch, gpu = machine.check_gpu(1)
    assert "CUDA 13.0" in torch.found
    assert (gpu.level, gpu.found) == ("ok", "A100")


def test_broken_torch(monkeypatch):
    answer(monkeypatch, ProbeReply(failure="exit code 1: ImportError: libtorch_cpu.so"))
    finding = only(machine.check_gpu(1))
    assert finding.level == "error"
    assert "libtorch_cpu.so" in finding.found


def test_torch_is_optional(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    monkeypatch.setattr(machine, "_driver_cards", lambda timeout: [])
    assert only(machine.check_gpu(1)).level == "ok"


@pytest.mark.parametrize(
    ("script", "cards"),
    [("echo 'A100, 81920 MiB'", ["A100, 81920 MiB"]), ("echo failed; exit 9", []), ("sleep 20", [])],
)
def test_driver_is_asked_with_a_limit(monkeypatch, tmp_path, script, cards):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine._driver_cards(1) == cards
