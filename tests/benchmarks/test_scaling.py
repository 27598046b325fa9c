"""The page of scaling tells what its record holds, and the simulator that waits is a suite like others."""

import json

import pytest


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.syspath_prepend(request.config.rootpath / "benchmarks")


def test_the_page_holds_the_record(benchmarks: None) -> None:
    import scaling

    page = (scaling.RESULTS / "scaling.md").read_text(encoding="utf-8")
    record = json.loads((scaling.RESULTS / "scaling.json").read_text())
    assert scaling.with_table(page, record) == page
    assert {row["work"] for row in record["rows"]} == {*scaling.ROLLOUTS, *scaling.VERBS}


def test_the_simulator_that_waits_plays_the_toy_suite(benchmarks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import sleeping_suite

    monkeypatch.setattr(sleeping_suite, "SECONDS", 0.0)
    suite = sleeping_suite.SleepingSuite()
    task = suite.tasks[0]
    environment, expert = suite.make_environment(task), suite.make_expert(task, "clean", 0)
    snapshot = environment.reset(0)
    for _ in range(task.max_steps):
        if snapshot.success:
            break
        snapshot = environment.step(expert.act(snapshot)[0])
    assert (suite.name, task.suite, snapshot.success) == ("sleeping", "sleeping", True)
