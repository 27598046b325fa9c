"""Which package may import which, as docs/architecture.md draws it, and where heavy packages may appear."""

import os
import subprocess
import sys

import pytest

from tests.architecture.allowed_imports import (
    ROOT,
    documented_imports,
    imports_of,
    package_of,
    packages_on_disk,
    sources,
)

ALLOWED_IMPORTS = documented_imports((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))

WITHOUT_TORCH = ("core", "store", "costs", "scorers", "judges", "agreement", "preferences", "evaluation")

LEARNING, SIMULATION = frozenset({"policies", "training", "perception", "vlm"}), frozenset({"envs"})

HEAVY = {
    **dict.fromkeys(("torch", "transformers", "peft", "safetensors", "tokenizers"), LEARNING),
    "ray": frozenset({"cluster"}),
    **dict.fromkeys(("mujoco", "metaworld", "gymnasium", "mani_skill", "sapien"), SIMULATION),
}
"""Packages that only some packages may import, at any depth."""


def test_table_lists_the_rooms_that_exist():
    assert set(ALLOWED_IMPORTS) == packages_on_disk()


def test_table_names_known_rooms_only():
    assert {name for allowed in ALLOWED_IMPORTS.values() for name in allowed} <= set(ALLOWED_IMPORTS)


def test_table_has_no_circle():
    # Even packages that may import everything form no circle: take away those whose imports are all gone.
    left = {package: set(allowed) - {package} for package, allowed in ALLOWED_IMPORTS.items()}
    while left:
        free = {package for package, allowed in left.items() if not allowed & set(left)}
        assert free, f"circle among {sorted(left)}"
        left = {package: allowed for package, allowed in left.items() if package not in free}


@pytest.mark.parametrize("package", sorted(ALLOWED_IMPORTS))
def test_imports_follow_the_table(package):
    allowed = ALLOWED_IMPORTS[package] | {package}
    wrong = [
        str(imported)
        for path in sources(package)
        for imported in imports_of(path)
        if package_of(imported.target) and package_of(imported.target) not in allowed
    ]
    assert not wrong, f"{package} may import {sorted(ALLOWED_IMPORTS[package])} only:\n" + "\n".join(wrong)


@pytest.mark.parametrize("package", sorted(ALLOWED_IMPORTS))
def test_heavy_packages_stay_in_their_packages(package):
    wrong = [
        str(imported)
        for path in sources(package)
        for imported in imports_of(path)
        if package not in HEAVY.get(imported.target.split(".")[0], {package})
    ]
    assert not wrong, "\n".join(wrong)


def test_no_verb_imports_a_concrete_policy():
    """Policies are opened through the registry of their types: whatever works for ours works for any other."""
    wrong = [
        str(imported)
        for package in ALLOWED_IMPORTS
        if package != "policies"
        for path in sources(package)
        for imported in imports_of(path)
        if imported.target.startswith("grape.policies.openvla")
    ]
    assert not wrong, "\n".join(wrong)


_LOAD_PACKAGES = """
import importlib, pkgutil, sys
for package in sys.argv[1:]:
    package = importlib.import_module(f"grape.{package}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
heavy = {"torch", "transformers", "peft", "mujoco", "metaworld", "gymnasium", "mani_skill", "sapien", "av", "jinja2"}
print(" ".join(sorted(heavy & set(sys.modules))))
"""


@pytest.mark.parametrize(
    "packages",
    [WITHOUT_TORCH, ("envs", "store", "doctor"), ("vlm", "generation"), ("cli",)],
    ids=["core-packages", "envs-doctor", "generation", "cli"],
)
def test_importing_loads_nothing_heavy(packages):
    reply = subprocess.run(
        [sys.executable, "-c", _LOAD_PACKAGES, *packages],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert reply.returncode == 0, reply.stderr
    assert reply.stdout.strip() == "", f"importing {packages} loads {reply.stdout}"
