"""``grape serve`` as a process: robots with openpi's layout, health, metrics, tokens, and what must not get in."""

import contextlib
import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from grape.core.errors import DataError, PolicyError, SettingsError
from grape.core.secrets import Secret
from grape.core.trajectories import Observation
from grape.policies.registry import open_policy
from grape.policies.remote.address import parse_address
from grape.policies.remote.connection import PolicyConnection
from grape.policies.remote.messages import decide_message
from grape.policies.remote.policy import RemotePolicy
from grape.serving import ServeSettings, run_serve
from tests.serving.numpy_policy import NumpyPolicy
from tests.serving.openpi_client import Robot, observation, pack, unpack
from tests.serving.processes import PATIENCE, ServerProcess, install_numpy_policy

TOKEN = "0123456789abcdef-not-in-any-log"
IMAGE = observation()["observation/image"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install_numpy_policy(tmp_path_factory.mktemp("serving") / "site")


@pytest.fixture(scope="module")
def server(site):
    """One process for all tests of this module; in the end it is stopped by Ctrl-C and says what it did."""
    words = ("--port", "0", "--message-mb", "1", "--clients", "8", "--window-ms", "50")
    running = ServerProcess(site, "one", *words, environment={"GRAPE_SERVE_TOKEN": TOKEN})
    open_robot = Robot(running.url, TOKEN)
    yield running
    summary = running.stop()
    assert summary["requests"]["answered"] > 0
    assert summary["policy_hash"] == "weights of one"
    assert running.events[-1]["event"] == "stopped"
    with pytest.raises(ConnectionClosed) as closed:
        open_robot.socket.recv()
    assert closed.value.rcvd.code == 1001
    assert TOKEN not in "".join(running.lines)
    assert not [line for line in running.lines if "Traceback" in line]


def get(server, path, token=TOKEN):
    request = urllib.request.Request(f"http://{server.address}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request) as answer:
        return answer.status, answer.read().decode()


def measured(server, name):
    lines = get(server, "/metrics")[1].splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"grape_serve_{name} "))


def wait_until(is_so):
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_robot_gets_a_chunk_of_actions(server):
    robot = Robot(server.url, TOKEN)
    assert robot.metadata["action_horizon"] == 2
    assert robot.metadata["observation_keys"]["images"] == {"agentview": "observation/image"}
    answer = robot.infer(observation(1))
    again = robot.infer(observation(1))
    decided = NumpyPolicy("one").act([Observation(observation(1)["observation/image"], np.zeros(0), "push the block")])
    np.testing.assert_array_equal(answer["actions"], decided.actions[0])
    np.testing.assert_array_equal(again["actions"], answer["actions"])
    np.testing.assert_array_equal(answer["logps"], decided.logps[0])
    assert answer["actions"].shape == (2, 7)
    assert answer["server_timing"]["infer_ms"] > 0
    assert again["server_timing"]["prev_total_ms"] > 0
    sampled = robot.infer(observation(1, temperature=1.0, seed=5))
    assert (sampled["tokens"] != answer["tokens"]).any()
    np.testing.assert_array_equal(robot.infer(observation(1, temperature=1.0, seed=5))["tokens"], sampled["tokens"])
    robot.close()


def test_robots_that_wait_for_the_policy_share_its_next_batch(server, tmp_path):
    before = {name: measured(server, name) for name in ("observations_total", "batch_size_count")}
    go, answers = tmp_path / "go", {}
    robots = [Robot(server.url, TOKEN) for _ in range(4)]

    def ask(number, prompt):
        answers[number] = robots[number].infer(observation(number, prompt=prompt))["actions"]

    threads = [threading.Thread(target=ask, args=(0, f"until {go}"))]
    threads += [threading.Thread(target=ask, args=(number, "push the block")) for number in (1, 2, 3)]
    threads[0].start()
    wait_until((tmp_path / "go.begun").exists)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: measured(server, "answering") == 4)
    go.touch()
    for thread in threads:
        thread.join()
    assert measured(server, "observations_total") - before["observations_total"] == 4
    assert measured(server, "batch_size_count") - before["batch_size_count"] == 2
    assert 'policy_hash="weights of one"' in get(server, "/metrics")[1]
    for number in (1, 2, 3):
        seen = Observation(observation(number)["observation/image"], np.zeros(0), "push the block")
        np.testing.assert_array_equal(answers[number], NumpyPolicy("one").act([seen]).actions[0])
    for robot in robots:
        robot.close()


def test_health_needs_no_token_and_metrics_do(server):
    assert get(server, "/healthz", token="") == (200, "OK\n")
    for token in ("", "wrong"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(server, "/metrics", token)
        assert refused.value.code == 401


def test_who_has_no_token_is_not_let_in(server):
    for sent in ("", "Bearer wrong", TOKEN, f"Basic {TOKEN}"):
        headers = {"Authorization": sent} if sent else None
        with pytest.raises(InvalidStatus) as refused:
            connect(server.url, additional_headers=headers, proxy=None, open_timeout=300)
        assert refused.value.response.status_code == 401
    for token, words in {"": "asks for a token", "wrong": "the token is wrong"}.items():
        with pytest.raises(SettingsError, match=words) as caught:
            PolicyConnection(parse_address(server.patient_url), Secret(token)).facts()
        assert "GRAPE_SERVE_TOKEN" in str(caught.value)


def test_no_web_page_is_let_in(server):
    with pytest.raises(InvalidStatus) as refused:
        Robot(server.url, TOKEN, origin="http://127.0.0.1")
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "cannot be read"),
        (pack(observation())[:-5], "cannot be read"),
        (pack([1, 2]), "not a map"),
        ("hello", "text"),
        (pack({}), "no 'observation/image'"),
        (pack(observation(**{"observation/image": IMAGE / 255})), "float64"),
        (pack(observation(temperature=0.5)), "one seed"),
        (pack(observation(prompt="raise")), "the key is gone"),
    ],
)
def test_a_robot_is_told_what_is_wrong_and_may_go_on(server, message, words):
    robot = Robot(server.url, TOKEN)
    robot.socket.send(message)
    answer = robot.socket.recv()
    assert isinstance(answer, str)
    assert words in answer
    assert "Traceback" not in answer
    assert robot.infer(observation())["actions"].shape == (2, 7)
    robot.close()


def test_a_message_above_the_limit_ends_its_connection_alone(server):
    other, robot = Robot(server.url, TOKEN), Robot(server.url, TOKEN)
    robot.socket.send(bytes(2 * 2**20))
    with pytest.raises(ConnectionClosed) as closed:
        robot.socket.recv()
    assert closed.value.rcvd.code == 1009
    assert other.infer(observation())["actions"].shape == (2, 7)
    other.close()
    large = Observation(np.zeros((800, 800, 3), np.uint8), np.zeros(0, np.float32), "go")
    with remote(server) as policy, pytest.raises(DataError, match="--message-mb"):
        policy.act([large])


@contextlib.contextmanager
def remote(server):
    with contextlib.closing(RemotePolicy(PolicyConnection(parse_address(server.patient_url), Secret(TOKEN)))) as policy:
        yield policy


def test_the_client_is_told_what_is_wrong_by_kind(server):
    good = Observation(IMAGE, np.zeros(0, np.float32), "go")
    with remote(server) as policy:
        with pytest.raises(PolicyError, match="the key is gone"):
            policy.act([good, Observation(IMAGE, np.zeros(0, np.float32), "raise")])
        with pytest.raises(DataError, match="one seed"):
            policy.act([good], temperature=0.7)
        with pytest.raises(DataError, match="unknown"):
            policy._connection.ask({"grape": "sing"})
        with pytest.raises(PolicyError, match="RuntimeError: the key is gone"):
            policy.prompt("raise")
        assert server.wait_for("failed", "place")["place"].startswith("numpy_policy.py, line ")
        assert policy.act([good, good]).actions.shape == (2, 2, 7)
        assert policy.prompt("go") == "In one: go"


def test_the_first_message_and_an_answer_as_bytes(server):
    """GRAPE's own question by hand, read with openpi's layout: the two agree on the bytes."""
    robot = Robot(server.url, TOKEN)
    good = Observation(IMAGE, np.zeros(0, np.float32), "go")
    robot.socket.send(pack(decide_message([good], 0.0, None)))
    answer = unpack(robot.socket.recv())
    np.testing.assert_array_equal(answer["actions"], NumpyPolicy("one").act([good]).actions)
    assert (answer["support"], answer["temperature"]) == ("window", 1.0)
    robot.close()


def test_more_clients_than_allowed_wait(server):
    wait_until(lambda: measured(server, "connections") == 1)  # the fixture's; those of other tests are gone
    robots = [Robot(server.url, TOKEN) for _ in range(7)]
    with pytest.raises(InvalidStatus) as refused:
        Robot(server.url, TOKEN)
    assert refused.value.response.status_code == 503
    for robot in robots:
        robot.close()


def test_a_connection_that_is_no_websocket_ends_alone(server):
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"\x00\x01\x02 nonsense\r\n\r\n")
        raw.shutdown(socket.SHUT_WR)
        raw.settimeout(60)
        while raw.recv(1000):
            pass
    plain = http.client.HTTPConnection("127.0.0.1", server.port)
    plain.request("POST", "/", body="x", headers={"Authorization": f"Bearer {TOKEN}"})
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    assert get(server, "/healthz")[0] == 200


def test_another_host_needs_a_token(monkeypatch):
    monkeypatch.delenv("GRAPE_SERVE_TOKEN", raising=False)
    for host in ("0.0.0.0", "::", "robots.example"):
        with pytest.raises(SettingsError, match="there is no token"):
            run_serve(ServeSettings(policy="x", host=host))
    monkeypatch.setenv("GRAPE_SERVE_TOKEN", "short")
    with pytest.raises(SettingsError, match="fewer than 16"):
        run_serve(ServeSettings(policy="x", host="0.0.0.0"))


def test_a_port_that_is_taken_is_told_before_the_policy_is_read(server, monkeypatch):
    monkeypatch.delenv("GRAPE_SERVE_TOKEN", raising=False)
    with pytest.raises(SettingsError, match=f"port {server.port}"):
        run_serve(ServeSettings(policy="some/checkpoint", port=server.port))
    with pytest.raises(SettingsError, match="served already"):
        run_serve(ServeSettings(policy=server.url, port=0))


def test_other_servers_are_told_from_policy_servers(server):
    """A server that says nothing, one that hangs up, one of another protocol, and nobody."""

    def answering(answer):
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            try:
                while True:
                    client, _ = listener.accept()
                    client.recv(4096)
                    client.sendall(answer)
                    client.close()
            except OSError:
                return

        threading.Thread(target=serve, daemon=True).start()
        return listener

    for answer, words in {
        b"": "closes the connection",
        b"220 mail ESMTP\r\n": "no policy server",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi": "HTTP status 200",
    }.items():
        with answering(answer) as listener:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}?wait=0.2"
            with pytest.raises(Exception, match=words) as caught:
                open_policy(url)
            assert caught.value.exit_code == 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(SettingsError, match="grape serve --policy DIR"):
            open_policy(f"ws://127.0.0.1:{free.getsockname()[1]}?wait=0.2")


def test_events_are_lines_of_json(server):
    assert server.wait_for("listening")["policy_hash"] == "weights of one"
    rejected = server.wait_for("rejected")
    assert rejected["client"].startswith("127.0.0.1:")
    assert all(json.loads(line) for line in server.lines)
