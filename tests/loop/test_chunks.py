"""The whole loop with a policy that decides in chunks, from two cameras and the robot's state."""

from pathlib import Path

import numpy as np

from grape.core.files import read_json
from grape.core.settings import read_yaml, settings_from_dict
from grape.loop import LoopSettings, run_loop
from grape.policies.registry import open_policy
from grape.preferences import read_pairs
from grape.store import EpisodeStore

TINY = read_yaml(Path(__file__).parent / "tiny.yaml")


def test_a_policy_of_chunks_goes_round_twice_and_replays(tmp_path: Path) -> None:
    changed = TINY | {
        "suite": "toy_wrist",
        "tasks": "0",
        "replay": 1,
        "report": True,
        "demonstrations": TINY["demonstrations"] | {"execute": 2},
        "sft": TINY["sft"] | {"chunk": 4, "proprio": True, "cameras": "agentview,wrist"},
        "collect": TINY["collect"] | {"execute": 3},
    }
    summary = run_loop(settings_from_dict(LoopSettings, changed, LoopSettings(out=tmp_path / "run")))
    assert summary["iterations"] == 2
    policy = open_policy(tmp_path / "run" / "iteration-2" / "train" / "policy")
    assert (policy.spec.chunk, policy.spec.cameras) == (4, ("agentview", "wrist"))
    store = EpisodeStore.open(tmp_path / "run" / "iteration-2" / "collect" / "store")
    episode = store.read(store.ids()[0])
    assert episode.chunks is not None
    assert episode.chunks.length == 4
    assert episode.chunks.executed.max() == 3
    assert set(episode.cameras) == {"wrist"}
    pairs = read_pairs(tmp_path / "run" / "iteration-2" / "pair")
    trained = read_json(tmp_path / "run" / "iteration-2" / "train" / "done.json")
    assert trained["pairs"] == len(pairs) + len(read_pairs(tmp_path / "run" / "iteration-1" / "pair"))
    assert trained["parity"]["mean_abs"] < 1e-4
    assert np.isfinite(trained["metrics"]["loss"])
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
