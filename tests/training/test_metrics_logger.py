import sys
from types import ModuleType, SimpleNamespace

import accelerate.tracking  # noqa: F401 (before stand-ins of packages that it looks for)
import pytest
import torch

from grape.cli.main import main
from grape.core.errors import SettingsError
from grape.core.files import read_json, read_jsonl
from grape.training.metrics_logger import TRACKERS, open_trackers
from tests.reporters import Hearing

SETTINGS = {"lr": 0.1, "data": ["store"]}


class FakeRun:
    def __init__(self, **options):
        self.options, self.rows, self.finished = options, [], 0
        self.broken = False

    def log(self, metrics, step):
        if self.broken:
            raise ConnectionError(f"no route; key sesame-open-up of {step}")
        self.rows.append((step, metrics))

    def finish(self):
        self.finished += 1


@pytest.fixture
def runs(monkeypatch):
    """Stand-ins for the packages of wandb and trackio; the runs that they opened."""
    opened = []

    def init(**options):
        opened.append(FakeRun(**options))
        return opened[-1]

    for name in ("wandb", "trackio"):
        module = ModuleType(name)
        module.init = init
        module.finish = lambda: opened[-1].finish()
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.delenv(f"{name.upper()}_PROJECT", raising=False)
    return opened


def test_none_imports_and_writes_nothing(tmp_path, monkeypatch):
    for name in ("wandb", "trackio", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    trackers = open_trackers((), "run", SETTINGS, tmp_path)
    trackers.log({"loss": 1.0}, 1)
    trackers.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_metrics_arrive_under_one_lasting_identity(name, runs, tmp_path, monkeypatch):
    trackers = open_trackers((name, name), "sft", SETTINGS, tmp_path)
    trackers.log({"loss": 2.0}, 1)
    trackers.log({"loss": 1.0}, 2)
    trackers.close()
    trackers.close()
    (run,) = runs
    assert run.rows == [(1, {"loss": 2.0}), (2, {"loss": 1.0})]
    assert run.finished == 1
    assert run.options["config"] == SETTINGS
    assert run.options["project"] == "grape"
    assert run.options["resume"] == "allow"
    monkeypatch.setenv(f"{name.upper()}_PROJECT", "robots")
    open_trackers((name,), "sft", SETTINGS, tmp_path)
    (tmp_path / "other").mkdir()
    open_trackers((name,), "sft", SETTINGS, tmp_path / "other")
    key = {"wandb": "id", "trackio": "name"}[name]
    assert runs[1].options["project"] == "robots"
    assert runs[1].options[key] == run.options[key]
    assert runs[2].options[key] != run.options[key]


def test_a_failure_in_the_middle_is_said_once_and_the_others_go_on(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "sesame-open-up")
    reporter = Hearing()
    trackers = open_trackers(("wandb", "trackio"), "run", SETTINGS, tmp_path, reporter)
    runs[0].broken = True
    for step in (1, 2, 3):
        trackers.log({"loss": 1.0}, step)
    trackers.close()
    assert len(runs[1].rows) == 3
    assert len(reporter.warnings) == 1
    assert "wandb takes no more metrics (ConnectionError: no route" in reporter.warnings[0]
    (event,) = read_jsonl(tmp_path / "log.jsonl")
    assert event["tracker"] == "wandb"
    everything = reporter.warnings[0] + "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    assert "sesame" not in everything
    assert list(read_json(tmp_path / ".trackers.json")) == ["run"]


def test_a_tracker_that_does_not_start_stops_the_run_before_it_begins(runs, tmp_path, monkeypatch):
    def refuse(**options):
        raise RuntimeError("api_key not configured (no-tty)")

    monkeypatch.setattr(sys.modules["trackio"], "init", refuse)
    with pytest.raises(SettingsError, match=r"trackio could not be opened .*api_key"):
        open_trackers(("wandb", "trackio"), "run", SETTINGS, tmp_path)
    assert runs[0].finished == 1


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_named_with_its_extra(name, tmp_path, monkeypatch):
    module = "torch.utils.tensorboard" if name == "tensorboard" else name
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError) as caught:
        open_trackers((name,), "run", SETTINGS, tmp_path)
    extra = name in ("wandb", "tensorboard", "trackio")
    assert (f"pip install 'grape-vla[{name}]'" if extra else f"pip install {name}") in caught.value.hint
    assert not list(tmp_path.iterdir())


VERBS = {
    "train": ("--pairs", "none", "--policy", "none"),
    "sft": ("--data", "none"),
    "loop": ("--suite", "toy", "--iterations", "1"),
    "demo": (),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_every_verb_looks_for_its_tracker_before_any_work(verb, name, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    flag = "--train.report-to" if verb in ("loop", "demo") else "--report-to"
    words = [verb, *VERBS[verb], "--out", str(tmp_path / "out"), flag, name]
    assert main(words) == 2
    message = capsys.readouterr().err.replace("\n", " ")
    assert f"{flag} {name} needs a package that cannot be imported" in message
    assert not (tmp_path / "out").exists()


def test_unknown_names_are_suggested(tmp_path):
    with pytest.raises(SettingsError, match="Unknown tracker 'wand'") as caught:
        open_trackers(("wand",), "run", SETTINGS, tmp_path)
    assert "'wandb'" in caught.value.hint


def test_tensorboard_gets_scalars_and_hides_what_is_written_again(tmp_path, monkeypatch):
    calls = []

    class Writer:
        def __init__(self, log_dir, purge_step):
            calls.append(("open", log_dir, purge_step))

        def add_text(self, title, text, step):
            calls.append(("text", title, text, step))

        def add_scalar(self, name, value, global_step):
            calls.append((name, value, global_step))

        def flush(self):
            pass

        def close(self):
            calls.append(("close",))

    package = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", package)
    monkeypatch.setattr(torch.utils, "tensorboard", package, raising=False)
    trackers = open_trackers(("tensorboard",), "sft", SETTINGS, tmp_path)
    trackers.log({"loss": 2.0, "rewards/margins": 0.5}, 41)
    trackers.log({"loss": 1.0}, 42)
    trackers.close()
    assert calls[0] == ("open", str(tmp_path / "tensorboard"), 41)
    assert calls[1][0] == "text"
    assert "lr: 0.1" in calls[1][2]
    assert calls[2:] == [("loss", 2.0, 41), ("rewards/margins", 0.5, 41), ("loss", 1.0, 42), ("close",)]


def test_mlflow_goes_on_with_its_run(tmp_path, monkeypatch):
    calls = []
    mlflow = ModuleType("mlflow")
    mlflow.search_experiments = lambda filter_string: [SimpleNamespace(experiment_id="7")]
    mlflow.utils = SimpleNamespace(validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100))

    def start_run(run_id, run_name, **rest):
        calls.append(("start", run_id, run_name, rest["experiment_id"]))
        return SimpleNamespace(info=SimpleNamespace(run_id="run-1"))

    mlflow.start_run = start_run
    mlflow.log_params = lambda values: calls.append(("params", values))
    mlflow.log_metrics = lambda metrics, step: calls.append(("metrics", metrics, step))
    mlflow.end_run = lambda: calls.append(("end",))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    for _ in range(2):
        trackers = open_trackers(("mlflow",), "sft", SETTINGS, tmp_path)
        trackers.log({"loss": 2.0}, 3)
        trackers.close()
    assert calls[:4] == [("start", None, "sft", "7"), ("params", SETTINGS), ("metrics", {"loss": 2.0}, 3), ("end",)]
    assert calls[4] == ("start", "run-1", "sft", "7")


class Anything(FakeRun):
    """Stands for whatever the other trackers open; notes what it is asked to do."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls = []

    def __getattr__(self, name):
        return lambda *values, **named: self.calls.append((name, values, named))

    def get_logger(self):
        return self

    def __setitem__(self, name, value):
        self.calls.append((name, value))


def test_the_other_trackers_get_metrics_and_settings(tmp_path, monkeypatch):
    opened = {}

    def opener(name):
        def open_run(**options):
            opened[name] = Anything(**options)
            return opened[name]

        return open_run

    for name in ("comet_ml", "swanlab", "aim", "clearml", "dvclive", "dvclive.plots"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["comet_ml"].__version__ = "3.49.0"
    sys.modules["comet_ml"].start = opener("comet_ml")
    sys.modules["swanlab"].init = opener("swanlab")
    sys.modules["swanlab"].config = type("Config", (dict,), {"update": lambda self, values, **_: None})()
    sys.modules["aim"].Run = opener("aim")
    sys.modules["clearml"].Task = SimpleNamespace(current_task=lambda: None, init=opener("clearml"))
    sys.modules["dvclive"].Live = opener("dvclive")
    sys.modules["dvclive.plots"].Metric = SimpleNamespace(could_log=lambda value: True)
    names = ("comet_ml", "swanlab", "aim", "clearml", "dvclive")
    reporter = Hearing()
    trackers = open_trackers(names, "sft", SETTINGS, tmp_path, reporter)
    trackers.log({"loss": 2.0}, 1)
    trackers.close()
    assert not reporter.warnings
    assert set(opened) == set(names)
    assert opened["comet_ml"].options == {"project_name": "grape"}
    assert opened["swanlab"].rows == [(1, {"loss": 2.0})]
    assert opened["swanlab"].options["logdir"] == str(tmp_path / "swanlab")
    assert opened["aim"].options == {"repo": str(tmp_path), "experiment": "grape"}
    assert opened["clearml"].options == {"project_name": "grape", "task_name": "sft"}
    assert opened["dvclive"].options == {"dir": str(tmp_path / "dvclive"), "resume": False}
    for name in ("comet_ml", "aim", "clearml", "dvclive"):
        assert any("2.0" in repr(call) for call in opened[name].calls), name
