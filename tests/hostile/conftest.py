"""One forking process and one set of sound inputs a test process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.baseline import Baseline
from tests.hostile.driver import Driver


@pytest.fixture(scope="session")
def driver(tmp_path_factory) -> Iterator[Driver]:
    for name in ("av", "peft", "torch", "transformers"):
        pytest.importorskip(name)
    driver = Driver(tmp_path_factory.mktemp("driver") / "log")
    yield driver
    driver.close()


@pytest.fixture(scope="session")
def baseline(driver, tmp_path_factory) -> Baseline:
    return Baseline(driver, tmp_path_factory.mktemp("sound") / "files")


@pytest.fixture
def place(tmp_path) -> Path:
    """Folder of one case: ``work`` to stand in, ``home``, ``tmp``, and ``out``, the only one to be written."""
    for name in ("work", "home", "tmp", "out"):
        (tmp_path / "case" / name).mkdir(parents=True)
    return tmp_path / "case"
