"""Requests of several clients, put together in batches that the policy decides on, one after the other."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from grape.core.errors import GrapeError, PolicyError
from grape.core.trajectories import Observation
from grape.policies.base import ActionBatch, Policy, PolicySpec
from grape.policies.deciding import decide
from grape.serving.metrics import ServerMetrics

__all__ = ["Batcher"]


@dataclass(frozen=True, eq=False)
class _Job:
    """A request that waits for its decisions."""

    observations: Sequence[Observation]
    temperature: float
    seeds: Sequence[int] | None
    shared: bool
    decisions: "asyncio.Future[ActionBatch]"


class Batcher:
    """Lets one policy decide for many clients, on a thread of its own.

    A shared request may be computed in one batch with others of its temperature; any other is computed as it came, so
    that its last bits do not depend on who else asks.

    Args:
        policy: The policy.
        spec: Its contract.
        most: Observations of shared requests in a batch at most.
        window: Seconds that a shared request waits for others.
        metrics: Counts batches.
    """

    def __init__(self, policy: Policy, spec: PolicySpec, most: int, window: float, metrics: ServerMetrics) -> None:
        self._policy, self._spec = policy, spec
        self._most, self._window, self._metrics = most, window, metrics
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "grape-policy")

    async def decide(
        self, observations: Sequence[Observation], temperature: float, seeds: Sequence[int] | None, *, shared: bool
    ) -> ActionBatch:
        """Decisions for some observations, when it is their turn.

        Args:
            observations: As for ``Policy.act``.
            temperature: As there.
            seeds: As there.
            shared: Whether they may be computed together with those of others.

        Raises:
            GrapeError: The policy cannot decide.
        """
        job = _Job(observations, temperature, seeds, shared, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        return await job.decisions

    async def prompt(self, instruction: str) -> str:
        """The text that the network reads for an instruction."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._policy.prompt, instruction)

    async def run(self) -> None:
        """Decide on requests in the order of their coming, until it is cancelled."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            jobs = await self._next_batch()
            jobs = [job for job in jobs if not job.decisions.cancelled()]  # who has gone needs no answer
            try:
                if jobs:
                    await self._answer(jobs)
            except Exception as error:  # nobody must wait for ever
                for job in jobs:
                    _settle(job, _fault(error))

    def close(self) -> None:
        """Wait for what the policy computes now; nothing else is begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _next_batch(self) -> list[_Job]:
        """The first request that waits, and those that may share its batch."""
        first = self._waiting[0]
        if first.shared and self._window > 0 and self._metrics.connections != 1:  # one client alone has no company
            deadline = asyncio.get_running_loop().time() + self._window
            while self._companions(first)[1] < self._most:
                self._arrived.clear()
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._arrived.wait()
                except TimeoutError:
                    break
        jobs, _ = self._companions(first)
        for job in jobs:
            self._waiting.remove(job)
        return jobs

    def _companions(self, first: _Job) -> tuple[list[_Job], int]:
        """The jobs of a batch with the first one, and their observations; no more than fit in."""
        if not first.shared:
            return [first], len(first.observations)
        jobs: list[_Job] = []
        rows = 0
        for job in self._waiting:
            fits = rows + len(job.observations) <= self._most or not jobs
            if job.shared and fits and _alike(job, first):
                jobs.append(job)
                rows += len(job.observations)
        return jobs, rows

    async def _answer(self, jobs: Sequence[_Job]) -> None:
        """Decide on one batch; where it fails, on each of its requests alone."""
        observations = [observation for job in jobs for observation in job.observations]
        seeds = None if jobs[0].seeds is None else [seed for job in jobs for seed in job.seeds or ()]
        try:
            batch = await self._compute(observations, jobs[0].temperature, seeds)
        except GrapeError as error:
            if len(jobs) == 1:
                _settle(jobs[0], error)
                return
            for job in jobs:
                await self._answer([job])
            return
        start = 0
        for job in jobs:
            stop = start + len(job.observations)
            _settle(job, _rows(batch, start, stop))
            start = stop

    async def _compute(
        self, observations: Sequence[Observation], temperature: float, seeds: Sequence[int] | None
    ) -> ActionBatch:
        start_time = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._decide, observations, temperature, seeds
            )
        finally:
            self._metrics.batch(len(observations), time.perf_counter() - start_time)

    def _decide(
        self, observations: Sequence[Observation], temperature: float, seeds: Sequence[int] | None
    ) -> ActionBatch:
        """Runs on the policy's thread."""
        try:
            return decide(
                self._policy, self._spec, observations, temperature=temperature, seeds=seeds, where="a request"
            )
        except GrapeError:
            raise
        except Exception as error:  # a server goes on: the next request may be another one
            raise _fault(error) from error


def _fault(error: Exception) -> PolicyError:
    reason = " ".join(str(error).split()) or "no message"
    return PolicyError(f"The policy raised {type(error).__name__}: {reason}.", "See the server's log and memory.")


def _alike(job: _Job, first: _Job) -> bool:
    return job.temperature == first.temperature and (job.seeds is None) == (first.seeds is None)


def _settle(job: _Job, outcome: ActionBatch | GrapeError) -> None:
    if job.decisions.done():
        return
    if isinstance(outcome, GrapeError):
        job.decisions.set_exception(outcome)
    else:
        job.decisions.set_result(outcome)


def _rows(batch: ActionBatch, start: int, stop: int) -> ActionBatch:
    """Decisions ``start`` to ``stop`` of a batch."""
    parts: list[Any] = [
        None if part is None else part[start:stop]
        for part in (batch.actions, batch.tokens, batch.logps, batch.normalized)
    ]
    actions, tokens, logps, normalized = parts
    return ActionBatch(actions, tokens, logps, batch.support, batch.temperature, normalized)
