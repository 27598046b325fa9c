"""The notebooks run from the first cell to the last, and are stored as someone wrote them, without what a run left."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tests.examples.notebooks import FOLDER, NOTEBOOKS, ROOT, run_notebook

LINK = re.compile(r"\]\((?!https?://|#)([^)\s#]+)(?:#([\w-]+))?\)")
TITLE = re.compile(r"^# .+")


def name_of(path: Path) -> str:
    return path.stem


def cells(path: Path, kind: str) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    notebook = run_notebook(path, tmp_path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {kind for cell in code for output in cell.outputs for kind in output.get("data", {})}
    assert "text/html" in kinds or "image/png" in kinds, "a tutorial shows something"
    written = {item.name for item in tmp_path.iterdir()} - {path.name, "ipython"}
    assert written <= {"runs"}, "what is written lies below runs"


def test_there_are_all_five() -> None:
    assert {path.stem for path in NOTEBOOKS} == {
        "align-a-policy",
        "own-policy",
        "own-simulator",
        "write-a-cost",
        "read-the-statistics",
    }


def test_a_check_that_fails_in_a_notebook_fails_here(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("import sys"), nbformat.v4.new_code_cell("assert sys.version == 'other'")]
    )
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    (tmp_path / "work").mkdir()
    with pytest.raises(CellExecutionError, match=r"assert sys\.version == .other."):
        run_notebook(tmp_path / "wrong.ipynb", tmp_path / "work")


def test_the_kernel_is_this_interpreter_with_this_checkout(tmp_path: Path) -> None:
    import sys

    code = "import sys, os, grape\nprint(sys.executable, grape.__file__, os.environ['OMP_NUM_THREADS'], os.getcwd())"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(notebook, tmp_path / "where.ipynb")
    (tmp_path / "work").mkdir()
    done = run_notebook(tmp_path / "where.ipynb", tmp_path / "work")
    package = ROOT / "src" / "grape" / "__init__.py"
    assert done.cells[0].outputs[0].text.split() == [sys.executable, str(package), "1", str(tmp_path / "work")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_it_is_stored_without_outputs_and_as_jupyter_writes_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in cells(path, "code"):
        assert (cell.outputs, cell.execution_count) == ([], None), "clear all outputs, then save"
    assert all(not cell.metadata for cell in notebook.cells)
    assert not re.search(r"/home/|/root/|/Users/|/tmp/|[A-Z]:\\\\", text), "a path of one machine"
    assert str(ROOT) not in text, "a path of one machine"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_it_explains_itself_in_short_cells(path: Path) -> None:
    text, code = cells(path, "markdown"), cells(path, "code")
    assert TITLE.match(text[0].source)
    assert len(text) >= 0.6 * len(code)
    long = [cell.source.splitlines()[0] for cell in code if len(cell.source.splitlines()) > 55]
    assert not long
    assert any(re.search(r"^\s*assert ", cell.source, re.MULTILINE) for cell in code)
    for cell in text:
        for target, _ in LINK.findall(cell.source):
            assert (FOLDER / target).resolve().exists(), f"{target} leads nowhere"


def test_the_site_shows_each() -> None:
    navigation = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f'"tutorials/{path.stem}"' in navigation
        assert (ROOT / "docs" / "tutorials" / f"{path.stem}.md").exists()
