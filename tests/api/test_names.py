"""What ``import grape`` gives, and that it is cheap."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import grape
from grape.core import errors


def fresh(code: str) -> str:
    """Output of code in an interpreter that has imported nothing."""
    source = Path(grape.__file__).resolve().parents[1]
    environment = {"PYTHONPATH": str(source), "PATH": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=600, env=environment
    ).stdout.strip()


def test_importing_it_is_fast_and_loads_nothing() -> None:
    code = """
import sys
before = set(sys.modules)
import grape
print(*sorted(name for name in set(sys.modules) - before if name.partition(".")[0] in
    {"numpy", "torch", "pyarrow", "scipy", "yaml", "pydantic", "grape"}))
"""
    assert fresh(code) == "grape"
    code = "import time; start = time.process_time(); import grape; print(time.process_time() - start)"
    assert min(float(fresh(code)) for _ in range(3)) < 0.3


def test_no_name_needs_torch() -> None:
    code = """
import sys, grape
for name in grape.__all__:
    getattr(grape, name)
print({"torch", "transformers", "mujoco", "gymnasium", "pandas", "jinja2"} & set(sys.modules))
"""
    assert fresh(code) == "set()"


def test_types_and_names_agree() -> None:
    """A type checker sees what a program gets."""
    tree = ast.parse(Path(grape.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert set(seen) == set(grape.__all__) - {"__version__"}
    for name, module in seen.items():
        if name not in ("collect", "loop", "report"):
            assert getattr(grape, name) is getattr(importlib.import_module(str(module)), str(name))


def test_every_name_is_documented() -> None:
    for name in set(grape.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(grape, name)), name
        assert name in dir(grape)


def test_the_errors_are_the_documented_family() -> None:
    family = {name for name in errors.__all__ if name.endswith("Error")}
    assert family <= set(grape.__all__)
    assert all(issubclass(getattr(grape, name), grape.GrapeError) for name in family)


@pytest.mark.parametrize("name", ["collect", "loop", "report"])
def test_a_verb_of_a_packages_name_is_both(name: str) -> None:
    package = importlib.import_module(f"grape.{name}")
    verb = getattr(importlib.import_module("grape.api.verbs"), name)
    assert getattr(grape, name) is package
    assert callable(package)
    assert inspect.signature(package) == inspect.signature(verb)
    with pytest.raises(grape.SettingsError, match="Unknown setting 'outt'"):
        package(outt="x")
    assert fresh(f"from grape import {name}; print(callable({name}))") == "True"
    both = f"import grape.{name} as package, grape; print(package is grape.{name}, callable(package))"
    assert fresh(both) == "True True"


def test_a_missing_name_suggests_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'colect'. Did you mean 'collect'\?"):
        grape.colect  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'xyzzy'. See dir\(grape\)"):
        grape.xyzzy  # noqa: B018
    with pytest.raises(ImportError, match=r"'score_trajectory' from 'grape'\. Did you mean 'score_trajectories'"):
        from grape import score_trajectory  # noqa: F401
    with pytest.raises(ImportError, match=r"cannot import name 'colect' from 'grape'\. Did you mean 'collect'\?"):
        exec("from grape import CollectSettings, colect")
    assert not hasattr(grape, "_private")
    assert not hasattr(grape, "colect")


def test_python_adds_no_second_suggestion() -> None:
    code = "import grape\ngrape.colect"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.count("Did you mean") == 1
    assert done.stderr.rstrip().endswith("Did you mean 'collect'?")


def test_packages_are_imported_by_name_as_before() -> None:
    code = (
        "from grape import core, cli, collect; import grape.store as s; print(core.__name__, cli.__name__, s.__name__)"
    )
    assert fresh(code) == "grape.core grape.cli grape.store"
    with pytest.raises(ImportError):
        from grape import _nothing  # noqa: F401
