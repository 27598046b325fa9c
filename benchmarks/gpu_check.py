"""What GRAPE does on a GPU, in at most ten minutes: OpenVLA-7B's shape with random weights, and LIBERO drawn by EGL.

Each part runs in a process of its own with a time limit: what is missing, runs out of memory, crashes or hangs is noted
and ends no other part. Nothing is downloaded and no weights are on the disk. Where the GPU is small, batches and then
the language model's depth shrink, and the record says so.

    make gpu-check                                        # writes docs/results/gpu.json
    make gpu-check PYTHON=/path/to/python                 # with another interpreter, where GRAPE need not be installed
    make gpu-check ARGS="--parts decode update --again"   # measure these again
    python benchmarks/gpu_check.py --tiny --device cpu    # all parts with a tiny network: does this program work?

The record is written after every part. Started again on the same day and machine, with the same sources, it keeps what
was measured and runs the rest. Without a GPU nothing is measured and no record is touched.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measured_on import commit, processor

from grape.core.errors import DataError, GrapeError, SettingsError, require_known
from grape.core.files import read_json_mapping, write_json

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "gpu.json"
WORK = ROOT / "build" / "gpu-check"
BUDGET = 600.0
"""Seconds of one call."""
_PROGRAM = Path(__file__).with_name("gpu_check_parts.py")
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_EGL = {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl"}
_LOOKING = 300.0  # seconds for a first look at the machine
_TRYING = 3600.0  # seconds for a tiny part and for all of them, however busy the machine is
_ENDING = 3.0  # seconds for the end of a process and the record after the last part
_UNCHANGED = "Nothing was measured, and no record was changed."


@dataclass(frozen=True)
class Part:
    """Something that is measured.

    Attributes:
        name: Its name in the record.
        command: What runs it; ``--result FILE`` is added.
        expected: Seconds that must be left for it to start.
        limit: Seconds after which it is ended.
        environment: Variables for it alone.
    """

    name: str
    command: Sequence[str]
    expected: float
    limit: float
    environment: Mapping[str, str] = field(default_factory=dict)


# Name, seconds expected (guesses: nobody has run this on a GPU yet), seconds allowed; the most important first.
_PARTS = (
    ("matrix-rate", 25, 60, {}),
    ("decode", 60, 150, {}),
    ("update", 80, 200, {}),
    ("chunked-decode", 60, 150, {}),
    ("attention-kernels", 20, 60, {}),
    ("egl", 40, 120, _EGL),
    ("flash-attention", 60, 120, {}),
    ("4-bit", 90, 180, {}),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; returns 0, also without a GPU, 1 where a part failed or hung, and 2 for a wrong call."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="", help="cuda (the default), cuda:1, ...; cpu with --tiny")
    parser.add_argument("--tiny", action="store_true", help="a tiny network, to try the program itself")
    parser.add_argument("--parts", nargs="+", metavar="PART", default=[], help="these alone")
    parser.add_argument("--again", action="store_true", help="measure again what the record holds already")
    parser.add_argument("--memory-gb", type=float, default=0.0, help="plan with so much memory instead of what is free")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds, at most 600; --tiny has none")
    parser.add_argument("--out", type=Path, help="the record; docs/results/gpu.json, or with --tiny one in build/")
    options = parser.parse_args(arguments)
    try:
        return check(options, began)
    except GrapeError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gpu-check: interrupted; what was measured is kept, the same command goes on.", file=sys.stderr)
        return 130


def check(options: argparse.Namespace, began: float) -> int:
    """Look at the machine, run what is not measured yet, and say what came of it.

    Raises:
        SettingsError: The options do not fit together, or the interpreter lacks PyTorch.
    """
    device, out = _checked(options)
    command = [sys.executable, str(_PROGRAM)]
    common = ["--device", device, *(["--tiny"] if options.tiny else []), "--memory-gb", str(options.memory_gb)]
    looking = _TRYING if options.tiny else _LOOKING
    seen = run_part(Part("machine", [*command, "machine", *common], 0, looking), looking)
    if seen["state"] != "measured":
        raise SettingsError(f"The machine could not be looked at with {sys.executable}: {seen['reason']}", _install())
    if device != "cpu" and not seen["result"]["gpu"]:
        print(f"gpu-check: there is no GPU here: {_without_gpu(seen['result'])} {_UNCHANGED}")
        return 0
    record = begin_record(options, seen["result"], device, out)
    names = options.parts or [name for name, *_ in _PARTS]
    parts = [
        Part(name, [*command, name, *common], expected, _TRYING if options.tiny else limit, environment)
        for name, expected, limit, environment in _PARTS
        if name in names and (options.again or record["parts"].get(name, {}).get("state") != "measured")
    ]
    run_parts(parts, record, out, began + (_TRYING if options.tiny else options.budget))
    print(json.dumps(record, indent=1, sort_keys=True))
    print(summary(record, out), file=sys.stderr)
    return int(any(record["parts"][part.name]["state"] in ("failed", "crashed", "timed out") for part in parts))


def _checked(options: argparse.Namespace) -> tuple[str, Path]:
    device = options.device or ("cpu" if options.tiny else "cuda")
    for name in options.parts:
        require_known("part", name, [name for name, *_ in _PARTS])
    if device == "cpu" and not options.tiny:
        raise SettingsError(
            "This checks a GPU; on a CPU it runs with --tiny alone.",
            "benchmarks/openvla_7b_shape.py takes one step at the 7 B shape on a CPU.",
        )
    if not 0 < options.budget <= BUDGET:
        raise SettingsError(f"A budget of {options.budget:g} s is not between 0 and {BUDGET:g} s.")
    if options.tiny and options.out and options.out.resolve() == RECORD:
        raise SettingsError(f"{RECORD.name} holds a GPU's figures, not those of --tiny.", "Choose another --out.")
    return device, options.out or (WORK / "tiny.json" if options.tiny else RECORD)


def _without_gpu(machine: Mapping[str, Any]) -> str:
    torch = f"PyTorch {machine['packages'].get('torch', '')}"
    if not machine["cuda"]:
        return f"{torch} is a build for CPUs, which sees none (CONTRIBUTING.md: make install TORCH_INDEX=URL)."
    return f"{torch} sees none; 'nvidia-smi' and 'grape doctor' say more."


def _install() -> str:
    return "make install, or make gpu-check PYTHON=/path/to/a/python with PyTorch, transformers and GRAPE's packages."


def begin_record(options: argparse.Namespace, machine: Mapping[str, Any], device: str, out: Path) -> dict[str, Any]:
    """The record to go on with: today's of this machine, these sources and this size, or a new one."""
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": {**machine, "processor": processor()},
        "device": device,
        "shape": "tiny (not OpenVLA-7B's: these figures only show that the program works)" if options.tiny else "7b",
        "memory_gb": options.memory_gb or None,
    }
    try:
        record = read_json_mapping(out) if out.exists() else {}
    except DataError:  # a damaged record is measured again
        record = {}
    if any(record.get(name) != value for name, value in facts.items()) or not isinstance(record.get("parts"), dict):
        record = {"parts": {}}
    return {**record, **facts}


def run_parts(parts: Sequence[Part], record: dict[str, Any], out: Path, deadline: float) -> None:
    """Run parts one after the other, and write the record after each.

    A record in which nothing is measured yet does not replace one that holds figures.

    Args:
        parts: What to run.
        record: Filled in place.
        out: Where it is written.
        deadline: Of the monotonic clock; what cannot end before it is left out.
    """
    for part in parts:
        left = deadline - time.monotonic() - _ENDING
        if left < part.expected:
            reason = f"{max(0.0, left):.0f} s are left, it takes about {part.expected:g} s"
            record["parts"][part.name] = {"state": "left out", "reason": reason}
        else:
            print(f"{part.name} ...", file=sys.stderr, flush=True)
            record["parts"][part.name] = run_part(part, min(part.limit, left))
        _add_shares(record["parts"])
        state = record["parts"][part.name]
        print(f"{part.name}: {state['state']} {state.get('reason', '')}".rstrip(), file=sys.stderr, flush=True)
        if _measured(record) or not (out.exists() and _holds_figures(out)):
            write_json(out, record)


def run_part(part: Part, limit: float) -> dict[str, Any]:
    """Run a part in a process of its own; returns its state with a result or the reason why there is none."""
    WORK.mkdir(parents=True, exist_ok=True)
    result, log = WORK / f"{part.name}.{os.getpid()}.json", WORK / f"{part.name}.log"
    result.unlink(missing_ok=True)
    environment = {**os.environ, **_OFFLINE, **part.environment}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*part.command, "--result", str(result)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # so that what it starts ends with it
        )
        timed_out = False
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    seconds = {"wall_seconds": round(time.monotonic() - began, 1)}
    try:
        if result.exists():
            return {**read_json_mapping(result), **seconds}
    finally:
        result.unlink(missing_ok=True)
    if timed_out:
        return {"state": "timed out", "reason": f"ended after {limit:.0f} s", **seconds}
    code = process.returncode
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return {"state": "crashed", "reason": f"{how}; {_last_line(log)}", **seconds}


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it printed nothing")


def _add_shares(parts: Mapping[str, Any]) -> None:
    """Put beside each rate which share of the device's matrix rate it is."""
    whole = parts.get("matrix-rate", {}).get("result", {}).get("tflop_per_second")

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            if "tflop_per_second" in value and whole:
                value["share_of_matrix_rate"] = round(value["tflop_per_second"] / whole, 4)
            for inner in value.values():
                visit(inner)

    for name, part in parts.items():
        if name != "matrix-rate":
            visit(part.get("result", {}))


def _measured(record: Mapping[str, Any]) -> bool:
    return any(part.get("state") == "measured" for part in record["parts"].values())


def _holds_figures(path: Path) -> bool:
    try:
        record = read_json_mapping(path)
    except DataError:
        return False
    parts = record.get("parts")
    return isinstance(parts, dict) and _measured(record)


def summary(record: Mapping[str, Any], out: Path) -> str:
    """One line a part, for people."""
    lines = [f"{record['machine']['gpu'] or 'CPU'}, shape {record['shape']}; record: {out}"]
    lines += [
        f"  {name:18} {part['state']:10} {part.get('reason', '')}".rstrip() for name, part in record["parts"].items()
    ]
    return "\n".join([*lines, f"  output of the parts: {WORK}"])


if __name__ == "__main__":
    sys.exit(main())
