"""The golden data sets: written by TensorFlow, with a hash of every column."""

import json
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.allowed_imports import ROOT

FOLDER = ROOT.parent / "shared" / "golden" / "rlds"

needs_golden = pytest.mark.skipif(
    not (FOLDER / "expected.json").exists(), reason=f"{FOLDER} is not there: golden data does not come with a clone"
)


@cache
def expected(name: str = "expected.json"):
    path = FOLDER / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def splits() -> list[tuple[str, str]]:
    """Data set and split."""
    return [(name, split) for name, data in expected().get("datasets", {}).items() for split in data["splits"]]


def golden(name: str) -> Path:
    return FOLDER / name
