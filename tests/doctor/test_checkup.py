"""The verb: what makes it fail, and what is refused before any check."""

import json
from pathlib import Path

import pytest

from grape.core.errors import SettingsError
from grape.doctor import DoctorSettings, Finding, checkup, run_doctor


@pytest.fixture
def checks(monkeypatch):
    """Checks that find what the test puts in."""
    found = {name: "ok" for name in dir(checkup) if name.startswith("check_")}
    for name in found:
        monkeypatch.setattr(checkup, name, lambda *_, name=name: [Finding(name, found[name], "seen", "do this")])
    return found


def test_all_well(checks):
    summary = run_doctor(DoctorSettings("metaworld,simpler"))
    assert summary["ok"]
    assert {finding["name"] for finding in summary["findings"]} == set(checks)
    assert set(summary["findings"][0]) == {"name", "level", "found", "fix"}
    json.dumps(summary, allow_nan=False)


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
        (DoctorSettings("toy"), set()),
        (DoctorSettings("libero"), {"libero"}),
        (DoctorSettings("libero_goal,toy,metaworld"), {"libero", "metaworld"}),
        (DoctorSettings("simpler_widowx_physical,toy"), {"simpler"}),
    ],
)
def test_the_suites_extra_is_needed(monkeypatch, checks, settings, needed):
    asked = []
    monkeypatch.setattr(checkup, "check_packages", lambda names: asked.append(names) or [])
    run_doctor(settings)
    assert asked == [frozenset(needed)]


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
