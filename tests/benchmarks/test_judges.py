"""The page of judges tells what its record holds."""

from pathlib import Path

import pytest


def test_the_page_tells_what_the_record_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import judges

    page = judges.PAGE.read_text(encoding="utf-8")
    assert judges.with_table(page) == page
    assert page.count("| scripted person, ") == 2 * len(judges.PERSONS)
