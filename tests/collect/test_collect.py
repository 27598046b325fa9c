import contextlib
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from grape.collect import CollectSettings, open_policy, run_collect
from grape.core.errors import CompatibilityError
from grape.core.files import read_json, write_json
from grape.core.trajectories import Observation
from grape.envs.registry import get_suite
from grape.policies.action_conventions import check_policy
from grape.policies.base import ActionBatch, PolicySpec
from grape.store import EpisodeFile, EpisodeStore
from tests.reporters import Hearing


def collect(out: Path, **changes: object) -> dict[str, object]:
    settings = {"suite": "toy", "initial_states": "0-5", "lanes": 4, "workers": 2} | changes
    return dict(run_collect(CollectSettings(out=out, **settings)))  # type: ignore[arg-type]


def store_bytes(out: Path) -> dict[str, str]:
    files = sorted((out / "store" / "episodes").glob("*.parquet"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_demonstrations_are_recorded_step_by_step(tmp_path: Path) -> None:
    summary = collect(tmp_path / "run")
    store = EpisodeStore.open(tmp_path / "run" / "store")
    assert summary["episodes"] == len(store.ids()) == 6 * len(get_suite("toy").tasks)
    trajectory = store.read(store.ids()[0])
    assert trajectory.meta.actor == "expert"
    assert trajectory.frames.shape[0] == trajectory.steps + 1
    assert (trajectory.action_tokens == -1).all()
    assert np.isnan(trajectory.token_logps).all()
    assert trajectory.signals["success"][-1] == trajectory.meta.success


def test_bytes_do_not_depend_on_workers_or_interruptions(tmp_path: Path) -> None:
    collect(tmp_path / "one", workers=1)
    collect(tmp_path / "two", workers=2)
    expected = store_bytes(tmp_path / "one")
    assert store_bytes(tmp_path / "two") == expected
    (tmp_path / "two" / "done.json").unlink()
    for name in list(expected)[::3]:
        (tmp_path / "two" / "store" / "episodes" / name).unlink()
    collect(tmp_path / "two", workers=1)
    assert store_bytes(tmp_path / "two") == expected


MIXED = {"initial_states": "0-7", "tasks": "0,1", "operators": "sloppy", "samples": 4, "mixed_episodes": 36}


def test_more_is_played_where_outcomes_are_mixed(tmp_path: Path) -> None:
    summary = collect(tmp_path / "run", **MIXED)
    metas = EpisodeStore.open(tmp_path / "run" / "store").metas()
    assert summary["episodes"] == len(metas) == 2 * 8 * 4 + 36
    rates: dict[tuple[str, int], list[bool]] = {}
    for meta in metas:
        if meta.sample < 4:
            rates.setdefault((meta.task, meta.initial_state), []).append(meta.success is True)
    mixed = {state for state, solved in rates.items() if any(solved) and not all(solved)}
    more = {(meta.task, meta.initial_state) for meta in metas if meta.sample >= 4}
    assert more
    assert more <= mixed < set(rates)
    assert summary["mixed"] == {"episodes": 36, "states": len(more)}
    assert max(meta.sample for meta in metas) >= 8  # in more than one further round


def test_further_rounds_do_not_depend_on_workers_or_interruptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_summary = collect(tmp_path / "one", **MIXED, workers=1)
    expected = store_bytes(tmp_path / "one")
    collect(tmp_path / "two", **MIXED, workers=2)
    assert store_bytes(tmp_path / "two") == expected
    write, count = EpisodeStore.write_file, 0

    def write_some(store: EpisodeStore, file: EpisodeFile) -> None:
        nonlocal count
        count += 1
        if count % 17 == 0:
            raise KeyboardInterrupt
        write(store, file)

    monkeypatch.setattr(EpisodeStore, "write_file", write_some)
    kills = 0
    while not (tmp_path / "three" / "done.json").exists():
        with contextlib.suppress(KeyboardInterrupt):
            collect(tmp_path / "three", **MIXED)
            break
        kills += 1
    assert kills >= 5
    assert store_bytes(tmp_path / "three") == expected
    names = ("run.json", "done.json")
    assert [(tmp_path / "three" / name).read_bytes() for name in names] == [
        (tmp_path / "one" / name).read_bytes().replace(b"/one/", b"/three/") for name in names
    ]
    again = collect(tmp_path / "three", **MIXED)
    assert {**again, "store": ""} == {**expected_summary, "store": ""}


def test_without_further_rounds_a_run_is_what_it_was(tmp_path: Path) -> None:
    summary = collect(tmp_path / "run", tasks="0")
    assert "mixed" not in summary
    assert "mixed" not in (tmp_path / "run" / "run.json").read_text()


def test_a_dry_run_says_how_many_further_episodes_there_may_be(tmp_path: Path) -> None:
    plain = collect(tmp_path / "run", **MIXED | {"mixed_episodes": 0}, dry_run=True)
    plan = collect(tmp_path / "run", **MIXED, dry_run=True)
    assert plan["episodes"] == plain["episodes"] == 64
    assert plan["mixed_episodes_at_most"] == 36
    assert plan["decisions_at_most"] == plain["decisions_at_most"] + 36 * max(plain["limits"].values())  # type: ignore[attr-defined, operator]


def test_a_complete_run_is_not_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = collect(tmp_path / "run")
    monkeypatch.setattr("grape.collect.launching.WorkerPool", None)
    assert collect(tmp_path / "run") == first


def test_other_settings_are_refused_in_the_same_folder(tmp_path: Path) -> None:
    collect(tmp_path / "run", tasks="0")
    with pytest.raises(CompatibilityError, match=r"settings\.tasks"):
        collect(tmp_path / "run", tasks="1")


def test_a_dry_run_touches_nothing(tmp_path: Path) -> None:
    plan = collect(tmp_path / "run", dry_run=True)
    assert plan["episodes"] == 6 * len(get_suite("toy").tasks)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(("dim", "gripper"), [(6, ""), (7, "+1 opens")])
def test_a_policy_with_another_contract_is_refused(dim: int, gripper: str) -> None:
    spec = PolicySpec(dim, 64, gripper, "toy", "hash", "hash")
    with pytest.raises(CompatibilityError):
        check_policy(spec, get_suite("toy").action_space, "policy")


class Still:
    """A policy that stays where it is."""

    def __init__(self, policy_hash: str) -> None:
        self.spec = PolicySpec(7, 64, "+1 closes", "toy", policy_hash, "road")

    def prompt(self, instruction: str) -> str:
        return instruction

    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        zeros = np.zeros((len(observations), 1, 7))
        return ActionBatch(zeros.astype(np.float32), zeros.astype(np.int32), zeros.astype(np.float32))


def test_a_policy_counts_by_its_content_not_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(path: str, policy_hash: str) -> dict[str, object]:
        settings = CollectSettings(
            out=tmp_path / "run", suite="toy", tasks="0", initial_states="0-1", workers=1, policy=path
        )
        return dict(run_collect(settings, policy=Still(policy_hash)))

    first = run("here", "one")
    monkeypatch.setattr("grape.collect.launching.WorkerPool", None)
    assert run("there", "one") == {**first, "policy": "there"}
    with pytest.raises(CompatibilityError, match=r"inputs\.policy_hash"):
        run("here", "two")
    with pytest.raises(CompatibilityError, match=r"inputs\.policy_hash"):
        run_collect(CollectSettings(out=tmp_path / "run", suite="toy", tasks="0", initial_states="0-1"))


@pytest.mark.parametrize("temperature", [0.7, 0.0])
def test_a_collection_that_was_begun_with_another_sampler_says_so(tmp_path: Path, temperature: float) -> None:
    """Release 0.1 recorded no sampler: equal seeds drew other samples then."""
    settings = CollectSettings(
        out=tmp_path / "run",
        suite="toy",
        tasks="0",
        initial_states="0-1",
        workers=1,
        policy="p",
        temperature=temperature,
    )
    run_collect(settings, policy=Still("one"))
    marker = tmp_path / "run" / "run.json"
    begun = read_json(marker)
    assert ("sampler" in begun["inputs"]) is (temperature > 0)
    begun["inputs"].pop("sampler", None)
    write_json(marker, begun)
    (tmp_path / "run" / "done.json").unlink()
    listener = Hearing()
    summary = run_collect(settings, policy=Still("one"), reporter=listener)
    assert summary["episodes"] == 2
    assert any("drew other samples" in warning for warning in listener.warnings) is (temperature > 0)
    assert read_json(marker) == begun


def test_a_broken_module_of_ours_is_not_blamed_on_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grape.policies.openvla", None)
    with pytest.raises(ModuleNotFoundError, match=r"grape\.policies"):
        open_policy(CollectSettings(out=tmp_path / "run", suite="toy", policy=str(tmp_path)))
