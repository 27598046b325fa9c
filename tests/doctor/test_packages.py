"""Declared against installed, extra by extra."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

import grape
from grape.doctor import packages

DECLARED = [
    "numpy>=2.1",
    'colorama; sys_platform == "win32"',
    'tomli>=1; python_version >= "3"',
    "torch>=2.5; extra == 'train'",
    "peft>=0.17; extra == 'train'",
    "mujoco>=3.3; extra == 'metaworld'",
    "ruff; extra == 'dev'",
]
GOOD = {
    "grape-vla": grape.__version__,
    "numpy": "2.4.6",
    "tomli": "2",
    "torch": "2.13.0+cpu",
    "peft": "0.21",
    "mujoco": "3.3.0",
}


@pytest.fixture
def installed(monkeypatch):
    table = dict(GOOD)

    def version(name):
        if name not in table:
            raise importlib.metadata.PackageNotFoundError(name)
        return table[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: DECLARED)
    return table


def by_name(needed=frozenset()):
    return {finding.name: finding for finding in packages.check_packages(frozenset(needed))}


def test_requirements_by_extra():
    groups = packages.extra_requirements(DECLARED)
    names = {extra: [requirement.name for requirement in requirements] for extra, requirements in groups.items()}
    assert names == {"": ["numpy", "tomli"], "train": ["torch", "peft"], "metaworld": ["mujoco"]}


def test_everything_there(installed):
    findings = by_name({"metaworld"})
    assert {finding.level for finding in findings.values()} == {"ok"}
    assert "torch 2.13.0+cpu" in findings["extra train"].found


def test_absent_extra_is_an_error_only_when_needed(installed):
    del installed["mujoco"]
    absent = by_name()["extra metaworld"]
    assert absent.level == "ok"
    assert absent.found.startswith("not installed (needed for the simulator")
    assert absent.fix == "pip install 'grape-vla[metaworld]'"
    finding = by_name({"metaworld"})["extra metaworld"]
    assert finding.level == "error"
    assert finding.found.startswith("not installed")
    assert finding.fix == "pip install 'grape-vla[metaworld]'"


def test_old_release_is_named(installed):
    installed["torch"] = "2.1.0"
    finding = by_name()["extra train"]
    assert finding.level == "warn"
    assert "torch is 2.1.0, not >=2.5" in finding.found


def test_an_extra_of_which_the_core_has_a_part_is_not_installed(installed):
    """Extras share packages: one of them says nothing of the other."""
    del installed["torch"]
    finding = by_name()["extra train"]
    assert (finding.level, finding.found[:13]) == ("ok", "not installed")
    assert not packages.is_installed("train")
    assert packages.is_installed("metaworld")


def test_core_must_be_there(installed):
    installed["numpy"] = "1.26"
    assert by_name()["core packages"].level == "error"


def test_not_installed_at_all(installed):
    del installed["grape-vla"]
    (finding,) = by_name().values()
    assert (finding.level, finding.fix) == ("error", "In the checkout: make install")


def test_an_editable_installation_of_an_older_release_is_named(installed):
    installed["grape-vla"] = "0.1.0"
    finding = by_name()["grape"]
    assert finding.level == "warn"
    assert f"the code is {grape.__version__}, but grape-vla was installed as 0.1.0" in finding.found
    assert "pip install -e ." in finding.fix


def test_every_extra_of_the_project_is_explained():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) - {"dev"} == set(packages._PURPOSE)
