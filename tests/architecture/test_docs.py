"""The pages lead somewhere: links resolve, commands exist."""

import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement

from grape.cli.main import SPECIAL, VERBS
from tests.architecture.allowed_imports import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`|^(?:    |\s*)(?=grape |make )(.+)$", re.MULTILINE)


def name_of(path):
    return str(path.relative_to(ROOT))


def anchors(text):
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in HEADING.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page):
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} leads nowhere"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"no heading for {target}"


def make_targets():
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page):
    for match in CODE.findall(page.read_text(encoding="utf-8")):
        words = (match[0] or match[1]).split()
        if words[0] == "grape" and len(words) > 1 and words[1].isalpha() and words[1].islower():
            assert words[1] in {*VERBS, *SPECIAL}, f"`{' '.join(words)}`: no such verb"
        if words[0] == "make" and len(words) > 1:
            assert words[1] in make_targets(), f"`{' '.join(words)}`: no such target"


def test_help_lists_every_target():
    reply = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True
    )
    listed = {line.split()[0] for line in reply.stdout.splitlines() if line.startswith("  ")}
    assert make_targets() <= listed


@pytest.mark.parametrize("script", [".ci/run", "scripts/install_python.sh", "scripts/install_system_packages.sh"])
def test_scripts_are_executable_shell(script):
    assert (ROOT / script).stat().st_mode & 0o100
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
    assert "set -euo pipefail" in (ROOT / script).read_text(encoding="utf-8")


def test_recorded_releases_are_allowed_by_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = {}
    for requirement in (Requirement(text) for group in groups for text in group):
        requirements.setdefault(requirement.name.lower(), []).append(requirement)
    recorded = (ROOT / "requirements" / "recorded.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)", recorded, re.MULTILINE))
    assert {"torch", "mujoco", "numpy"} <= set(pins)
    for name, version in pins.items():
        for requirement in requirements.get(name, []):
            assert requirement.specifier.contains(version), f"{name} {version} against {requirement}"
