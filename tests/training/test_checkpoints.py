import itertools
from dataclasses import replace

import pytest
import torch

from grape.core.errors import TrainingError
from grape.core.events import SILENT, SilentReporter
from grape.core.files import read_json, read_jsonl
from grape.training.checkpoints import CheckpointFolder
from grape.training.loop import Gradient, PeriodicEvaluation, TrainLoop, learning_rate
from grape.training.settings import TrainSettings
from tests.training.standin import TinyActionModel


def make(path, keep=2, seed=0):
    torch.manual_seed(seed)
    model = TinyActionModel(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return model, optimizer, CheckpointFolder(path, keep, model, optimizer)


def take_steps(model, optimizer, first, last):
    for step in range(first, last):
        torch.manual_seed(step)
        optimizer.zero_grad()
        tokens = torch.randint(0, 16, (4, 7))
        model.action_logps(torch.randn(4, 3, 4, 4), tokens).sum().backward()
        optimizer.step()


def test_going_on_from_a_checkpoint_is_bit_identical(tmp_path):
    model, optimizer, folder = make(tmp_path)
    take_steps(model, optimizer, 0, 3)
    folder.save(3)
    take_steps(model, optimizer, 3, 6)
    resumed, its_optimizer, its_folder = make(tmp_path, seed=99)
    assert its_folder.restore(SILENT) == 3
    take_steps(resumed, its_optimizer, 3, 6)
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_only_the_last_stay_and_nothing_is_pickled(tmp_path):
    model, optimizer, folder = make(tmp_path)
    assert folder.restore(SILENT) == 0
    for update in range(1, 5):
        take_steps(model, optimizer, update, update + 1)
        folder.save(update)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["update-000003", "update-000004"]
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors", ".json"}


def test_a_truncated_checkpoint_is_passed_over_with_a_warning(tmp_path):
    warnings = []

    class Listening(SilentReporter):
        def warn(self, message):
            warnings.append(message)

    model, optimizer, folder = make(tmp_path)
    take_steps(model, optimizer, 0, 1)
    folder.save(1)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    take_steps(model, optimizer, 1, 2)
    folder.save(2)
    torn = tmp_path / "update-000002" / "state.safetensors"
    torn.write_bytes(torn.read_bytes()[:-100])
    (tmp_path / ".update-000003.1.2.tmp").mkdir()
    model, _, folder = make(tmp_path, seed=5)
    assert folder.restore(Listening()) == 1
    assert "is truncated" in warnings[0]
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert [entry.name for entry in tmp_path.iterdir()] == ["update-000001"]


def test_a_checkpoint_of_another_model_is_not_loaded(tmp_path):
    model, optimizer, folder = make(tmp_path)
    take_steps(model, optimizer, 0, 1)
    folder.save(1)
    other = TinyActionModel(9)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    assert CheckpointFolder(tmp_path, 2, other, torch.optim.AdamW(other.parameters())).restore(SILENT) == 0
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def settings_for(out, **changes):
    return replace(
        TrainSettings(pairs=out, policy=out, out=out, lr=0.1, max_grad_norm=0.0, checkpoint_every=2), **changes
    )


def test_learning_rate(tmp_path):
    settings = settings_for(tmp_path, lr=1.0, schedule="cosine", warmup=0.1)
    rates = [learning_rate(settings, update, 100) for update in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.001
    assert all(b <= a for a, b in itertools.pairwise(rates[10:]))
    linear = settings_for(tmp_path, lr=1.0, schedule="linear")
    assert [learning_rate(linear, update, 4) for update in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert learning_rate(settings_for(tmp_path, lr=2.0), 3, 4) == 2.0


def loop_over(tmp_path, gradient_of, updates=6, clip=0.0, loss_of=lambda update: 1.0, evaluation=None):
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    loop = TrainLoop(settings_for(tmp_path, max_grad_norm=clip), model, updates)

    def gradient(update):
        loop.parameters[0].grad = torch.full((1, 1), gradient_of(update))
        return Gradient({"loss": loss_of(update)}, 1)

    return model, lambda: loop.run(
        gradient, SILENT, "test", name_nonfinite=lambda update: [f"item {update}"], evaluation=evaluation
    )


def test_clipping_scales_the_gradient(tmp_path):
    (tmp_path / "a").mkdir()
    model, run = loop_over(tmp_path / "a", lambda update: 100.0, updates=1, clip=1.0)
    assert run()["grad_norm"] == pytest.approx(100.0)
    assert float(model.weight.grad) == pytest.approx(1.0)


def test_the_loop_stops_at_a_gradient_that_is_not_finite(tmp_path):
    values = {4: float("inf")}
    _, run = loop_over(tmp_path, lambda update: values.get(update, 1.0))
    with pytest.raises(TrainingError, match=r"Update 5 of 6: the gradient is not finite \(item 4\)"):
        run()
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == 4
    assert {entry.name for entry in (tmp_path / "checkpoints").iterdir()} == {"update-000002", "update-000004"}


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    model, run = loop_over(tmp_path, lambda update: 1.0)
    model.weight.data.fill_(torch.nan)
    with pytest.raises(TrainingError, match="the weights are not finite"):
        run()
    assert not (tmp_path / "checkpoints").exists()


def test_the_best_state_stays(tmp_path):
    losses = [5.0, 3.0, 1.0, 2.0, 4.0, 4.0, 6.0]
    _, run = loop_over(tmp_path, lambda update: 1.0, 7, loss_of=losses.__getitem__, evaluation=PeriodicEvaluation(2))
    run()
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [row.get("loss/mean") for row in rows] == [None, 4.0, None, 1.5, None, 4.0, 6.0]
    facts = read_json(tmp_path / "checkpoints" / "best" / "state.json")
    assert facts["update"] == facts["next_update"] == 4
    assert facts["learning_rate"] == 0.1
    assert {entry.name for entry in (tmp_path / "checkpoints").iterdir()} == {"best", "update-000006", "update-000007"}


def test_what_is_measured_decides_on_the_best(tmp_path):
    losses = iter([3.0, 1.0, 2.0])
    evaluation = PeriodicEvaluation(2, lambda: {"eval/loss": next(losses)})
    _, run = loop_over(tmp_path, lambda update: 1.0, 6, loss_of=lambda update: 6.0 - update, evaluation=evaluation)
    assert run()["eval/loss"] == 2.0
    assert read_json(tmp_path / "checkpoints" / "best" / "state.json")["update"] == 4


def test_a_kill_between_writing_and_pruning_leaves_no_superseded_checkpoint(tmp_path, monkeypatch):
    model, optimizer, folder = make(tmp_path)
    for update in range(3):
        take_steps(model, optimizer, update, update + 1)
        with monkeypatch.context() as patch:
            patch.setattr(CheckpointFolder, "_prune", lambda self: None)  # killed before it
            folder.save(update + 1)
    (tmp_path / "best").mkdir()
    kept = {entry.name for entry in tmp_path.iterdir()} - {"update-000001"}
    _, _, folder = make(tmp_path)
    assert folder.restore(SILENT) == 3
    assert {entry.name for entry in tmp_path.iterdir()} == kept
