"""The check of a GPU, without one: all its parts with a tiny network, and what becomes of parts that go wrong."""

import json
import sys
import time
from pathlib import Path

import pytest

from grape.core.errors import GrapeError, SettingsError

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu_check(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu_check as module

    monkeypatch.setattr(module, "WORK", tmp_path / "work")
    return module


@pytest.fixture
def measures(gpu_check):
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    import gpu_check_measures as module

    return module


@pytest.fixture
def tiny(measures):
    return measures.Place(measures.torch.device("cpu"), tiny=True)


def program(gpu_check, name, code, expected=0.0, limit=600.0):
    """A part that runs some lines of Python; ``write(JSON)`` leaves its outcome."""
    write = "import json, os, sys, time\ndef write(value): json.dump(value, open(sys.argv[2], 'w'))\n"
    return gpu_check.Part(name, [sys.executable, "-c", write + code], expected, limit)


def test_decisions_take_the_counted_operations_and_the_estimated_memory(measures, tiny):
    from torch.utils.flop_counter import FlopCounterMode

    model = measures.build(tiny, 2)
    for kind, tokens in measures._KINDS.items():
        # Fused attention on a CPU has no formula; as the products it consists of, it does.
        with FlopCounterMode(display=False) as counter, measures.sdpa_kernel(measures.SDPBackend.MATH):
            measures.decode_actions(model, measures._inputs(model, 1), tokens, 0.0, None)
        counted, _ = measures.operations(tiny, 2, kind, 1)
        assert counted == pytest.approx(counter.get_total_flops(), rel=0.02), kind
    decided = measures.decode(tiny)
    assert decided["decode_batch_2"]["tflop"] > decided["prefill_batch_2"]["tflop"] > 0
    assert decided["measured_over_estimated"] == pytest.approx(1.0, abs=0.1)
    chunks = measures.chunked_decode(tiny)
    assert chunks["batch_16"]["seconds"]["min"] <= chunks["batch_16"]["seconds"]["median"]
    assert chunks["measured_over_estimated"] == pytest.approx(1.0, abs=0.05)


def test_an_update_takes_the_estimated_memory(measures, tiny):
    updated = measures.update(tiny)
    assert updated["gradient_norm"] > 0
    assert (updated["pairs"], updated["frames"], updated["batch"]) == (2, 8, 2)
    assert updated["measured_over_estimated"] == pytest.approx(1.0, abs=0.1)
    assert updated["frames_per_second"] == pytest.approx(8 / updated["seconds"]["median"], rel=1e-3)


def test_what_a_cpu_lacks_is_said(measures, tiny):
    kernels = measures.attention_kernels(tiny)
    assert kernels["causal math"]["runs"] == 2
    assert "missing" in kernels["causal cudnn_attention"]
    with pytest.raises(SettingsError, match="Flash attention needs a CUDA device"):
        measures.flash_attention(tiny)
    with pytest.raises(SettingsError, match="4-bit weights need a CUDA device"):
        measures.four_bit(tiny)


def test_a_small_device_gets_fewer_rows_and_then_fewer_blocks(measures):
    cpu = measures.torch.device("cpu")

    def size(memory, batch=8):
        place = measures.Place(cpu, tiny=False, memory=memory)
        return measures.fitting(place, batch, lambda layers, rows: 10 * layers + 5 * rows)

    assert size(360).to_json() == {"language_layers": 32, "batch": 8}
    assert (size(345).layers, size(345).batch) == (32, 4)
    assert (size(324).layers, size(324).batch) == (24, 1)
    assert (size(25).layers, size(25).batch, size(25).estimated) == (2, 1, 25)
    assert "32 blocks and 8 at once take" in size(25).to_json()["shrunk"]
    with pytest.raises(GrapeError, match="Not even 2 blocks fit"):
        size(24)


def test_crashes_hangs_and_a_spent_budget_end_no_other_part(gpu_check, tmp_path):
    out = tmp_path / "gpu.json"
    rate = "write({'state': 'measured', 'result': {'x': {'tflop_per_second': %s}}})"
    whole = "write({'state': 'measured', 'result': {'tflop_per_second': 800.0}})"
    earlier = "write({'state': 'measured', 'result': {'earlier': sorted(json.load(open(%r))['parts'])}})"
    parts = [
        program(gpu_check, "matrix-rate", whole),
        program(gpu_check, "abort", "print('out of luck', flush=True)\nos.abort()"),
        program(gpu_check, "exit", "sys.exit(7)"),
        program(gpu_check, "hang", "time.sleep(3600)", limit=0.5),
        program(gpu_check, "long", "write({})", expected=1e6),
        program(gpu_check, "decode", rate % 200.0),
        program(gpu_check, "last", earlier % str(out)),
    ]
    record = {"parts": {}}
    gpu_check.run_parts(parts, record, out, time.monotonic() + 3600)
    states = {name: part["state"] for name, part in record["parts"].items()}
    assert states == {
        "matrix-rate": "measured",
        "abort": "crashed",
        "exit": "crashed",
        "hang": "timed out",
        "long": "left out",
        "decode": "measured",
        "last": "measured",
    }
    assert record["parts"]["abort"]["reason"] == "signal SIGABRT; out of luck"
    assert record["parts"]["exit"]["reason"] == "exit code 7; it printed nothing"
    assert "it takes about 1e+06 s" in record["parts"]["long"]["reason"]
    assert record["parts"]["decode"]["result"]["x"]["share_of_matrix_rate"] == 0.25
    assert "share_of_matrix_rate" not in record["parts"]["matrix-rate"]["result"]
    assert record["parts"]["last"]["result"]["earlier"] == sorted(set(states) - {"last"})
    assert json.loads(out.read_text()) == record
    assert not list((tmp_path / "work").glob("*.json"))


def test_figures_are_not_replaced_by_a_run_that_measures_nothing(gpu_check, tmp_path):
    out = tmp_path / "gpu.json"
    out.write_text('{"parts": {"decode": {"state": "measured"}}}')
    before = out.read_bytes()
    record = {"parts": {}}
    gpu_check.run_parts([program(gpu_check, "decode", "sys.exit(1)")], record, out, time.monotonic() + 3600)
    assert record["parts"]["decode"]["state"] == "crashed"
    assert out.read_bytes() == before


def test_without_a_gpu_it_says_so_and_leaves_the_record(gpu_check, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = tmp_path / "gpu.json"
    out.write_text("{}")
    assert gpu_check.main(["--out", str(out)]) == 0
    assert "there is no GPU here: PyTorch" in capsys.readouterr().out
    assert out.read_text() == "{}"


def test_the_command_measures_a_tiny_network(gpu_check, tmp_path, capsys):
    pytest.importorskip("torch")
    out = tmp_path / "tiny.json"
    assert gpu_check.main(["--tiny", "--device", "cpu", "--parts", "matrix-rate", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["shape"].startswith("tiny (not OpenVLA-7B's")
    assert record["parts"]["matrix-rate"]["result"]["tflop_per_second"] > 0
    assert json.loads(capsys.readouterr().out) == record


def test_the_same_day_goes_on_where_it_stopped(gpu_check, tmp_path, monkeypatch):
    failing, ran = {"decode"}, []

    def run_part(part, limit):
        ran.append(part.name)
        if part.name == "machine":
            return {"state": "measured", "result": {"gpu": "a GPU", "packages": {}}}
        return {"state": "failed", "reason": "bad"} if part.name in failing else {"state": "measured", "result": {}}

    monkeypatch.setattr(gpu_check, "run_part", run_part)
    monkeypatch.setattr(gpu_check, "commit", lambda: "one")
    command = ["--out", str(tmp_path / "gpu.json"), "--parts", "decode", "update"]
    assert gpu_check.main(command) == 1
    failing.clear()
    ran.clear()
    assert gpu_check.main(command) == 0
    assert ran == ["machine", "decode"]
    ran.clear()
    monkeypatch.setattr(gpu_check, "commit", lambda: "two")
    assert gpu_check.main(command) == 0
    assert ran == ["machine", "decode", "update"]


def test_an_exception_becomes_the_record_of_its_part(gpu_check, capsys):
    import gpu_check_parts

    def broken():
        raise ValueError("no such kernel")

    def lacking():
        raise ModuleNotFoundError("No module named 'flash_attn'", name="flash_attn")

    failed = gpu_check_parts.outcome(broken)
    assert (failed["state"], failed["reason"]) == ("failed", "ValueError: no such kernel")
    assert failed["where"][-1].startswith("tests/benchmarks/test_gpu_check.py:")
    assert "no such kernel" in capsys.readouterr().err
    missing = gpu_check_parts.outcome(lacking)
    assert missing == {"state": "missing", "reason": "package flash_attn is not installed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "on a CPU it runs with --tiny alone"),
        (["--tiny", "--out", str(FOLDER.parent / "docs" / "results" / "gpu.json")], "not those of --tiny"),
        (["--parts", "decod"], "decode"),
        (["--budget", "601"], "not between 0 and 600 s"),
    ],
)
def test_wrong_calls_are_refused_before_anything_runs(gpu_check, capsys, arguments, message):
    assert gpu_check.main(arguments) == 2
    assert message in capsys.readouterr().err
