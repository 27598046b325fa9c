"""Examples of other distributions as ``pip install`` leaves them behind, without installing anything."""

import contextlib
import importlib
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def installed_example(example: Path, module: str, site: Path) -> Iterator[None]:
    """A folder of examples/ on the path: its module or package, and the entry points of its ``pyproject.toml``.

    Args:
        example: The folder.
        module: Name of its module or package.
        site: New folder to put them into.
    """
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    if (example / module).is_dir():
        shutil.copytree(example / module, site / module, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(example / f"{module}.py", site)
    info = site / f"{module}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        sys.modules.pop(module, None)
