import contextlib
import itertools
import shutil
from dataclasses import replace

import pytest
import torch

from grape.core.errors import DataError, TrainingError
from grape.core.events import SILENT, SilentReporter
from grape.core.files import read_json, read_jsonl, write_json
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


class ListeningReporter(SilentReporter):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


STATE = ("state.json", "state.safetensors")


@pytest.mark.parametrize("name", STATE)
def test_a_checkpoint_mixed_of_two_states_is_passed_over(tmp_path, name):
    model, optimizer, folder = make(tmp_path / "run")
    _, other_optimizer, other = make(tmp_path / "other", seed=1)
    for update in (1, 2):
        take_steps(model, optimizer, update, update + 1)
        folder.save(update)
    take_steps(other._model, other_optimizer, 1, 2)
    other.save(2)
    shutil.copy(tmp_path / "other" / "update-000002" / name, tmp_path / "run" / "update-000002" / name)
    reporter = ListeningReporter()
    _, _, folder = make(tmp_path / "run", seed=5)
    assert folder.restore(reporter) == 1
    assert "of another state" in reporter.warnings[0]


def test_the_best_mixed_of_two_states_is_an_error(tmp_path):
    model, optimizer, folder = make(tmp_path)
    take_steps(model, optimizer, 0, 1)
    folder.save_best(1)
    first = (tmp_path / "best" / "state.safetensors").read_bytes()
    take_steps(model, optimizer, 1, 2)
    folder.save_best(2)
    assert folder.restore_best() == 2
    (tmp_path / "best" / "state.safetensors").write_bytes(first)
    with pytest.raises(DataError, match=r"state\.safetensors is damaged, or of another state"):
        folder.restore_best()


def without_hash(path):
    facts = read_json(path)
    del facts["sha256"]
    write_json(path, facts)


def test_states_of_earlier_releases_have_no_hash_and_are_read(tmp_path):
    _, _, folder = make(tmp_path)
    folder.save(1)
    folder.save_best(1)
    without_hash(tmp_path / "update-000001" / "state.json")
    without_hash(tmp_path / "best" / "state.json")
    assert folder.restore(SILENT, lambda update: 1, needs_best=True) == 1
    assert folder.restore_best() == 1


def best_run(out, losses, stop=None, **changes):
    """Six updates, evaluated after every second: the best one and its weight, None if stopped before; warnings."""
    out.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    pairs = {"pairs": out, "policy": out, "out": out, "lr": 0.1, "result": "best", "keep_checkpoints": 9}
    loop = TrainLoop(TrainSettings(**pairs | {"checkpoint_every": 2} | changes), model, 6)
    reporter = ListeningReporter()

    def gradient(update):
        if update == stop:
            raise KeyboardInterrupt
        loop.parameters[0].grad = torch.full((1, 1), 1.0 + update)
        return Gradient({"loss": losses[update]}, 1)

    with contextlib.suppress(KeyboardInterrupt):
        loop.run(gradient, reporter, "test", evaluation=PeriodicEvaluation(2))
        return (loop.take_best(), model.weight.item()), reporter.warnings
    return None, reporter.warnings


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "log.jsonl"
    }


FALLING = [6.0, 5.0, 4.0, 3.0, 5.0, 6.0]  # best after 4 of 6


@pytest.mark.parametrize("checkpoint_every", [2, 3, 5], ids=["of-the-best", "before-the-best", "none"])
@pytest.mark.parametrize("stale", [(STATE[0],), (STATE[1],), STATE], ids=["json", "tensors", "both"])
def test_a_run_killed_while_its_best_state_is_uploaded_has_the_same_result(tmp_path, stale, checkpoint_every):
    """Part of ``best``, or all of it, is of the former best while everything else has arrived."""
    whole, _ = best_run(tmp_path / "whole", FALLING, checkpoint_every=checkpoint_every)
    assert whole[0] == 4
    out = tmp_path / "killed"
    best_run(out, FALLING, stop=3, checkpoint_every=checkpoint_every)
    former = {name: (out / "checkpoints" / "best" / name).read_bytes() for name in stale}
    best_run(out, FALLING, stop=5, checkpoint_every=checkpoint_every)
    for name, content in former.items():
        (out / "checkpoints" / "best" / name).write_bytes(content)
    result, _ = best_run(out, FALLING, checkpoint_every=checkpoint_every)
    assert result == whole
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize("checkpoint_every", [2, 5], ids=["of-the-best", "none"])
def test_a_best_state_mixed_at_the_end_is_made_again(tmp_path, checkpoint_every):
    whole, _ = best_run(tmp_path, FALLING, checkpoint_every=checkpoint_every)
    before = files(tmp_path)
    tensors = tmp_path / "checkpoints" / "best" / "state.safetensors"
    tensors.write_bytes((tmp_path / "checkpoints" / "update-000006" / "state.safetensors").read_bytes())
    result, warnings = best_run(tmp_path, FALLING, checkpoint_every=checkpoint_every)
    assert result == whole
    assert ("made again from update-000004" if checkpoint_every == 2 else "Going back") in warnings[0]
    assert files(tmp_path) == before


def test_a_run_that_keeps_its_last_state_does_not_go_back_for_its_best(tmp_path):
    _, _, folder = make(tmp_path)
    folder.save_best(4)
    folder.save(5)
    (tmp_path / "best" / "state.safetensors").write_bytes(b"")
    reporter = ListeningReporter()
    assert folder.restore(reporter, lambda update: 4) == 5
    assert "It was removed" in reporter.warnings[0]
    assert not (tmp_path / "best").exists()


def test_a_checkpoint_whose_metrics_did_not_arrive_is_passed_over(tmp_path):
    best_run(tmp_path / "whole", FALLING)
    out = tmp_path / "killed"
    best_run(out, FALLING, stop=5)
    rows = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(rows[:3]))
    _, warnings = best_run(out, FALLING)
    assert "Metrics of the 4 updates" in warnings[0]
    assert files(out) == files(tmp_path / "whole")
