"""The recording that tests of ``grape import video`` change and import."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound recording of half a second."""
    from tests.exchange.short_video import write_recording  # needs the library that writes videos

    return write_recording(tmp_path / "in")
