"""Wheel and source distribution: what is in them, and that they install and run where nothing else of GRAPE is."""

import ast
import email
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import grape

pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = f"grape_vla-{grape.__version__}"


def build(kind: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [package] = target.iterdir()
    return package


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the unpacked source distribution, as an installer does it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", folder / NAME, tmp_path_factory.mktemp("wheel"))


def files_of(folder: str) -> set[str]:
    """What git tracks, or will: so a forgotten rule of packaging shows."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}


def test_the_source_distribution_holds_what_one_works_with_and_no_environment(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    for folder in ("src", "tests", "docs", "examples", "benchmarks", "scripts", "requirements"):
        assert files_of(folder) <= names, folder
    assert {"LICENSE", "README.md", "CITATION.cff", "SECURITY.md", "Makefile", "PKG-INFO", ".ci/run"} <= names
    assert not [name for name in names if re.match(r"(\.venv|runs|build|dist|\.git)(-\w+)?/|.*__pycache__", name)]


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = email.message_from_bytes(archive.read(f"{NAME}.dist-info/METADATA"))
        entry_points = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
    package = {name for name in names if not name.startswith(f"{NAME}.dist-info/")}
    assert package == {name.removeprefix("src/") for name in files_of("src/grape")}
    assert {
        "grape/py.typed",
        "grape/report/templates/report.html.j2",
        "grape/loop/recipes/metaworld-nano.yaml",
    } <= package
    assert f"{NAME}.dist-info/licenses/LICENSE" in names
    assert "grape = grape.cli.main:main" in entry_points
    assert metadata["Name"] == PROJECT["name"]
    assert set(metadata.get_all("Provides-Extra") or ()) == set(PROJECT["optional-dependencies"])
    core = [text for text in metadata.get_all("Requires-Dist") or () if "extra ==" not in text]
    assert len(core) == len(PROJECT["dependencies"])
    assert not any(re.match(r"(torch|mujoco|matplotlib|transformers|jinja2)\b", text, re.IGNORECASE) for text in core)


def test_the_wheel_installs_and_runs_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", environment / "bin" / "python"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    # Third-party packages come from where the tests run; lines of .pth files there, which lead to a checkout, do not.
    places = {
        str(Path(spec.origin).parents[1])
        for spec in map(importlib.util.find_spec, ("numpy", "tyro", "yaml"))
        if spec and spec.origin
    }
    (packages / "dependencies.pth").write_text("\n".join(sorted(places)))
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*command: str) -> str:
        done = subprocess.run(
            [str(environment / "bin" / command[0]), *command[1:]],
            cwd=tmp_path, env=clean, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("python", "-c", "import grape; print(grape.__version__, grape.__file__)").split() == [
        grape.__version__,
        str(packages / "grape" / "__init__.py"),
    ]
    assert grape.__version__ in run("grape", "--version")
    assert "drawer-open" in run("grape", "costs", "list")
    assert "metaworld-nano" in run("grape", "loop", "--recipe", "help")


def test_hints_name_extras_that_there_are() -> None:
    hint = re.compile(r"grape-vla\[([\w,]+)\]|(?:whl|\.)\[([\w,]+)\]'")
    named = set()
    for path in [
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*.md"),
        *ROOT.glob("requirements/*"),
    ]:
        for match in hint.finditer(path.read_text(encoding="utf-8")):
            named |= set((match[1] or match[2]).split(","))
    assert {"train", "report", "figures", "libero", "endpoint"} <= named
    assert named <= set(PROJECT["optional-dependencies"])


def test_nothing_advises_to_update_from_an_index_that_does_not_have_it() -> None:
    """An extra of the installed package needs no index; a newer release would."""
    for path in ROOT.glob("src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert "--upgrade grape-vla" not in node.value, path


def test_the_citation_the_change_log_and_the_docs_name_this_release() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    [released] = re.findall(r"^date-released: (\d{4}-\d{2}-\d{2})$", citation, re.MULTILINE)
    assert f"\nversion: {grape.__version__}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation
    [newest, *_] = re.findall(
        r"^## \[(.+)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert newest == (grape.__version__, released)
    wheels = re.findall(
        r"grape_vla-([\d.]+)-py3-none-any", (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    )
    assert set(wheels) == {grape.__version__}
