"""The verbs for programs: typed results with absolute paths, as the command line's summaries."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import grape
from grape.cli.main import main
from grape.core.files import read_json
from grape.policies import Policy
from tests.reporters import Hearing


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> grape.CollectResult:
    out = tmp_path_factory.mktemp("toy") / "demonstrations"
    return grape.collect(suite="toy", tasks="push-block", initial_states="0-3", workers=1, out=str(out))


def test_a_collection_is_a_store(demonstrations: grape.CollectResult) -> None:
    result = demonstrations
    assert result.folder.is_absolute()
    assert result.store.path == result.folder / "store"
    assert (result.episodes, result.success_rate) == (4, result.summary["success_rate"])
    assert len(result.store) == 4
    summary = result.to_dict()
    assert summary == {**read_json(result.folder / "done.json"), "store": summary["store"], "policy": "expert"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.episodes = 5  # type: ignore[misc]
    assert "summary" not in repr(result)


def test_scores_and_pairs_of_a_store(demonstrations: grape.CollectResult, tmp_path: Path) -> None:
    heard = Hearing()
    trajectories = [demonstrations.store.read(name) for name in demonstrations.store.ids()]
    scored = grape.score(store=demonstrations.store.path, out=tmp_path / "scores", reporter=heard)
    assert [score.gcpg for score in scored.scored] == [score.gcpg for score in grape.score_trajectories(trajectories)]
    assert scored.episodes == 4
    assert heard.warnings == list(scored.warnings)
    lost = [
        dataclasses.replace(item, meta=dataclasses.replace(item.meta, sample=1, episode_id=f"lost-{n}", success=False))
        for n, item in enumerate(trajectories)
    ]
    grape.save_trajectories(
        tmp_path / "store", [*trajectories, *lost], action_space=grape.get_suite("toy").action_space
    )
    grape.score(grape.ScoreSettings(store=tmp_path / "store", out=tmp_path / "both"))
    result = grape.pair(scores=tmp_path / "both", out=tmp_path / "pairs", mode="best-worst")
    assert result.count == len(result.pairs) == 4
    assert result.store.path == tmp_path / "store"
    assert all(pair.rejected.startswith("lost") for pair in result.pairs)
    assert grape.make_pairs(grape.score_trajectories(result.store), mode="best-worst").pairs == result.pairs.pairs


def test_from_demonstrations_to_a_comparison(demonstrations: grape.CollectResult, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_updates": 1, "batch_size": 2, "gripper": "+1 closes"}
    by_folder = grape.train_sft(data=demonstrations.folder, out=tmp_path / "sft", **options)
    trajectories = [demonstrations.store.read(name) for name in demonstrations.store.ids()]
    in_memory = grape.train_sft(trajectories=trajectories, out=tmp_path / "memory", **options)
    assert by_folder.updates == in_memory.updates == 1
    assert by_folder.policy_hash == in_memory.policy_hash
    kept = sorted((tmp_path / "memory" / "data").rglob("*"))
    with pytest.raises(
        grape.CompatibilityError, match=f"begun with other trajectories, {trajectories[0].meta.episode_id}"
    ):
        grape.train_sft(trajectories=trajectories[1:], out=tmp_path / "memory", **options)
    assert sorted((tmp_path / "memory" / "data").rglob("*")) == kept
    with pytest.raises(grape.SettingsError, match="batch-size"):
        grape.train_sft(trajectories=trajectories, out=tmp_path / "refused", **{**options, "batch_size": 0})
    assert not (tmp_path / "refused").exists()
    policy = grape.load_policy(by_folder.policy)
    assert policy.spec.policy_hash == by_folder.policy_hash
    rollout: dict[str, Any] = {"suite": "toy", "tasks": "push-block", "max_steps": 2, "workers": 1}
    opened = grape.collect(policy=policy, initial_states="0", lanes=1, out=tmp_path / "opened", **rollout)
    named = grape.collect(policy=by_folder.policy, initial_states="0", lanes=1, out=tmp_path / "named", **rollout)
    assert opened.store.digest() == named.store.digest()
    evaluations = [
        grape.evaluate(policy=name, episodes=2, out=tmp_path / f"evaluation-{number}", **rollout)
        for number, name in enumerate(("expert", str(by_folder.policy)))
    ]
    assert evaluations[0].results == tmp_path / "evaluation-0" / "results.json"
    assert evaluations[1].interval[0] <= evaluations[1].success_rate <= evaluations[1].interval[1]
    verdict = grape.compare(*evaluations, bootstrap_samples=1000)
    assert verdict.folder is None
    assert verdict.verdict in ("better", "worse", "not distinguishable")
    assert verdict.sentence == verdict.summary["sentence"]
    written = grape.compare(evaluations[0].folder, str(evaluations[1].results), out=tmp_path / "comparison")
    assert written.folder == tmp_path / "comparison"
    assert written.difference == verdict.difference


def test_an_open_policy_is_evaluated_as_its_folder(
    demonstrations: grape.CollectResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policy = grape.train_sft(data=demonstrations.folder, max_updates=1, batch_size=2, out=tmp_path / "sft").policy
    options: dict[str, Any] = {"suite": "toy", "tasks": "push-block", "episodes": 2, "max_steps": 2, "workers": 1}
    named = grape.evaluate(policy=policy, out="named", **options)
    opened = grape.load_policy(policy)
    result = grape.evaluate(policy=opened, out="opened", **options)
    assert read_json(result.folder / "run.json") == read_json(named.folder / "run.json")
    assert _without(result.to_dict()) == _without(named.to_dict())
    assert result.summary["policy"] == type(opened).__name__
    assert grape.evaluate(policy=policy, out="opened", **options).success_rate == result.success_rate
    assert grape.compare(named, result).difference == 0
    folder = grape.evaluate(policy=opened, **options).folder
    assert folder.parent == tmp_path / "runs" / "evaluate"
    assert folder.name.startswith(f"{type(opened).__name__}-")
    with pytest.raises(grape.SettingsError, match="this policy is open already"):
        grape.evaluate(policy=opened, protocol="libero-openvla-v1", suite="libero_spatial")
    with pytest.raises(grape.SettingsError, match=r"--execute 3: .* decides on 1 action at once"):
        grape.evaluate(policy=opened, execute=3, **options)


def _without(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name not in ("policy", "results")}


def test_a_loop_says_where_its_policy_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[grape.LoopSettings] = []

    def run(settings: grape.LoopSettings, reporter: object) -> dict[str, Any]:
        seen.append(settings)
        return {
            "policy": "iteration-1/train/policy",
            "policies": [{"label": "SFT"}],
            "comparison": {"verdict": "better"},
        }

    monkeypatch.setattr("grape.api.verbs.run_loop", run)
    monkeypatch.chdir(tmp_path)
    result = grape.loop(
        suite="toy", out="run", train={"beta": 0.05}, pair=grape.PairSettings(scores=Path(), out=Path())
    )
    assert result.policy == tmp_path / "run" / "iteration-1" / "train" / "policy"
    assert (result.report, result.policies, result.comparison) == (None, ({"label": "SFT"},), {"verdict": "better"})
    assert (seen[0].train.beta, seen[0].train.lr) == (0.05, 3e-4)
    with pytest.raises(grape.SettingsError, match=r"Unknown setting 'train.bta'"):
        grape.loop(suite="toy", out="run", train={"bta": 0.05})


def test_a_report_of_a_collection(demonstrations: grape.CollectResult, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    result = grape.report(run=demonstrations.folder, out=tmp_path / "page.html")
    assert result.report == tmp_path / "page.html"
    assert result.missing == tuple(result.summary["missing"])
    assert result.report.stat().st_size == result.summary["bytes"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out": "x", "suite": "tooy"}, "Did you mean 'toy'"),
        ({"out": "x", "suite": "toy", "samples": 0}, "--samples is 0"),
        ({"out": "x", "samples": "many"}, r"'samples' needs a whole number \(int\), found 'many'"),
        ({"out": "x", "sample": 3}, "Unknown setting 'sample'.*\n.*Did you mean 'samples'"),
        ({"suite": "toy"}, "CollectSettings needs out"),
        ({"out": "x", "dry_run": True}, "A dry run has a plan and no result"),
    ],
)
def test_mistakes_are_told_as_on_the_command_line(
    values: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(grape.SettingsError, match=message):
        grape.collect(**values)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "values"),
    [
        (grape.collect, {"suite": "tooy", "out": "x"}),
        (grape.collect, {"suite": "toy", "tasks": "push-blok", "out": "x"}),
        (grape.collect, {"suite": "toy", "policy": "nowhere/here/policy", "out": "x"}),
        (grape.score, {"store": "nowhere", "out": "x"}),
        (grape.pair, {"scores": "nowhere", "out": "x"}),
        (grape.train_tpo, {"pairs": "nowhere", "policy": "nowhere", "out": "x"}),
        (grape.train_sft, {"data": "nowhere", "out": "x"}),
        (grape.evaluate, {"suite": "toy", "policy": "expert", "samples": 0, "out": "x"}),
        (grape.compare, {"a": "nowhere", "b": "here"}),
        (grape.report, {"run": "nowhere"}),
        (grape.loop, {"suite": "tooy", "out": "x"}),
    ],
)
def test_a_notebook_reads_what_the_command_line_says(
    verb: Any,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(grape.GrapeError) as caught:
        verb(**values)
    name = verb.__name__.rpartition(".")[2].removeprefix("train_").replace("tpo", "train")
    given = {name: str(value) for name, value in values.items()}
    words = [given.pop("a"), given.pop("b")] if "a" in given else [given.pop("run")] if "run" in given else []
    code = main([name, *words, *(text for flag, value in given.items() for text in (f"--{flag}", value))])
    assert code == caught.value.exit_code
    assert " ".join(str(caught.value).split()) in " ".join(capsys.readouterr().err.split())


def test_open_policies_are_told_apart(demonstrations: grape.CollectResult, tmp_path: Path) -> None:
    """By their hash, which they must have; none of them passes for the expert."""
    policy = grape.train_sft(data=demonstrations.folder, max_updates=1, batch_size=2, out=tmp_path / "sft").policy
    opened = grape.load_policy(policy)
    kind = type("expert", (Handing,), {})
    options: dict[str, Any] = {"suite": "toy", "tasks": "push-block", "initial_states": "9", "workers": 1}
    result = grape.evaluate(policy=kind(opened, "weights"), out=tmp_path / "own", **options)
    assert result.to_dict()["policy"] == "Expert"
    assert read_json(tmp_path / "own" / "run.json")["inputs"]["policy_hash"] == "weights"
    for verb in (grape.evaluate, grape.collect):
        with pytest.raises(grape.PolicyError, match="expert states no policy_hash"):
            verb(policy=kind(opened, ""), out=tmp_path / "unnamed", **options)
    assert not (tmp_path / "unnamed").exists()


class Handing:
    """A policy of a program that hands observations to another."""

    def __init__(self, policy: Policy, policy_hash: str) -> None:
        self.spec = dataclasses.replace(policy.spec, policy_hash=policy_hash)
        self.act, self.prompt = policy.act, policy.prompt
