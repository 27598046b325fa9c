"""Cards of policies quote the evaluations of these weights, with their control; adapters name a base on the hub."""

import json
from pathlib import Path

import pytest
import yaml

import grape
from grape.core.errors import DataError, SettingsError
from grape.core.files import write_json
from grape.core.runs import open_run
from grape.evaluation.outcomes import EpisodeOutcome
from grape.evaluation.results import EvaluationResults, write_results
from grape.evaluation.statistics import wilson_interval
from grape.hub import PushSettings, run_push
from grape.hub.disclosure import public_value
from grape.training.settings import TrainSettings

OWN, START = "0" * 63 + "1", "0" * 63 + "2"


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(folder, policy="hf://lab/base@v1", *, adapter=False, done=True):
    """A training run's folder, as ``grape train`` leaves it, with weights that say nothing."""
    settings = TrainSettings(policy=Path(policy), pairs=Path("hf://lab/pairs@main"), out=folder)
    run = open_run(folder, "train", settings, {"policy_hash": START, "pairs": "a" * 64})
    policy_folder = folder / "policy"
    policy_folder.mkdir()
    if adapter:
        write_json(policy_folder / "adapter_config.json", {"base_model_name_or_path": "", "r": 4})
        write_json(policy_folder / "grape_adapter.json", {"base": "../../start"})
        (folder.parent / "start").mkdir()
        (policy_folder / "adapter_model.safetensors").write_bytes(b"adapter")
    else:
        write_json(policy_folder / "config.json", {"model_type": "openvla"})
        (policy_folder / "model.safetensors").write_bytes(b"weights")
    write_json(policy_folder / "provenance.json", {"collected": {"toy": {"reach": "0-9"}}})
    (folder / "log.jsonl").write_text("{}\n")
    if done:
        run.finish({"policy": "policy", "policy_hash": OWN, "updates": 3})
    return folder


def evaluation(folder, policy_hash, solved, *, first=100_000, suite="toy"):
    """An evaluation in which so many of 40 episodes were solved."""
    outcomes = [EpisodeOutcome("reach", first + state, 0, state < solved, 5) for state in range(40)]
    results = EvaluationResults.from_outcomes(
        outcomes, {"reach": "reach it"}, suite=suite, policy="x", policy_hash=policy_hash, temperature=0.0, seed=0,
        versions={},
    )  # fmt: skip
    write_results(folder, results)


def push(run, **options):
    summary = run_push(PushSettings(run=run, to="lab/tpo", offline=True, license="mit", **options))
    text = (Path(summary["folder"]) / "README.md").read_text(encoding="utf-8")
    return summary, text, yaml.safe_load(text.split("---\n")[1])


def test_the_card_quotes_evaluations_of_these_weights_with_their_control(work):
    run = train(work / "runs" / "tpo")
    evaluation(work / "runs" / "after", OWN, 30)
    evaluation(work / "runs" / "before", START, 10)
    evaluation(work / "runs" / "unrelated", "f" * 64, 39)
    summary, text, front = push(run)
    low, high = wilson_interval(30, 40)
    assert f"| this policy | reach | 75.0 % | {100 * low:.1f} to {100 * high:.1f} % | 40 |" in text
    assert "| starting policy (control) | reach | 25.0 % |" in text
    assert "better; difference +50.0 points (95 % interval" in text
    assert "97.5" not in text  # 39 of 40, of another policy
    assert "likely too high" not in text
    assert front["base_model"] == "lab/base"
    assert front["base_model_relation"] == "finetune"
    assert front["datasets"] == ["lab/pairs"]
    assert summary["open"] == "grape evaluate --policy hf://lab/tpo --suite toy"
    assert sorted(path.name for path in Path(summary["folder"]).iterdir()) == [
        "README.md", "config.json", "grape_push.json", "model.safetensors", "provenance.json",
    ]  # fmt: skip


def test_the_hubs_own_library_reads_the_results(work):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    evaluation(work / "runs" / "after", OWN, 30)
    evaluation(work / "runs" / "before", START, 10)
    _, text, _ = push(train(work / "runs" / "tpo"))
    data = huggingface_hub.ModelCard(text).data
    own, control = data.eval_results
    assert (own.metric_type, own.metric_value, own.dataset_type) == ("success_rate", 0.75, "toy")
    assert "95 % interval 0.5981 to 0.8581, 40 episodes" in own.metric_name
    assert control.metric_value == 0.25
    assert data.license == "mit"
    assert data.base_model == "lab/base"


def test_states_that_were_learned_from_are_told(work):
    evaluation(work / "runs" / "after", OWN, 30, first=0)
    _, text, _ = push(train(work / "runs" / "tpo"))
    assert "10 of these initial states were learned from: the figure is likely too high." in text
    assert "there is no control" in text


def test_without_an_evaluation_the_card_says_so(work):
    _, text, front = push(train(work / "runs" / "tpo"))
    assert "No evaluation of these weights was found" in text
    assert "model-index" not in front
    evaluation(work / "kept" / "after", OWN, 30)
    assert "75.0 %" in push(work / "runs" / "tpo", evaluations=work / "kept")[1]


def test_settings_stand_on_the_card_without_paths(work):
    _, text, _ = push(train(work / "runs" / "tpo", policy="/home/someone/base"))
    assert "pairs: hf://lab/pairs@main" in text
    assert "/home" not in text
    assert str(work) not in text
    assert "anchor: 5.0" in text


@pytest.mark.parametrize(
    ("value", "public"),
    [
        ("drawer-open,reach", "drawer-open,reach"),
        ("0-49", "0-49"),
        ("hf://lab/x@v1", "hf://lab/x@v1"),
        ("/home/x", "(left out)"),
        ("~/x", "(left out)"),
        ("C:\\x", "(left out)"),
        ("python judge.py --key 12", "(left out)"),
        ("judge -k12", "(left out)"),
        ("progress='python x'", "(left out)"),
        (["../x", {"a": "b/c"}], ["(left out)", {"a": "(left out)"}]),
        (0.5, 0.5),
        (None, None),
    ],
)
def test_what_may_be_a_path_or_a_command_is_left_out(value, public):
    assert public_value(value) == public


def test_an_adapter_names_a_base_that_others_have(work):
    run = train(work / "runs" / "lora", adapter=True)
    with pytest.raises(SettingsError, match="which nobody else has") as raised:
        push(run)
    assert "--base" in raised.value.hint
    summary, _, front = push(run, base="lab/base@" + "b" * 40)
    folder = Path(summary["folder"])
    assert summary["what"] == "adapter"
    assert (front["base_model"], front["base_model_relation"]) == ("lab/base", "adapter")
    assert json.loads((folder / "grape_adapter.json").read_text())["base"] == "hf://lab/base@" + "b" * 40
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"], config["r"]) == ("lab/base", "b" * 40, 4)
    assert (folder / "adapter_model.safetensors").read_bytes() == b"adapter"


def test_pickles_stop_a_push(work):
    run = train(work / "runs" / "tpo")
    (run / "policy" / "action_head--5_checkpoint.pt").write_bytes(b"x")
    with pytest.raises(SettingsError, match=r"action_head--5_checkpoint\.pt, which may run code"):
        push(run)


def test_what_does_not_belong_stays(work):
    run = train(work / "runs" / "tpo")
    for name in ("notes.txt", "optimizer.log", ".env"):
        (run / "policy" / name).write_text("x")
    summary, _, _ = push(run)
    assert summary["left_out"] == [".env", "notes.txt", "optimizer.log"]
    assert not {"notes.txt", ".env"} & {path.name for path in Path(summary["folder"]).iterdir()}


def test_a_training_that_is_not_complete_is_refused(work):
    with pytest.raises(DataError, match="not complete"):
        push(train(work / "runs" / "tpo", done=False))


def test_a_loop_gives_its_policy_and_its_report(work):
    loop = work / "loop"
    train(loop / "iteration-1" / "train")
    evaluation(loop / "test" / "after", OWN, 30)
    evaluation(loop / "test" / "before", START, 10)
    (loop / "report.html").write_text("<html></html>")
    write_json(loop / "run.json", {"verb": "loop", "settings": {}, "inputs": {}})
    write_json(
        loop / "done.json",
        {"policy": "iteration-1/train/policy", "test": {"before": "test/before", "after": "test/after"}},
    )
    write_json(loop / "loop.json", json.loads((loop / "done.json").read_text()) | {"policies": []})
    summary, text, _ = push(loop)
    assert summary["what"] == "policy"
    assert "difference +50.0 points" in text
    report, text, _ = push(loop, what="report", out=work / "page")
    assert (Path(report["folder"]) / "report.html").read_text() == "<html></html>"
    assert "| 75.0 % |" in text
    assert report["kind"] == "dataset"


def test_names_are_checked_before_anything(work):
    run = train(work / "runs" / "tpo")
    with pytest.raises(grape.GrapeError, match="no name on the hub"):
        push(run, datasets=("not a name",))
