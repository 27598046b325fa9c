from pathlib import Path

import pytest

from grape.report import ReportSettings, run_report
from tests.report.synthetic_run import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests must not change it."""
    return write_run(tmp_path_factory.mktemp("report") / "demo")


@pytest.fixture(scope="session")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's page with four pairs."""
    target = tmp_path_factory.mktemp("page") / "report.html"
    run_report(ReportSettings(run=run, out=target, pairs_shown=4))
    return target
