"""The workflow of a public host and the container name what there is."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
RUNS = [(job, step["run"]) for job, content in WORKFLOW["jobs"].items() for step in content["steps"] if "run" in step]


def instructions() -> list[tuple[str, str]]:
    """Name and rest of each instruction of the Dockerfile, lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def default_of(argument: str) -> str:
    [value] = [rest.partition("=")[2] for name, rest in instructions() if name == "ARG" and rest.startswith(argument)]
    return value


def test_the_container_copies_files_that_there_are_and_that_its_context_has() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    allowed = [pattern[1:] for pattern in ignore if pattern.startswith("!")]
    assert ignore[0] == "*"
    copied = [source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]]
    assert {"pyproject.toml", "src"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) or source.startswith(f"{pattern}/") for pattern in allowed), source
    assert (ROOT / PROJECT["readme"]).name in copied  # what a build of the package reads


def test_the_container_has_a_python_and_extras_of_the_project() -> None:
    assert default_of("PYTHON") in PYTHONS
    assert set(default_of("EXTRAS").split(",")) <= set(PROJECT["optional-dependencies"])
    assert re.search(r"^torch==", (ROOT / "requirements" / "recorded.txt").read_text(encoding="utf-8"), re.MULTILINE)
    names = [name for name, _ in instructions()]
    assert names[:2] == ["ARG", "FROM"]
    assert set(names) <= {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "SHELL", "USER", "ENV", "ENTRYPOINT", "CMD"}
    assert names.index("USER") < names.index("ENTRYPOINT")  # nothing runs as root


def test_the_workflow_has_every_python_and_names_folders_extras_and_targets_that_there_are() -> None:
    assert WORKFLOW["jobs"]["core"]["strategy"]["matrix"]["python"] == PYTHONS
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for job, command in RUNS:
        for folder in re.findall(r"\btests/\S+", command):
            assert (ROOT / folder).exists(), f"{job}: {folder}"
        for extras in re.findall(r"'\.\[([\w,]+)\]'", command):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), f"{job}: {extras}"
        for target in re.findall(r"^make (\S+)", command):
            assert target in targets, f"{job}: {target}"


@pytest.mark.parametrize("job", WORKFLOW["jobs"])
def test_every_job_checks_out_has_a_limit_and_runs_something(job: str) -> None:
    content = WORKFLOW["jobs"][job]
    assert content["timeout-minutes"] <= 90
    assert content["steps"][0]["uses"].startswith("actions/checkout@")
    assert any(name == job for name, _ in RUNS)
