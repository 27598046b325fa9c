"""Requests of several clients in one batch, and those that must not be."""

import asyncio

import numpy as np
import pytest

from grape.core.errors import GrapeError, PolicyError
from grape.core.trajectories import Observation
from grape.serving.batching import Batcher
from grape.serving.metrics import ServerMetrics
from tests.serving.numpy_policy import NumpyPolicy

NEVER = 1e6  # seconds; a batch that is full does not wait


def observation(number, instruction="go"):
    return Observation(np.full((2, 2, 3), number, np.uint8), np.zeros(0, np.float32), instruction)


def play(requests, *, most=16, window=0.0, connections=2):
    """Answers or errors of requests that are all made at once, the sizes of the batches, and the metrics."""
    policy, metrics = NumpyPolicy("one"), ServerMetrics({})
    metrics.connections = connections

    async def run():
        batcher = Batcher(policy, policy.spec, most, window, metrics)
        requested = [asyncio.create_task(batcher.decide(*words, shared=shared)) for words, shared in requests]
        await asyncio.sleep(0)  # all of them wait now
        deciding = asyncio.create_task(batcher.run())
        try:
            return await asyncio.gather(*requested, return_exceptions=True)
        finally:
            deciding.cancel()
            batcher.close()

    return asyncio.run(run()), policy.batches, metrics


def robot(number, temperature=0.0, seeds=None, instruction="go"):
    return ([observation(number, instruction)], temperature, seeds), True


def test_robots_share_batches_of_at_most_so_many():
    answers, batches, metrics = play([robot(number) for number in range(5)], most=4, window=0.001)
    assert batches == [4, 1]
    alone = NumpyPolicy("one")
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer.actions, alone.act([observation(number)]).actions)
        np.testing.assert_array_equal(answer.tokens, alone.act([observation(number)]).tokens)
    assert metrics.observations == 5
    assert 'grape_serve_batch_size_bucket{le="1"} 1\n' in metrics.text()
    assert 'grape_serve_batch_size_bucket{le="4"} 2\n' in metrics.text()


def test_a_full_batch_does_not_wait():
    _, batches, _ = play([robot(number) for number in range(4)], most=4, window=NEVER)
    assert batches == [4]


def test_a_robot_that_is_alone_waits_for_nobody():
    _, batches, _ = play([robot(0)], window=NEVER, connections=1)
    assert batches == [1]


def test_what_a_rollout_asks_is_decided_on_as_it_came():
    own = ([observation(7), observation(8)], 0.0, None), False
    _, batches, _ = play([robot(0), own, robot(1), own], most=4, window=0.001)
    assert batches == [2, 2, 2]  # both robots together, then each question of a rollout


def test_other_temperatures_do_not_share_a_batch_and_seeds_stay_with_their_rows():
    requests = [robot(0, 0.5, [3]), robot(0, 0.7, [3]), robot(0, 0.5, [4]), robot(0)]
    answers, batches, _ = play(requests, window=0.001)
    assert batches == [2, 1, 1]
    for (words, _), answer in zip(requests, answers, strict=True):
        _, temperature, seeds = words
        alone = NumpyPolicy("one").act([observation(0)], temperature=temperature, seeds=seeds)
        np.testing.assert_array_equal(answer.tokens, alone.tokens)


def test_one_request_that_fails_spoils_no_other():
    answers, batches, _ = play([robot(0), robot(1, instruction="raise"), robot(2)], window=0.001)
    assert batches == [3, 1, 1, 1]
    assert isinstance(answers[1], PolicyError)
    assert "the key is gone" in str(answers[1])
    assert not any(isinstance(answer, GrapeError) for answer in (answers[0], answers[2]))


def test_a_histogram_counts_up_to_its_bounds():
    metrics = ServerMetrics({"policy_hash": 'a"\n\\'})
    for seconds in (0.001, 0.0011, 40.0):
        metrics.request("answered", seconds)
    lines = metrics.text().splitlines()
    assert 'grape_serve_info{policy_hash="a\\"\\n\\\\"} 1' in lines
    for line in (
        'grape_serve_requests_total{outcome="answered"} 3',
        'grape_serve_request_seconds_bucket{le="0.001"} 1',
        'grape_serve_request_seconds_bucket{le="0.0025"} 2',
        'grape_serve_request_seconds_bucket{le="30"} 2',
        'grape_serve_request_seconds_bucket{le="+Inf"} 3',
        "grape_serve_request_seconds_sum 40.0021",
        "grape_serve_request_seconds_count 3",
    ):
        assert line in lines


@pytest.mark.parametrize("window", [0.0, 0.001])
def test_one_robot_is_answered(window):
    answers, batches, _ = play([robot(0)], window=window)
    assert batches == [1]
    assert answers[0].actions.shape == (1, 2, 7)
