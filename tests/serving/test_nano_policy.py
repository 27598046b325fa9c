"""A nano policy behind a server: sampled rollouts of equal bytes, and all that its checkpoint says of itself."""

import asyncio
import contextlib
import threading

import numpy as np
import pytest

from grape.collect import CollectSettings, run_collect
from grape.core.files import write_json
from grape.core.secrets import Secret
from grape.evaluation import EvaluateSettings, run_evaluate
from grape.policies.registry import open_policy, provenance_of, read_checkpoint_info
from grape.serving import ServeSettings
from grape.serving.serve import bind, open_served
from grape.serving.server import PolicyServer
from grape.store import EpisodeStore
from tests.collect.test_collect import store_bytes
from tests.reporters import Hearing

pytestmark = pytest.mark.needs("train")


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    from grape.policies.openvla import compute_norm_stats, create_nano, save_policy

    folder = tmp_path_factory.mktemp("nano") / "policy"
    statistics = compute_norm_stats(np.random.default_rng(0).uniform(-1, 1, (50, 7)), tuple("abcdefg"))
    save_policy(create_nano(seed=0, norm_stats={"toy": statistics}, gripper="+1 closes", instructions=("go",)), folder)
    write_json(folder / "provenance.json", {"collected": {"toy": {"reach-red": "0-1"}}})
    return folder


@contextlib.contextmanager
def served(folder):
    """The address of a server in this process, on a thread of its own."""
    settings = ServeSettings(policy=str(folder), port=0)
    policy, facts = open_served(settings, Hearing())
    ready, parts = threading.Event(), {}

    async def serve(listener):
        parts["server"] = PolicyServer(policy, facts, settings, Secret(""), lambda event, more: None)
        parts["loop"] = asyncio.get_running_loop()
        ready.set()
        await parts["server"].run(listener)

    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        listener.listen()
        thread = threading.Thread(target=asyncio.run, args=(serve(listener),))
        thread.start()
        assert ready.wait(60)
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}?wait=300"
        finally:
            parts["loop"].call_soon_threadsafe(parts["server"].stop)
            thread.join(60)
            assert not thread.is_alive()


def test_rollouts_are_those_of_the_policy_that_is_opened_here(nano, tmp_path):
    hearing = Hearing()
    given = {"suite": "toy", "tasks": "0", "initial_states": "0-2", "lanes": 2, "workers": 1, "max_steps": 3}
    run_collect(CollectSettings(out=tmp_path / "here", policy=str(nano), temperature=0.7, **given))
    with served(nano) as url:
        run_collect(CollectSettings(out=tmp_path / "there", policy=url, temperature=0.7, **given), hearing)
        here, there = open_policy(nano), open_policy(url)
        assert there.spec == here.spec
        assert there.prompt("Open the drawer") == here.prompt("Open the drawer")
        assert there.facts() == here.facts()
        assert provenance_of(url) == provenance_of(nano)
        assert read_checkpoint_info(url).norm_keys == read_checkpoint_info(nano).norm_keys == ("toy",)
        evaluation = EvaluateSettings(suite="toy", tasks="0", initial_states="0-3", policy=url, dry_run=True)
        assert run_evaluate(evaluation)["seen_states"] == {"reach-red": "0-1"}
    assert store_bytes(tmp_path / "there") == store_bytes(tmp_path / "here")
    assert (tmp_path / "there" / "run.json").read_bytes() == (tmp_path / "here" / "run.json").read_bytes()
    store = EpisodeStore.open(tmp_path / "there" / "store")
    assert np.isfinite(store.read(store.ids()[0]).token_logps).all()
    assert not hearing.warnings
