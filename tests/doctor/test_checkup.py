"""The verb: what makes it fail, and what is refused before any check."""

import importlib.metadata
import json
from pathlib import Path

import pytest

from grape.core.errors import SettingsError
from grape.doctor import DoctorSettings, Finding, checkup, graphics, run_doctor
from grape.doctor.checkup import check_assets
from grape.doctor.findings import ProbeReply
from grape.doctor.packages import extra_requirements


@pytest.fixture
def checks(monkeypatch):
    """Checks that find what the test puts in."""
    levels = {name: "ok" for name in dir(checkup) if name.startswith("check_") and name != "check_ranges"}
    for name in levels:
        monkeypatch.setattr(checkup, name, lambda *_, name=name: [Finding(name, levels[name], "seen", "do this")])
    return levels


def test_all_well(checks):
    summary = run_doctor(DoctorSettings(suite="metaworld,simpler"))
    assert summary["ok"]
    assert {finding["name"] for finding in summary["findings"]} == set(checks)
    assert set(summary["findings"][0]) == {"name", "level", "found", "fix"}
    json.dumps(summary, allow_nan=False)


@pytest.mark.parametrize("suite", ["", "toy"])
def test_a_light_core_is_no_fault(monkeypatch, suite):
    """Without any extra and any graphics library: what is not there is listed, and all is well."""
    real = importlib.metadata.version
    core = {item.name for item in extra_requirements(importlib.metadata.requires("grape-vla") or [])[""]} | {
        "grape-vla",
        "grape_vla",
    }

    def version(name):
        if name not in core:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(graphics, "load_library", lambda *_: ProbeReply({"loaded": "", "why": "not found"}, ""))
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    summary = run_doctor(DoctorSettings(suite=suite))
    findings = {finding["name"]: finding for finding in summary["findings"]}
    assert [finding for finding in summary["findings"] if finding["level"] == "error"] == []
    assert summary["ok"]
    for extra in ("train", "metaworld", "libero", "simpler"):
        assert findings[f"extra {extra}"]["level"] == "ok"
        assert findings[f"extra {extra}"]["found"].startswith("not installed")
        assert findings[f"extra {extra}"]["fix"] == f"pip install 'grape-vla[{extra}]'"
    assert "simpler assets" not in findings
    assert run_doctor(DoctorSettings(suite="metaworld", timeout=20.0))["ok"] is False


@pytest.mark.parametrize(("suite", "level"), [("toy", "warn"), ("simpler", "error")])
def test_missing_assets_come_with_their_command(monkeypatch, checks, tmp_path, suite, level):
    monkeypatch.setattr(checkup, "check_assets", check_assets)
    monkeypatch.setattr(checkup, "is_installed", lambda extra: True)
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    summary = run_doctor(DoctorSettings(suite=suite))
    (finding,) = [finding for finding in summary["findings"] if finding["name"] == "simpler assets"]
    assert (finding["level"], summary["ok"]) == (level, level == "warn")
    assert "python -m mani_skill.utils.download_asset bridge_v2_real2sim -y" in finding["fix"]


def test_a_warning_is_no_failure(checks):
    checks["check_memory"] = "warn"
    summary = run_doctor(DoctorSettings())
    assert (summary["ok"], summary["warnings"], summary["errors"]) == (True, 1, 0)


def test_an_error_is(checks):
    checks["check_disk"] = "error"
    assert not run_doctor(DoctorSettings())["ok"]


def test_without_frame_none_is_rendered(checks):
    names = [finding["name"] for finding in run_doctor(DoctorSettings(frame=False))["findings"]]
    assert "check_frame" not in names


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (DoctorSettings(), {"metaworld"}),
        (DoctorSettings(suite="toy"), set()),
        (DoctorSettings(suite="libero"), {"libero"}),
        (DoctorSettings(suite="libero_goal,toy,metaworld"), {"libero", "metaworld"}),
        (DoctorSettings(suite="simpler_widowx_physical,toy"), {"simpler"}),
    ],
)
def test_the_suites_extra_is_needed(monkeypatch, checks, settings, needed):
    extras = []
    monkeypatch.setattr(checkup, "check_packages", lambda names: extras.append(names) or [])
    run_doctor(settings)
    assert extras == [frozenset(needed)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (DoctorSettings(suite="metawrld"), "Did you mean 'metaworld'"),
        (DoctorSettings(folder=Path("no/such/folder")), "no folder"),
        (DoctorSettings(timeout=0.0), "--timeout"),
        (DoctorSettings(timeout=float("nan")), "--timeout"),
    ],
)
def test_nonsense_is_refused_before_any_check(settings, words):
    with pytest.raises(SettingsError, match="(?s).*" + words):
        run_doctor(settings)
