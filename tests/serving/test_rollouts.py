"""Rollouts with a policy on a server: the bytes of a policy that is opened here, whatever happens on the way."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from grape.cli.main import main
from grape.collect import CollectSettings, run_collect
from grape.core.errors import CompatibilityError, PolicyError, SettingsError
from grape.evaluation import EvaluateSettings, run_evaluate
from grape.policies.registry import open_policy, register_policy_type
from grape.policies.types import OpeningOptions
from tests.collect.test_collect import store_bytes
from tests.serving.numpy_policy import NumpyPolicyType
from tests.serving.processes import PATIENCE, ServerProcess, install_numpy_policy

register_policy_type("numpy", NumpyPolicyType)

ROLLOUTS = {"suite": "toy", "tasks": "0", "initial_states": "0-3", "lanes": 1, "workers": 1, "max_steps": 6}
"""Four episodes of three decisions."""


def collect(out, policy, **changes):
    return run_collect(CollectSettings(out=out, policy=policy, **(ROLLOUTS | changes)))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install_numpy_policy(tmp_path_factory.mktemp("rollouts") / "site")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The same collection with the policy in this process."""
    out = tmp_path_factory.mktemp("local") / "run"
    collect(out, "numpy:one")
    return out


class Killing(threading.Thread):
    """A server that is killed while it decides for the fifth time; another one at its port, if one is asked for."""

    def __init__(self, site, folder, then="", port=0):
        super().__init__()
        self.site, self.then, self.next = site, then, None
        stop = folder / f"stop-{len(list(folder.iterdir()))}"
        self.begun = stop.with_name(f"{stop.name}.begun")
        words = ("one", "--port", str(port))
        self.server = ServerProcess(site, *words, environment={"NUMPY_POLICY_STOP": str(stop)})
        self.start()

    def run(self):
        deadline = time.monotonic() + PATIENCE
        while not self.begun.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.server.kill()
        if self.then:
            self.next = ServerProcess(self.site, self.then, "--port", str(self.server.port))

    def end(self):
        self.join(PATIENCE)
        if self.next:
            self.next.kill()


def start(site, place="one", port=0):
    return ServerProcess(site, place, "--port", str(port))


def test_a_server_that_is_killed_half_way_costs_time_alone(site, local, tmp_path):
    killing = Killing(site, tmp_path, then="one")
    try:
        with pytest.warns(UserWarning, match="Trying again"):
            summary = collect(tmp_path / "run", killing.server.patient_url)
        assert summary["episodes"] == 4
        assert store_bytes(tmp_path / "run") == store_bytes(local)
        assert (tmp_path / "run" / "run.json").read_bytes() == (local / "run.json").read_bytes()
    finally:
        killing.end()
    assert killing.next is not None


def test_a_server_that_is_gone_or_another_ends_the_run_and_loses_nothing(site, local, tmp_path):
    """It does not come back; it comes back with another policy, between runs and during one; then it is right again."""
    run, killing = tmp_path / "run", Killing(site, tmp_path)
    server = killing.server
    with pytest.warns(UserWarning, match="was lost"), pytest.raises(PolicyError, match="did not come back") as lost:
        collect(run, f"{server.url}?wait=0.5")
    killing.end()
    assert "What was finished is kept" in str(lost.value)
    kept = store_bytes(run)
    assert kept.items() <= store_bytes(local).items()
    assert len(kept) == 1

    other = start(site, "other", server.port)
    with pytest.raises(CompatibilityError, match="policy_hash"):
        collect(run, server.patient_url)
    other.kill()

    killing = Killing(site, tmp_path, then="other", port=server.port)
    try:
        with (
            pytest.warns(UserWarning, match="was lost"),
            pytest.raises(CompatibilityError, match="came back with another policy") as changed,
        ):
            collect(run, server.patient_url)
    finally:
        killing.end()
    assert "weights of one" in str(changed.value)
    assert "weights of othe" in str(changed.value)
    assert store_bytes(run).items() >= kept.items()

    last = start(site, "one", server.port)
    assert collect(run, server.patient_url)["episodes"] == 4
    last.kill()
    assert store_bytes(run) == store_bytes(local)


def test_evaluate_by_command_needs_no_torch(site, tmp_path):
    server = start(site)
    code = (
        "import sys; from grape.cli.main import main; code = main(); "
        "assert 'torch' not in sys.modules, 'torch was imported'; sys.exit(code)"
    )
    words = ["evaluate", "--suite", "toy", "--tasks", "0", "--episodes", "2", "--max-steps", "4"]
    words += ["--workers", "1", "--lanes", "2", "--json", "--policy"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, server.patient_url],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    server.kill()
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    here = run_evaluate(
        EvaluateSettings(
            suite="toy",
            tasks="0",
            episodes=2,
            max_steps=4,
            workers=1,
            lanes=2,
            policy="numpy:one",
            out=tmp_path / "here",
        )
    )
    assert {**summary, "policy": "", "results": ""} == {**json.loads(json.dumps(here)), "policy": "", "results": ""}
    assert Path(summary["results"]).parent.name.startswith("server-")


def test_what_only_the_server_can_decide_is_refused(site):
    server = start(site, "none")
    for changes, words in {
        ("preset", "openvla-oft"): "no use for --preset",
        ("dtype", "bfloat16"): "for the server to decide",
        ("unnorm_key", "bridge"): "Start it with --unnorm-key bridge|not bridge",
        ("center_crop", True): "does not crop images",
        ("chunk", 5): "--chunk",
    }.items():
        name, value = changes
        with pytest.raises((SettingsError, CompatibilityError), match=words):
            open_policy(server.patient_url, OpeningOptions(**{name: value}))
    with pytest.raises(SettingsError, match="cannot sample"):
        collect(Path("unused"), server.patient_url, temperature=0.7)
    server.kill()
    assert not Path("unused").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--pairs", "x", "--out", "y"],
        ["sft", "--data", "x", "--out", "y"],
        ["loop", "--suite", "toy", "--out", "y"],
        ["export", "merged", "--out", "y"],
        ["export", "adapter", "--out", "y"],
    ],
)
def test_a_policy_on_a_server_is_neither_trained_nor_exported(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--policy", "ws://127.0.0.1:1", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert "on a server" in answer["error"]
    assert "Traceback" not in answer["error"]
    assert not list(tmp_path.iterdir())
