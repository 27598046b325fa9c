"""Scorers of recorded episodes: built in, registered, and external programs that misbehave."""

import itertools
import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from grape.core.errors import CompatibilityError, DataError, ProgramError, SettingsError
from grape.costs import builtin_specification, evaluate, with_unknown_outcome
from grape.preferences import (
    PairSettings,
    ScoreSettings,
    make_pairs,
    read_pairs,
    read_scores,
    run_pair,
    run_score,
    score_trajectories,
)
from grape.preferences.records import load_scorer_values
from grape.scorers import EpisodeScore, Scorer, load_values, open_scorer, parse_scorers, register_scorer, registry
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_store
from tests.reporters import Hearing

PROGRAM = Path(__file__).with_name("program.py")


def command(*words: str) -> str:
    return " ".join([sys.executable, "-S", str(PROGRAM), *words])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return make_store(tmp_path_factory.mktemp("recorded") / "store", samples=4, tasks=("drawer-open",))


def score(store: EpisodeStore, out: Path, reporter: Any = None, **settings: Any) -> dict[str, Any]:
    return dict(run_score(ScoreSettings(store=store.path, out=out, **settings), reporter or Hearing()))


def test_scorers_side_by_side_leave_the_score_as_it_is(store: EpisodeStore, tmp_path: Path) -> None:
    score(store, tmp_path / "plain")
    summary = score(store, tmp_path / "out", scorer=("costs", "success", f"speed={command('fine')}"))
    assert (tmp_path / "plain" / "scores.jsonl").read_bytes() == (tmp_path / "out" / "scores.jsonl").read_bytes()
    assert not (tmp_path / "plain" / "scorers").exists()
    assert sorted(path.name for path in (tmp_path / "out" / "scorers").iterdir()) == [
        "costs.jsonl",
        "speed.jsonl",
        "success.jsonl",
    ]
    scores = read_scores(tmp_path / "out")
    values = {
        label: load_values(tmp_path / "out" / "scorers" / f"{label}.jsonl", label, part)
        for label, part in summary["scorers"].items()
    }
    assert values["costs"].by_episode() == {name: pytest.approx(-cost_as_written(store, name)) for name in scores}
    assert values["success"].by_episode() == {name: float(item.success or 0) for name, item in scores.items()}
    assert values["speed"].by_episode() == {name: -float(item.steps) for name, item in scores.items()}
    assert values["speed"].noise == 0.5
    assert values["speed"].scores[0].step_values == tuple(range(scores[values["speed"].scores[0].episode_id].steps))
    provenance = summary["scorers"]["speed"]["provenance"]
    assert provenance["about"]["name"] == "stand-in"
    assert list(provenance["files"]) == [str(PROGRAM)]


def cost_as_written(store: EpisodeStore, name: str) -> float:
    """Cost under the specification's own thresholds; those of the score are calibrated."""
    trajectory = store.read(name, frames=False)
    specification = builtin_specification("metaworld", trajectory.meta.task)
    return sum(stage.cost for stage in evaluate(specification, with_unknown_outcome(trajectory)))


@pytest.mark.parametrize("behavior", ["crash", "loud", "hang", "nan", "nonsense"])
def test_a_program_that_fails_once_is_replaced_and_loses_nothing(
    behavior: str, store: EpisodeStore, tmp_path: Path
) -> None:
    listener, victim = Hearing(), store.ids()[3]
    patience = 15.0 if behavior == "hang" else 600.0  # within which a busy machine starts an interpreter
    scorer = f"p={command('once:' + behavior, victim)}"
    summary = score(store, tmp_path / "out", listener, scorer=(scorer,), program_timeout=patience)
    assert summary["scorers"]["p"]["values"] == len(store)
    assert len(listener.warnings) == 1
    assert {
        "crash": "ended with status 3. End of its stderr: out of memory",
        "loud": "xxx and out of memory",
        "hang": "gave no answer for 15 s",
        "nan": "nan is not a finite number",
        "nonsense": "loading model",
    }[behavior] in listener.warnings[0]
    assert "started again" in listener.warnings[0]
    assert len(listener.warnings[0]) < 1500


def test_an_episode_that_a_program_always_fails_at_has_no_value(store: EpisodeStore, tmp_path: Path) -> None:
    listener, victim = Hearing(), store.ids()[2]
    summary = score(store, tmp_path / "out", listener, scorer=(f"p={command('crash', victim)}",))
    part = summary["scorers"]["p"]
    assert part["values"] == len(store) - 1
    assert "failed 3 times" in part["missing"][victim]
    assert any("no value for 1 of" in message and victim in message for message in listener.warnings)
    with pytest.raises(DataError, match=f"no value for 1 of .* first {victim}"):
        score(store, tmp_path / "ext", scorer=(f"p={command('crash', victim)}",), external_reward="p")


def test_a_program_that_always_fails_is_given_up_and_values_are_kept(store: EpisodeStore, tmp_path: Path) -> None:
    names = store.ids()
    with pytest.raises(ProgramError, match=r"failed 3 times: it ended with status 3\. End of its stderr: out of"):
        score(store, tmp_path / "out", scorer=(f"p={command('crash', *names[4:])}",))
    kept = (tmp_path / "out" / "scorers" / "p.partial").read_text().splitlines()
    assert [json.loads(line)["episode_id"] for line in kept] == list(names[:4])


def test_a_run_that_was_killed_goes_on_with_what_it_has(store: EpisodeStore, tmp_path: Path) -> None:
    calls: list[str] = []

    class Dying(Scorer):
        def score(self, trajectory: Any) -> EpisodeScore:
            calls.append(trajectory.meta.episode_id)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return EpisodeScore(trajectory.meta.episode_id, float(len(calls)))

    register_scorer("dying", Dying)
    with pytest.raises(KeyboardInterrupt):
        score(store, tmp_path / "out", scorer=("dying",))
    with (tmp_path / "out" / "scorers" / "dying.partial").open("a") as log:
        log.write('{"episode_id": "dra')  # truncated by the kill
    summary = score(store, tmp_path / "out", scorer=("dying",))
    assert summary["scorers"]["dying"]["values"] == len(store)
    assert len(calls) == len(store) + 1
    assert [path.name for path in (tmp_path / "out" / "scorers").iterdir()] == ["dying.jsonl"]


def test_any_scorer_can_be_the_external_reward(store: EpisodeStore, tmp_path: Path) -> None:
    summary = score(store, tmp_path / "out", scorer=(f"speed={command('fine')}", "success"), external_reward="speed")
    scores = read_scores(tmp_path / "out")
    assert all(item.external == "speed" and item.r_ext == -item.steps for item in scores.values())
    weights = summary["calibration"]["weights"]
    assert all(item.terms["ext"] == pytest.approx(weights["ext"] * -item.steps) for item in scores.values())
    assert summary["calibration"]["external"] == {"scorer": "speed", "noise": 0.5}
    score(store, tmp_path / "ext", scorer=(f"speed={command('fine')}",), external_reward="speed", weights=(0, 1, 2))
    run_pair(PairSettings(scores=tmp_path / "ext", out=tmp_path / "pairs"))
    assert any("scorer 'speed' decided it" in pair.reason for pair in read_pairs(tmp_path / "pairs"))


def test_differences_within_a_scorers_noise_make_no_pair(store: EpisodeStore) -> None:
    class Steps(Scorer):
        noise = 100.0

        def score(self, trajectory: Any) -> EpisodeScore:
            return EpisodeScore(trajectory.meta.episode_id, float(trajectory.steps))

    register_scorer("steps", Steps)
    settings: dict[str, Any] = {"scorer": ("steps",), "external_reward": "steps", "weights": (0.0, 0.01, 2.0)}
    coarse = score_trajectories(store, calibrate=False, **settings)
    assert all(pair.terms["success"] == 2.0 for pair in make_pairs(coarse))
    Steps.noise = 0.0
    fine = score_trajectories(store, calibrate=False, **settings)
    assert len(make_pairs(fine)) > len(make_pairs(coarse))
    assert list(fine.values) == ["steps"]


@pytest.mark.parametrize(
    ("scorers", "message"),
    [
        (("sucess",), r"Unknown scorer 'sucess'\.[\s\S]*Did you mean 'success'"),
        (("success", "success"), "two scorers are called 'success'"),
        (("no-such-program --fast",), "there is no program 'no-such-program'"),
        (("python 'unclosed",), "no command line"),
        (("costs:missing.yaml",), "there is no such file"),
        (("gcpg=success",), "'gcpg' is what the score itself is called"),
    ],
)
def test_what_is_no_scorer_is_refused(
    scorers: tuple[str, ...], message: str, store: EpisodeStore, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        score(store, tmp_path / "out", scorer=scorers)


def test_no_shell_reads_a_command(store: EpisodeStore, tmp_path: Path) -> None:
    (choice,) = parse_scorers([f"p={command('fine', ';', 'touch', str(tmp_path / 'made'), '$(id)')}"])
    assert choice.command[-4:] == (";", "touch", str(tmp_path / "made"), "$(id)")
    scorer = open_scorer(choice)
    scorer.close()
    assert not (tmp_path / "made").exists()


def test_another_script_is_another_run(store: EpisodeStore, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(PROGRAM.read_text())
    words = (f"{sys.executable} -S {script} fine",)
    summary = score(store, tmp_path / "out", scorer=words)
    assert list(summary["scorers"]) == ["mine"]
    assert score(store, tmp_path / "out", scorer=words) == summary
    script.write_text(PROGRAM.read_text() + "# changed\n")
    with pytest.raises(CompatibilityError, match=r"inputs\.scorers\.mine\.files"):
        score(store, tmp_path / "out", scorer=words)
    with pytest.raises(SettingsError, match="Unknown scorer as --external-reward 'mime'"):
        score(store, tmp_path / "other", scorer=words, external_reward="mime")


RESTARTED = """
import json, os, sys
FIRST, THEN = {"name": "mine"}, json.loads(sys.argv[2])
restarted = os.path.exists(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    if request["request"] == "hello":
        print(json.dumps({"id": request["id"], **(THEN if restarted else FIRST)}), flush=True)
    elif restarted:
        print(json.dumps({"id": request["id"], "value": 1.0}), flush=True)
    else:
        open(sys.argv[1], "w").close()
        sys.exit(1)
"""


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        ({"problem": "the device is gone"}, "cannot work: the device is gone"),
        ({"name": "other"}, "was started again and now says name = 'other', before 'mine'"),
        ({"name": "mine", "noise": 1}, "now says noise = 1, before None"),
        ({"name": "mine"}, ""),
    ],
)
def test_a_restarted_program_must_be_the_same_one(
    greeting: dict[str, Any], message: str, store: EpisodeStore, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(RESTARTED)
    words = [sys.executable, "-S", str(tmp_path / "mine.py"), str(tmp_path / "mark"), json.dumps(greeting)]
    if not message:
        assert score(store, tmp_path / "out", scorer=(shlex.join(words),))["scorers"]["mine"]["values"] == len(store)
        return
    with pytest.raises(ProgramError, match=message):
        score(store, tmp_path / "out", scorer=(shlex.join(words),))


def test_a_folder_of_weights_is_part_of_the_run(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "part").mkdir(parents=True)
    (model / "part" / "weights.safetensors").write_bytes(b"1")
    (tmp_path / "outside").write_text("1")
    (model / "blob").symlink_to(tmp_path / "outside")
    choices = [parse_scorers([f"p={sys.executable} -S {PROGRAM} {words}"])[0] for words in (model, f"--model={model}")]

    def identities() -> list[Any]:
        return [choice.identity()["files"] for choice in choices]

    # Not yet a model: what a program writes into is not part of the run.
    assert [len(files) for files in identities()] == [1, 1]
    (model / "config.json").write_text("{}")
    seen = [identities()]
    assert [len(files) for files in seen[0]] == [2, 2]
    (tmp_path / "outside").write_text("2")
    (model / ".cache").mkdir()
    assert identities() == seen[0]
    (model / "part" / "weights.safetensors").write_bytes(b"2")
    seen.append(identities())
    (model / "blob").unlink()
    (model / "blob").symlink_to(tmp_path / "elsewhere")
    seen.append(identities())
    with (model / "part" / "weights.safetensors").open("wb") as file:
        file.truncate(65 * 2**20)
    seen.append(identities())
    with (model / "part" / "weights.safetensors").open("r+b") as file:
        file.write(b"1")
    seen.append(identities())
    assert all(one != other for of_choice in zip(*seen, strict=True) for one, other in itertools.pairwise(of_choice))
    shutil.move(model, tmp_path / "moved")
    (moved,) = parse_scorers([f"p={sys.executable} -S {PROGRAM} {tmp_path / 'moved'}"])
    assert moved.identity()["files"][str(tmp_path / "moved")] == seen[-1][0][str(model)]


@pytest.mark.parametrize("scorer", ["{folder}/mine.py", "mine.py", "costs:{folder}"])
def test_what_computes_the_values_is_part_of_the_run(
    scorer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name in ("mine.py", "drawer-open.yaml"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    # A program without arguments is found as any other is.
    (choice,) = parse_scorers([scorer.format(folder=tmp_path)])
    before = choice.identity()
    for name in ("mine.py", "drawer-open.yaml"):
        (tmp_path / name).write_text("#!/bin/sh\n# changed\n")
    assert choice.identity() != before


def test_built_in_specifications_are_part_of_scorer_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    (choice,) = parse_scorers(["costs"])
    before = choice.identity()
    registry._builtin_specifications.cache_clear()
    monkeypatch.setattr("grape.costs.builtins.builtin_text", lambda suite, task: "changed")
    changed = choice.identity()
    registry._builtin_specifications.cache_clear()
    assert changed != before


@pytest.mark.parametrize("label", ["../../outside", "a/b", ""])
def test_a_label_that_leads_out_of_the_folder_is_refused(label: str, store: EpisodeStore, tmp_path: Path) -> None:
    score(store, tmp_path / "out" / "scores", scorer=("success",))
    done = tmp_path / "out" / "scores" / "done.json"
    (tmp_path / "out" / "outside.jsonl").write_text('{"episode_id": "secret", "value": 1.0}\n')
    done.write_text(json.dumps({**json.loads(done.read_text()), "scorers": {label: {}}}))
    with pytest.raises(DataError, match="says nothing usable about scorers"):
        load_scorer_values(done.parent, json.loads(done.read_text()))


def test_a_link_that_leads_out_of_the_folder_is_refused(store: EpisodeStore, tmp_path: Path) -> None:
    score(store, tmp_path / "out", scorer=("success",))
    (tmp_path / "out" / "scorers").rename(tmp_path / "elsewhere")
    (tmp_path / "out" / "scorers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leads out of"):
        load_scorer_values(tmp_path / "out", json.loads((tmp_path / "out" / "done.json").read_text()))
