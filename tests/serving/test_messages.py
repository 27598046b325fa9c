"""Messages as bytes: the layout of openpi's clients, and what must not get in."""

import contextlib
import struct

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from grape.core.errors import CompatibilityError, DataError, PolicyError, SettingsError
from grape.core.trajectories import Observation
from grape.policies.remote.address import parse_address, read_token
from grape.policies.remote.messages import (
    PROTOCOL,
    ServerFacts,
    decide_message,
    decision_message,
    error_message,
    facts_message,
    raise_error,
    read_decision,
    read_facts,
    read_observations,
    read_sampling,
)
from grape.policies.remote.packing import pack, unpack
from tests.serving.numpy_policy import NumpyPolicy

DTYPES = st.sampled_from(["?", "i1", "u1", "<i2", ">i4", "<i8", "<u8", "<f2", "<f4", ">f8"])


@given(DTYPES.flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))))
def test_arrays_come_back_as_they_were(array):
    (back,) = unpack(pack([array]))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_the_layout_is_that_of_openpi_s_clients():
    """Assembled by hand: a map of four entries whose keys are of msgpack's type bin."""
    named = b"".join(
        b"\xc4" + bytes([len(key)]) + key + value
        for key, value in {
            b"__ndarray__": b"\xc3",
            b"data": b"\xc4\x04" + struct.pack("<hh", 3, -2),
            b"dtype": b"\xa3<i2",
            b"shape": b"\x91\x02",
        }.items()
    )
    data = b"\x81\xa1x\x84" + named
    assert pack({"x": np.array([3, -2], "<i2")}) == data
    np.testing.assert_array_equal(unpack(data)["x"], [3, -2])
    assert unpack(pack({"n": np.float32(0.5), "u": np.uint8(7)})) == {"n": 0.5, "u": 7}
    assert unpack(pack({"n": np.float32(0.5)}))["n"].dtype == np.float32


def array():
    return {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2]}


HOSTILE = {
    "nothing": b"",
    "text": b"GET / HTTP/1.1\r\n\r\n",
    "truncated": pack({"x": np.zeros(100)})[:-1],
    "followed by more": pack({}) + b"\x00",
    "objects": msgpack.packb(array() | {b"dtype": "|O"}),
    "a structure": msgpack.packb(array() | {b"dtype": "f4,f4"}),
    "text arrays": msgpack.packb(array() | {b"dtype": "<U2"}),
    "complex": msgpack.packb(array() | {b"dtype": "<c8"}),
    "times": msgpack.packb(array() | {b"dtype": "<M8[s]"}),
    "no type": msgpack.packb(array() | {b"dtype": 4}),
    "more than its data": msgpack.packb(array() | {b"shape": [2**40, 2**40]}),
    "less than its data": msgpack.packb(array() | {b"shape": [1]}),
    "negative": msgpack.packb(array() | {b"shape": [-1, -2]}),
    "shape of floats": msgpack.packb(array() | {b"shape": [2.0]}),
    "shape of booleans": msgpack.packb(array() | {b"shape": [True, 2]}),
    "many dimensions": msgpack.packb(array() | {b"shape": [1] * 60 + [2]}),
    "no shape": msgpack.packb({b"__ndarray__": True}),
    "number of text": msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}),
    "extension": msgpack.packb(msgpack.ExtType(42, b"x")),
    "a list of 2^32 - 1": b"\xdd\xff\xff\xff\xff\x00",
    "a map of 2^32 - 1": b"\xdf\xff\xff\xff\xff\x00",
    "bytes of 2^32 - 1": b"\xc6\xff\xff\xff\xff\x00",
    "many numbers": msgpack.packb([0] * 70_000),
    "many entries": msgpack.packb({str(number): 0 for number in range(2_000)}),
    "deep": b"\x91" * 100_000,
    "keys of lists": b"\x81\x91\x00\x00",
    "no UTF-8": b"\xa1\xff",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_message_is_refused(data):
    with pytest.raises(DataError):
        unpack(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(DataError):
        unpack(data)


def test_objects_are_not_sent():
    for value in (np.array([None]), np.array(["x"]), np.complex64(1), object(), {1, 2}):
        with pytest.raises(DataError, match="cannot hold an object"):
            pack({"x": value})


def observations():
    image = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
    states = np.array([1, 2, 3], np.float32)
    return [Observation(image, states, "go", {"wrist": image[::-1]}), Observation(image + 1, states * 2, "stop", {})]


def test_a_question_comes_back_as_it_was():
    spec = NumpyPolicy("one").spec
    message = unpack(pack(decide_message(observations(), 0.7, [5, 2**62])))
    back = read_observations(message, spec)
    for one, other in zip(back, observations(), strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.proprio, other.proprio)
        assert one.proprio.dtype == np.float32
        assert one.instruction == other.instruction
        assert sorted(one.cameras) == sorted(other.cameras)
    np.testing.assert_array_equal(back[0].cameras["wrist"], observations()[0].cameras["wrist"])
    assert read_sampling(message, 2) == (0.7, [5, 2**62])


def test_decisions_come_back_as_they_were():
    policy = NumpyPolicy("one")
    for batch in (policy.act(observations()), NumpyPolicy("none").act(observations())):
        back = read_decision(unpack(pack(decision_message(batch))), "ws://x")
        assert (back.support, back.temperature) == (batch.support, batch.temperature)
        for name in ("actions", "tokens", "logps"):
            one, other = getattr(back, name), getattr(batch, name)
            assert (one is None) == (other is None)
            if one is not None:
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)


def question(**changes):
    return unpack(pack(decide_message(observations(), 0.0, None))) | changes


def changed_row(**changes):
    message = question()
    return message | {"observations": [message["observations"][0] | changes]}


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        (question(observations=[]), DataError, "no observations"),
        (question(observations={"a": 1}), DataError, "no observations"),
        (question(observations=[3]), DataError, "no map"),
        (changed_row(image=np.zeros((4, 4, 3))), DataError, "float64"),
        (changed_row(image=np.zeros((4, 4), np.uint8)), DataError, "shape"),
        (changed_row(image=np.zeros((0, 4, 3), np.uint8)), DataError, "shape"),
        (changed_row(image=[1]), DataError, "list"),
        (changed_row(cameras=[1]), DataError, "no map by name"),
        (changed_row(cameras={}), CompatibilityError, "wrist"),
        (changed_row(proprio="x"), DataError, "no array"),
        (changed_row(proprio=np.zeros(2)), CompatibilityError, "reads 3 numbers"),
        (changed_row(proprio=np.full(3, np.nan)), DataError, "finite"),
        (changed_row(proprio=np.zeros((3, 1))), DataError, "no vector"),
        (changed_row(instruction=3), DataError, "no text"),
        (changed_row(instruction="x" * 30_000), DataError, "no text"),
    ],
)
def test_observations_that_are_none_are_refused(message, error, words):
    with pytest.raises(error, match=words):
        read_observations(message, NumpyPolicy("two").spec)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": -1},
        {"temperature": "hot"},
        {"temperature": float("nan")},
        {"temperature": 0.7},
        {"temperature": 0.7, "seeds": [1]},
        {"temperature": 0.7, "seeds": [1, -1]},
        {"temperature": 0.7, "seeds": [1, 2**63]},
        {"temperature": 0.7, "seeds": [1, 2.0]},
        {"temperature": 0.7, "seeds": "ab"},
    ],
)
def test_a_temperature_needs_its_seeds(sampling):
    with pytest.raises(DataError):
        read_sampling(sampling, 2)


STATES = {"collected": {"toy": {"reach-red": "0-3"}}}


def facts(**changes):
    spec = NumpyPolicy("two").spec
    stated = ServerFacts(PROTOCOL, "0", "numpy", spec, {"hz": 20}, {"center_crop": True}, STATES, 2**20)
    message = unpack(pack(facts_message(stated, {"prompt": "prompt"})))
    return message | {"grape": message["grape"] | changes}


def test_a_server_says_which_policy_it_has():
    read = read_facts(facts(), "ws://x")
    assert read.spec == NumpyPolicy("two").spec
    assert (read.conventions, read.facts) == ({"hz": 20}, {"center_crop": True})
    assert facts()["action_horizon"] == 2


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        ({}, CompatibilityError, "openpi"),
        (3, CompatibilityError, "does not say which policy"),
        (facts(protocol=2), CompatibilityError, "version 2"),
        (facts(spec=3), DataError, "spec"),
        (facts(spec={}), DataError, "action_dim"),
        (facts(spec=facts()["grape"]["spec"] | {"chunk": 0}), PolicyError, "chunk of 0"),
        (facts(spec=facts()["grape"]["spec"] | {"policy_hash": ""}), CompatibilityError, "no hash"),
        (facts(conventions={"x": b"bytes"}), DataError, "no plain value"),
        (facts(message_bytes="many"), DataError, "message_bytes"),
    ],
)
def test_other_servers_are_refused(message, error, words):
    with pytest.raises(error, match=words):
        read_facts(message, "ws://x")


def test_errors_travel_with_their_kind_and_advice():
    for error in (CompatibilityError("no", "do"), DataError("no", "do"), PolicyError("no", "do")):
        with pytest.raises(type(error), match="no") as caught:
            raise_error(unpack(pack(error_message(error)))["error"], "ws://x")
        assert caught.value.hint == "do"
    with pytest.raises(PolicyError, match="boom"):
        raise_error("boom", "ws://x")


def test_addresses():
    assert parse_address("ws://127.0.0.1:8000").url == "ws://127.0.0.1:8000"
    assert parse_address("ws://127.0.0.1:8000").is_local
    assert parse_address("ws://[::1]:8000").is_local
    named = parse_address("wss://robots.example/policy?wait=5&answer=60")
    assert (named.url, named.open_seconds, named.wait_seconds) == ("wss://robots.example/policy", 5, 5)
    assert (named.answer_seconds, named.is_local, named.is_encrypted) == (60, False, True)
    for text in ("ws://", "ws://host", "ws://host:port", "ws://host:99999", "ws://a b:1", "ws://h:1#x", "ws://h:1?w=1"):
        with pytest.raises(SettingsError):
            parse_address(text)
    for text in ("ws://h:1?wait=0", "ws://h:1?wait=x", "ws://h:1?wait=nan", "ws://h:1?answer="):
        with pytest.raises(SettingsError, match="seconds"):
            parse_address(text)
    with pytest.raises(SettingsError, match="password") as caught:
        parse_address("ws://me:hunter2@host:1")
    assert "hunter2" not in str(caught.value)


def test_the_token_comes_from_the_environment_or_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    assert read_token({}).reveal() == ""
    assert read_token({"GRAPE_SERVE_TOKEN": " abc "}).reveal() == "abc"
    assert read_token({"GRAPE_SERVE_TOKEN_FILE": str(file)}).reveal() == "from-a-file"
    with pytest.raises(SettingsError, match="Both"):
        read_token({"GRAPE_SERVE_TOKEN": "a", "GRAPE_SERVE_TOKEN_FILE": str(file)})
    with pytest.raises(SettingsError, match="characters") as caught:
        read_token({"GRAPE_SERVE_TOKEN": "not a token"})
    assert "not a token" not in str(caught.value)
    file.write_text("")
    with pytest.raises(SettingsError, match="empty"):
        read_token({"GRAPE_SERVE_TOKEN_FILE": str(file)})
    with pytest.raises(DataError):
        read_token({"GRAPE_SERVE_TOKEN_FILE": str(tmp_path / "absent")})
