"""Handing shards to workers: in order, a few at a time, and again when a worker is lost."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from grape.core.errors import GrapeError
from grape.mapping.attempt import Outcome

__all__ = ["ShardWorker", "WorkerPool", "WorkerStarter", "dispatch"]

_AHEAD = 2  # shards that a worker has, so that it need not wait for this process
_WINDOW = 4  # shards a worker, from the one whose result is next, that may be under way or wait for their turn
_MOST_LOSSES = 3  # workers that one shard may cost
_CHECK_SECONDS = 1.0


class ShardWorker(Protocol):
    """A process that computes functions of shards, one after the other."""

    def begin(self, function: Callable[[Any], Any]) -> None:
        """Hand over the function of the shards that follow; returns at once."""

    def give(self, shard: Any) -> None:
        """Hand over a shard; returns at once."""

    def take(self) -> Outcome:
        """The outcome of the oldest shard.

        Raises:
            EOFError: The process is gone; the message continues "A worker ...".
        """

    def kill(self) -> None:
        """End it at once."""


Worker = TypeVar("Worker", bound=ShardWorker)


class WorkerStarter(Protocol[Worker]):
    """Starts workers somewhere."""

    def start(self) -> Worker:
        """Start a worker; returns at once."""

    def ready(self, workers: Sequence[Worker], seconds: float) -> list[Worker]:
        """Those of the workers whose outcome can be taken, as soon as there is one or some seconds have passed."""


class WorkerPool:
    """Workers that stay from one function to the next.

    Args:
        starter: Where they are started.
    """

    def __init__(self, starter: WorkerStarter[Any]) -> None:
        self.starter = starter
        self._idle: list[ShardWorker] = []

    def take(self, function: Callable[[Any], Any]) -> ShardWorker:
        """A worker for a function: an idle one, or a new one."""
        worker: ShardWorker = self._idle.pop() if self._idle else self.starter.start()
        worker.begin(function)
        return worker

    def give_back(self, worker: ShardWorker) -> None:
        """Keep a worker that has no shards left."""
        self._idle.append(worker)

    def close(self) -> None:
        """End the workers."""
        while self._idle:
            self._idle.pop().kill()


@dataclass(eq=False)
class _Busy:
    """A worker and the numbers of the shards that it has, oldest first."""

    worker: ShardWorker
    shards: deque[int] = field(default_factory=deque)


def dispatch(
    function: Callable[[Any], Any],
    shards: Sequence[Any],
    pool: WorkerPool,
    workers: int,
    lost: Callable[[str], None],
) -> Iterator[Any]:
    """Results of the function for all shards, in their order.

    Memory holds the results of a few shards a worker. An error is raised when it is its shard's turn, so it is the one
    that a single process would have met first. When the caller stops early, workers that are busy are ended.

    Args:
        function: A pure function of one shard, so that computing a shard again does no harm.
        shards: What to compute; what travels.
        pool: Whose workers.
        workers: How many at most.
        lost: Told in a sentence of each worker that was lost.

    Raises:
        GrapeError: A shard cost several workers, one after the other.
    """
    count = min(workers, len(shards))
    busy: list[_Busy] = []
    waiting = deque(range(len(shards)))
    outcomes: dict[int, Outcome] = {}
    losses: dict[int, int] = {}
    try:
        busy.extend(_Busy(pool.take(function)) for _ in range(count))
        for turn in range(len(shards)):
            while turn not in outcomes:
                _hand_out(busy, waiting, shards, turn + _WINDOW * count)
                at_work = {id(one.worker): one for one in busy if one.shards}
                for worker in pool.starter.ready([one.worker for one in at_work.values()], _CHECK_SECONDS):
                    one = at_work[id(worker)]
                    try:
                        outcomes[one.shards[0]] = one.worker.take()
                        one.shards.popleft()
                    except EOFError as error:
                        _count_loss(losses, one.shards[0], str(error), lost)
                        one.worker.kill()
                        waiting = deque(sorted([*waiting, *one.shards]))
                        one.worker, one.shards = pool.take(function), deque()
            outcome = outcomes.pop(turn)
            if outcome.error is not None:
                raise outcome.error
            _hand_out(busy, waiting, shards, turn + 1 + _WINDOW * count)
            yield outcome.value
    finally:
        for one in busy:
            if one.shards:
                one.worker.kill()
            else:
                pool.give_back(one.worker)


def _hand_out(busy: Sequence[_Busy], waiting: deque[int], shards: Sequence[Any], end: int) -> None:
    """Give the first shards that wait to the workers that have the fewest, none from ``end`` on."""
    while waiting and waiting[0] < end:
        one = min(busy, key=lambda candidate: len(candidate.shards))
        if len(one.shards) >= _AHEAD:
            return
        number = waiting.popleft()
        one.shards.append(number)
        one.worker.give(shards[number])


def _count_loss(losses: dict[int, int], shard: int, reason: str, lost: Callable[[str], None]) -> None:
    losses[shard] = losses.get(shard, 0) + 1
    if losses[shard] >= _MOST_LOSSES:
        raise GrapeError(
            f"{losses[shard]} workers were lost on the same shard of episodes. The last one {reason}",
            "Where memory is short, take fewer --workers; with --workers 1 the work is done in this process.",
        )
    lost(f"A worker {reason}. Its shard of episodes is done again.")
