"""Habits of the sources: sizes, names, docstrings, and what never appears in them."""

import ast
import warnings

import pytest

from tests.architecture.allowed_imports import PACKAGE, ROOT, sources

MAX_LINES = 400
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "stuff"}
FORBIDDEN_CALLS = {"eval", "exec", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

PYTHON = [path for path in sources() if path.suffix == ".py"]


def name_of(path):
    return str(path.relative_to(ROOT))


def test_sources_were_found():
    assert len(PYTHON) > 20


def test_files_are_short():
    """Files near the limit are listed as a warning, so that they are divided before they must be."""
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PYTHON}
    near = sorted(f"{name}: {lines}" for name, lines in sizes.items() if 0.9 * MAX_LINES < lines <= MAX_LINES)
    if near:
        warnings.warn(f"close to {MAX_LINES} lines: {', '.join(near)}", stacklevel=1)
    assert not {name: lines for name, lines in sizes.items() if lines > MAX_LINES}


def test_names_say_what_a_file_holds():
    everything = [path for path in PACKAGE.rglob("*") if "__pycache__" not in path.parts]
    assert not [name_of(path) for path in everything if path.stem.lower() in FORBIDDEN_NAMES]


def test_every_folder_with_sources_is_a_package():
    assert not [name_of(path.parent) for path in PYTHON if not (path.parent / "__init__.py").exists()]


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_module_explains_itself_and_runs_no_foreign_code(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstring = ast.get_docstring(tree) or ""
    assert docstring, "the module has no docstring"
    assert "placeholder" not in docstring.lower()
    for node in ast.walk(tree):
        where = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"{where}: {node.func.id}()"
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES, where
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES, where
        if isinstance(node, ast.keyword):
            assert node.arg != "trust_remote_code", where
            allows_pickle = node.arg == "allow_pickle" and getattr(node.value, "value", True) is not False
            assert not allows_pickle, f"{where}: allow_pickle"


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_torch_loads_weights_only(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("weights_only") == "True", f"line {node.lineno}: torch.load reads a pickle otherwise"
