"""The record of the benchmark of fine-tuning."""

from pathlib import Path

import pytest


def test_the_difference_is_the_first_arm_less_the_other(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    pytest.importorskip("torch")
    import fine_tuning

    figures = fine_tuning.paired([(True, False)] * 6 + [(False, True)] + [(True, True), (False, False)])
    assert (figures["only_first"], figures["only_other"], figures["pairs"]) == (6, 1, 9)
    assert figures["difference"] == pytest.approx(5 / 9)
    assert figures["interval"][0] < figures["difference"] < figures["interval"][1]
    assert figures["p_value"] == pytest.approx(2 * 8 / 2**7)
    assert fine_tuning.paired([])["p_value"] is None
