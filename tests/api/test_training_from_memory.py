"""Pairs, scores and trajectories from memory train the policy that folders train."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import grape
from grape.cli.main import main
from grape.core.files import read_json
from grape.core.preferences import PreferencePair
from grape.core.trajectories import Trajectory
from grape.policies.openvla import load_policy
from grape.preferences import read_pairs
from grape.report.contents import read_contents
from grape.store import EpisodeStore
from grape.training import TrainSettings, run_train
from tests.training.recordings import record, write_pairs, write_policy


class World:
    """A policy, the episodes that it recorded, and a training on their pairs' folder."""

    def __init__(self, root: Path) -> None:
        self.policy = write_policy(root / "policy")
        self.store = record(root / "store", self.policy)
        folder = write_pairs(root / "pairs", self.store)
        self.pairs = read_pairs(folder)
        self.options: dict[str, Any] = {
            "policy": self.policy, "pairs_per_update": 2, "epochs": 1, "lr": 1e-3, "micro_batch": 8,
        }  # fmt: skip
        self.settings = TrainSettings(pairs=folder, out=root / "by-folder", **self.options)
        self.summary = run_train(self.settings)

    def trajectories(self) -> list[Trajectory]:
        return [self.store.read(name) for name in self.store.ids()]

    def robot(self) -> list[Trajectory]:
        """The same as a robot's, recorded by hand: of a suite that is not registered, whose tasks have no costs."""
        policy = grape.load_policy(self.policy)
        return [
            grape.Trajectory.from_arrays(
                task="drawer", instruction=old.meta.instruction, images=old.frames, actions=old.actions,
                suite="my-robot", success=old.meta.success, initial_state=old.meta.initial_state,
                sample=old.meta.sample, tokens=old.action_tokens, logps=old.token_logps, temperature=1.0,
                policy_hash=policy.spec.policy_hash, preprocessing_hash=policy.spec.preprocessing_hash,
                prompt=policy.prompt(old.meta.instruction),
            )
            for old in self.trajectories()
        ]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def weights(folder: Path) -> bytes:
    return (folder / "policy" / "model.safetensors").read_bytes()


def test_memory_trains_what_the_folder_trains(world: World, tmp_path: Path) -> None:
    out = str(tmp_path / "run")  # a text stands for a path
    options: dict[str, Any] = {**world.options, "policy": str(world.policy)}
    result = grape.train_tpo(pairs=list(world.pairs), trajectories=world.trajectories(), out=out, **options)
    assert isinstance(result, grape.TrainResult)
    assert (result.folder, result.policy) == (tmp_path / "run", tmp_path / "run" / "policy")
    assert result.policy_hash == world.summary["policy_hash"] == load_policy(result.policy).spec.policy_hash
    assert (result.updates, result.metrics, result.alarm) == (2, world.summary["metrics"], world.summary["alarm"])
    assert result.to_dict() == {**world.summary, "policy": out + "/policy"}
    assert weights(result.folder) == weights(world.settings.out)
    # Even the run's identity is that of the folder: either way resumes the other's run.
    assert read_json(result.folder / "run.json") == read_json(world.settings.out / "run.json")
    again = grape.train_tpo(pairs=world.pairs, trajectories=world.store, out=out, **options)
    assert again == result
    resumed = grape.train_tpo(replace(world.settings, out=tmp_path / "run", pairs=tmp_path / "run" / "data" / "pairs"))
    assert resumed.policy_hash == result.policy_hash


@pytest.mark.parametrize("method", ["kto", "rloo"])
@pytest.mark.parametrize("source", ["trajectories", "store", "result"])
def test_scores_in_memory_train_what_their_folder_trains(
    world: World, tmp_path: Path, method: str, source: str
) -> None:
    """Single episodes, which need no pairs; failures and successes of equal initial states."""
    options: dict[str, Any] = {**world.options, "method": method}
    store = grape.save_trajectories(tmp_path / "store", world.robot())
    by_verb = grape.score(store=store.path, out=tmp_path / "scores")
    by_folder = grape.train_tpo(scores=by_verb.folder, out=tmp_path / "by-folder", **options)
    scores = {
        "trajectories": lambda: grape.score_trajectories(world.robot()),
        "store": lambda: grape.score_trajectories(store),
        "result": lambda: by_verb,
    }[source]()
    result = grape.train_tpo(scores=scores, out=tmp_path / "run", **options)
    assert (result.updates, result.metrics) == (by_folder.updates, by_folder.metrics)
    assert weights(result.folder) == weights(by_folder.folder) != weights(world.settings.out)
    assert read_json(result.folder / "run.json") == read_json(by_folder.folder / "run.json")
    assert grape.train_tpo(scores=scores, out=tmp_path / "run", **options) == result


def test_rewards_of_ones_own(world: World, tmp_path: Path) -> None:
    """Whoever scores by another rule replaces the scores; other scores are another run."""
    options: dict[str, Any] = {**world.options, "method": "rloo", "out": tmp_path / "run"}
    scored = grape.score_trajectories(world.robot())
    turned = replace(scored, scores={name: replace(score, gcpg=-score.gcpg) for name, score in scored.scores.items()})
    result = grape.train_tpo(scores=turned, **options)
    other = grape.train_tpo(scores=scored, **{**options, "out": tmp_path / "other"})
    assert weights(result.folder) != weights(other.folder)
    with pytest.raises(grape.CompatibilityError, match="another run"):
        grape.train_tpo(scores=scored, **options)


def test_what_does_not_fit_the_method_is_told_as_on_the_command_line(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = grape.score_trajectories(world.robot())
    pairs = grape.make_pairs(scored)
    everything: dict[str, Any] = {"policy": world.policy, "out": tmp_path / "run"}
    for given, method in (
        ({"scores": scored}, "tpo"), ({"pairs": pairs}, "kto"), ({"pairs": pairs, "scores": scored}, "rloo"),
        ({}, "kto"), ({}, "step-dpo"),
    ):  # fmt: skip
        with pytest.raises(grape.SettingsError) as caught:
            grape.train_tpo(method=method, **given, **everything)
        flags = [text for name in given for text in (f"--{name}", str(tmp_path / name))]
        code = main(["train", "--method", method, "--policy", str(world.policy), "--out", str(tmp_path / "x"), *flags])
        assert code == caught.value.exit_code == 2
        assert " ".join(str(caught.value).split()) in " ".join(capsys.readouterr().err.split())
    with pytest.raises(grape.SettingsError, match="scores is list, which holds no scored trajectories"):
        grape.train_tpo(scores=list(scored), method="kto", **everything)  # type: ignore[arg-type]
    with pytest.raises(grape.SettingsError, match="trajectories= is for pairs"):
        grape.train_tpo(scores=scored, trajectories=world.store, method="kto", **everything)
    assert not any(tmp_path.iterdir())


def test_other_pairs_do_not_resume(world: World, tmp_path: Path) -> None:
    options = {**world.options, "out": tmp_path / "run", "trajectories": world.store}
    grape.train_tpo(pairs=world.pairs, **options)
    with pytest.raises(grape.CompatibilityError, match="another run"):
        grape.train_tpo(pairs=world.pairs[:2], **options)


def test_own_pairs_of_an_own_robot(world: World, tmp_path: Path) -> None:
    """What a robot recorded by hand, ranked in memory."""
    pairs = grape.make_pairs(grape.score_trajectories(world.robot()))
    assert [(pair.chosen[-3:], pair.rejected[-3:]) for pair in pairs] == [("k00", "k01")] * 3
    result = grape.train_tpo(pairs=pairs, out=tmp_path / "run", **world.options)
    # Names and reasons are others, the trajectories are the same: so is what is learned.
    assert weights(result.folder) == weights(world.settings.out)
    assert len(EpisodeStore.open(result.folder / "data" / "store")) == 6


def test_what_is_missing_is_told(world: World, tmp_path: Path) -> None:
    options = {**world.options, "out": tmp_path / "run"}
    with pytest.raises(grape.DataError, match="name trajectories that are not given"):
        grape.train_tpo(pairs=world.pairs, **options)
    with pytest.raises(grape.DataError, match="No trajectory is called toy-5"):
        grape.train_tpo(pairs=world.pairs, trajectories=world.trajectories()[:5], **options)
    with pytest.raises(grape.DataError, match="There are no pairs"):
        grape.train_tpo(pairs=[], trajectories=world.store, **options)
    with pytest.raises(grape.SettingsError, match="needs out"):
        grape.train_tpo(pairs=world.pairs, trajectories=world.store, **world.options)
    with pytest.raises(grape.SettingsError, match="Did you mean 'beta'"):
        grape.train_tpo(pairs=world.pairs, trajectories=world.store, bta=0.2, **options)
    with pytest.raises(grape.SettingsError, match="A dry run has a plan"):
        grape.train_tpo(world.settings, dry_run=True)
    with pytest.raises(grape.SettingsError, match="Expected TrainSettings, not PairSettings"):
        grape.train_tpo(grape.PairSettings(scores=tmp_path, out=tmp_path))  # type: ignore[arg-type]
    unknown = PreferencePair("p", "drawer", 0, "own-1", "own-2", 1.0, "own", "")
    with pytest.raises(grape.DataError, match="own-1"):
        grape.train_tpo(pairs=[unknown], trajectories=world.store, **options)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_report_shows_pairs_made_in_memory_with_their_scores(world: World, tmp_path: Path) -> None:
    scored = grape.score_trajectories(world.robot())
    options: dict[str, Any] = {**world.options, "pairs": grape.make_pairs(scored)}
    result = grape.train_tpo(out=tmp_path / "one", **options)
    grape.train_tpo(out=tmp_path / "other", **options)
    assert grape.train_tpo(out=tmp_path / "one", **options) == result
    rounds = read_contents(tmp_path).rounds
    assert sorted(item.round.name for item in rounds) == ["one", "other"]
    for item in (*rounds, *read_contents(result.folder).rounds):
        assert set(item.scores) == set(scored.scores)
        assert item.store is not None
        assert item.pairs
        assert item.training is not None
    assert not [note for note in read_contents(tmp_path).missing if "scores" in note]
