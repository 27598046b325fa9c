"""How shards are handed out: in order, a few at a time, again after a loss; with workers that only pretend to run."""

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from grape.core.errors import DataError, GrapeError
from grape.mapping.attempt import Outcome, attempt
from grape.mapping.dispatch import WorkerPool, dispatch
from tests.mapping.functions import failing


class Scripted:
    """A worker that computes when it is asked for an outcome."""

    function: Callable[[Any], Any]

    def __init__(self, starter: "ScriptedStarter") -> None:
        self.starter = starter
        self.shards: deque[Any] = deque()
        self.killed = False

    def begin(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def give(self, shard: Any) -> None:
        self.shards.append(shard)
        self.starter.given.append(shard)

    def take(self) -> Outcome:
        shard = self.shards.popleft()
        if self.starter.losses.get(shard, 0):
            self.starter.losses[shard] -= 1
            raise EOFError("was killed by signal 9")
        return attempt(self.function, shard)

    def kill(self) -> None:
        self.killed = True


class ScriptedStarter:
    """The worker that was started last always finishes first."""

    def __init__(self, losses: dict[Any, int] | None = None) -> None:
        self.losses = losses or {}
        self.given: list[Any] = []
        self.started: list[Scripted] = []

    def start(self) -> Scripted:
        self.started.append(Scripted(self))
        return self.started[-1]

    def ready(self, workers: Sequence[Scripted], seconds: float) -> list[Scripted]:
        return [worker for worker in workers if worker.shards][-1:]


def mapped(function: Callable[[Any], Any], shards: Sequence[Any], starter: ScriptedStarter, **given: Any) -> Any:
    return dispatch(function, shards, WorkerPool(starter), 2, given.get("lost", pytest.fail))


def test_results_come_in_order_and_few_shards_are_under_way() -> None:
    starter, seen = ScriptedStarter(), 0
    for number, result in enumerate(mapped(str, range(60), starter)):
        assert result == str(number)
        seen += 1
        assert len(starter.given) - seen <= 8
    assert seen == len(starter.given) == 60
    assert len(starter.started) == 2


def test_the_error_is_that_of_the_first_shard_that_has_one() -> None:
    starter, results = ScriptedStarter(), []
    with pytest.raises(DataError, match="Episode 3 is damaged") as raised:
        results.extend(mapped(failing, range(6), starter))
    assert raised.value.hint == "Copy it again."
    outcome = attempt(failing, 5)
    assert isinstance(outcome.error, RuntimeError)
    assert "ZeroDivisionError: five" in str(outcome.error)


def test_a_lost_worker_costs_what_it_had() -> None:
    starter, lost = ScriptedStarter({3: 1}), list[str]()
    assert list(mapped(str, range(8), starter, lost=lost.append)) == list("01234567")
    assert lost == ["A worker was killed by signal 9. Its shard of episodes is done again."]
    assert len(starter.started) == 3
    assert starter.given.count(3) == 2
    assert all(starter.given.count(number) == 1 for number in (0, 1, 2))


def test_a_shard_that_costs_worker_after_worker_is_given_up() -> None:
    starter, lost = ScriptedStarter({1: 9}), list[str]()
    with pytest.raises(GrapeError, match=r"3 workers were lost on the same shard .* signal 9") as raised:
        list(mapped(str, range(4), starter, lost=lost.append))
    assert "--workers 1" in raised.value.hint
    assert len(lost) == 2


def test_who_stops_early_ends_the_workers_that_are_busy_and_idle_ones_serve_the_next_function() -> None:
    starter = ScriptedStarter()
    with contextlib.closing(WorkerPool(starter)) as pool:
        results = dispatch(str, range(9), pool, 2, pytest.fail)
        assert next(results) == "0"
        results.close()
        assert [worker.killed for worker in starter.started] == [True, True]
        assert list(dispatch(str, range(3), pool, 2, pytest.fail)) == ["0", "1", "2"]
        assert list(dispatch(abs, [-1, 1], pool, 2, pytest.fail)) == [1, 1]
        assert [worker.killed for worker in starter.started] == [True, True, False, False]
    assert all(worker.killed for worker in starter.started)
