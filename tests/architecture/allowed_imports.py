"""The package's packages as the documentation draws them, and the imports that the sources contain."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "grape"

_ROW = re.compile(r"^\| `(?P<package>\w+)` \|(?P<holds>[^|]*)\|(?P<allowed>[^|]*)\|$", re.MULTILINE)


@dataclass(frozen=True)
class Import:
    """One import statement: the module that is imported, and where."""

    target: str
    source: Path
    line: int

    def __str__(self) -> str:
        return f"{self.source.relative_to(ROOT)}:{self.line} imports {self.target}"


def packages_on_disk() -> frozenset[str]:
    return frozenset(folder.parent.name for folder in PACKAGE.glob("*/__init__.py"))


def sources(package: str = "") -> list[Path]:
    return sorted((PACKAGE / package).rglob("*.py"))


def documented_imports(text: str) -> Mapping[str, frozenset[str]]:
    """Allowed imports by package, from the table of docs/architecture.md."""
    rows = {match["package"]: match["allowed"].strip() for match in _ROW.finditer(text)}
    everything = frozenset(rows)
    imports: dict[str, frozenset[str]] = {}
    for package, allowed in rows.items():
        if allowed == "nothing":
            imports[package] = frozenset()
        elif allowed.startswith("everything"):
            imports[package] = everything - frozenset(re.findall(r"\w+", allowed.partition("but")[2]))
        else:
            imports[package] = frozenset(name.strip() for name in allowed.split(","))
    return imports


def imports_of(path: Path) -> Iterator[Import]:
    """Every import in a file, at any depth, relative ones resolved."""
    package = path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, path, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            # `from grape import store` names a package only in the alias.
            for alias in node.names:
                yield Import(f"{module}.{alias.name}" if module == "grape" else module, path, node.lineno)


def package_of(module: str) -> str:
    """Package that a module of ours belongs to; empty for others' modules and for names of the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "grape" and len(parts) > 1 and parts[1] in packages_on_disk() else ""
