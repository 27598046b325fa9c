"""The tests' own reading of sources and table: what they would miss, they could not forbid."""

import pytest

from tests.architecture.allowed_imports import PACKAGE, documented_imports, imports_of, package_of


def test_table_words():
    imports = documented_imports(
        "| `core` | x | nothing |\n| `store` | x | core |\n"
        "| `loop` | x | everything but cli |\n| `cli` | x | everything |\n"
    )
    assert imports == {
        "core": frozenset(),
        "store": {"core"},
        "loop": {"core", "store", "loop"},
        "cli": {"core", "store", "loop", "cli"},
    }


@pytest.mark.parametrize(
    ("statement", "target"),
    [
        ("import grape.store.files", "grape.store.files"),
        ("from grape.store import EpisodeStore", "grape.store"),
        ("from grape import store", "grape.store"),
        ("from ..store import x", "grape.store"),
        ("from . import x", "grape.costs"),
        ("def f():\n    import torch.nn", "torch.nn"),
    ],
)
def test_every_form_of_import_is_seen(statement, target, monkeypatch, tmp_path):
    package = tmp_path / "grape"
    (package / "costs").mkdir(parents=True)
    monkeypatch.setattr("tests.architecture.allowed_imports.PACKAGE", package)
    path = package / "costs" / "sample.py"
    path.write_text(statement)
    assert [imported.target for imported in imports_of(path)] == [target]


def test_names_of_the_package_itself_are_no_room():
    assert package_of("grape.__version__") == ""
    assert package_of("numpy.store") == ""
    assert package_of("grape.core.files") == "core"
    assert (PACKAGE / "core").is_dir()
