"""The record of the benchmark with and without the robot's state."""

from pathlib import Path

import pytest


def test_the_difference_is_with_less_without(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    pytest.importorskip("torch")
    import proprio

    figures = proprio.paired([(True, False)] * 6 + [(False, True)] + [(True, True), (False, False)])
    assert (figures["only_with"], figures["only_without"], figures["pairs"]) == (6, 1, 9)
    assert figures["difference"] == pytest.approx(5 / 9)
    assert figures["interval"][0] < figures["difference"] < figures["interval"][1]
    assert figures["p_value"] == pytest.approx(2 * 8 / 2**7)
    assert proprio.paired([])["p_value"] is None
