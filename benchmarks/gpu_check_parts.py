"""The parts of `gpu_check.py`: each runs in a process of its own and leaves one JSON file with what became of it.

python benchmarks/gpu_check_parts.py decode --device cuda --result decode.json
"""

import argparse
import functools
import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grape.core.errors import GrapeError, SettingsError
from grape.core.files import write_json

_PACKAGES = ("torch", "transformers", "peft", "flash-attn", "bitsandbytes", "mujoco", "robosuite", "triton")
_ROOT = Path(__file__).resolve().parents[1]
_IMAGES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--memory-gb", type=float, default=0.0)
    parser.add_argument("--result", type=Path, required=True)
    options = parser.parse_args()
    write_json(options.result, outcome(functools.partial(PARTS[options.part], options)))


def outcome(part: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What became of a part: its result, or why there is none.

    `missing` means that this machine lacks what the part needs, `failed` that it went wrong.
    """
    try:
        return {"state": "measured", "result": dict(part())}
    except ModuleNotFoundError as error:
        return {"state": "missing", "reason": f"package {error.name} is not installed"}
    except SettingsError as error:
        return {"state": "missing", "reason": f"{error.message} {error.hint}".strip()}
    except GrapeError as error:
        return {"state": "failed", "reason": f"{error.message} {error.hint}".strip()}
    except Exception as error:  # whatever a driver or library raises is a result of this part, and of no other
        traceback.print_exc()
        frames = traceback.extract_tb(error.__traceback__)[-5:]
        return {
            "state": "failed",
            "reason": f"{type(error).__name__}: {error}"[:1000],
            "where": [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames],
        }


def _short(file: str) -> str:
    """A source file's name without what is this machine's alone."""
    parts = Path(file).parts
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") + 1 :])
    path = Path(file).resolve()
    return str(path.relative_to(_ROOT)) if path.is_relative_to(_ROOT) else path.name


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """The device, and the releases that decide what it computes; ``gpu`` is None where PyTorch sees none."""
    import torch

    facts: dict[str, Any] = {
        "gpu": None,
        "cuda": torch.version.cuda or torch.version.hip,
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }
    identity = [socket.gethostname(), options.device]
    if options.device.startswith("cuda") and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.device(options.device))
        identity.append(str(getattr(properties, "uuid", "")))
        facts |= {
            "gpu": properties.name,
            "gpu_memory_gb": round(properties.total_memory / 1e9, 1),
            "multiprocessors": properties.multi_processor_count,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "bfloat16": torch.cuda.is_bf16_supported(),
            "driver": _driver(),
        }
    return facts | {"machine_id": hashlib.sha256("\n".join(identity).encode()).hexdigest()[:12]}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return lines[0] if lines else "unknown"


def egl(options: argparse.Namespace) -> dict[str, Any]:
    """LIBERO drawn through EGL: what draws, milliseconds an image, and of a control step with its image."""
    import numpy as np

    from grape.envs.registry import get_suite

    facts: dict[str, Any] = {}
    suites = ("libero_spatial_nano",) if options.tiny else ("libero_spatial", "libero_spatial_nano")
    for name in suites:
        suite = get_suite(name)
        facts["versions"] = dict(suite.versions())
        environment = suite.make_environment(suite.tasks[0])
        began = time.perf_counter()
        environment.reset(0)
        created = time.perf_counter() - began
        action = np.zeros(suite.action_space.dim, dtype=np.float32)
        steps, images = [], []
        for _ in range(_IMAGES):
            times = [time.perf_counter()]
            snapshot = environment.step(action)
            times.append(time.perf_counter())
            environment.look(snapshot)
            steps.append(times[1] - times[0])
            images.append(time.perf_counter() - times[1])
        if float(snapshot.image.std()) < 1.0:
            raise GrapeError(f"The image of {name} is empty (all of one color).", "Update the graphics driver.")
        facts[name] = {
            "image": list(snapshot.image.shape),
            "first_reset_seconds": round(created, 2),
            "milliseconds_a_step_with_image": _milliseconds(steps),
            "milliseconds_an_image": _milliseconds(images),
        }
        facts["renderer"] = _renderer()
        environment.close()
    return {"backend": os.environ.get("MUJOCO_GL", ""), **facts}


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"min": round(1000 * ordered[0], 3), "median": round(1000 * ordered[len(ordered) // 2], 3)}


def _renderer() -> str:
    """What OpenGL says draws: the GPU's name, or a program on the processor, e.g. llvmpipe."""
    from OpenGL import GL

    name = GL.glGetString(GL.GL_RENDERER)
    return name.decode() if isinstance(name, bytes) else "unknown"


def _on_network(measure: str, options: argparse.Namespace) -> dict[str, Any]:
    """A part that needs PyTorch and the network; imported here, so that a missing package is this part's result."""
    import gpu_check_measures

    return dict(getattr(gpu_check_measures, measure)(gpu_check_measures.place_of(options)))


PARTS: Mapping[str, Callable[[argparse.Namespace], Mapping[str, Any]]] = {
    "machine": machine,
    "matrix-rate": functools.partial(_on_network, "matrix_rate"),
    "decode": functools.partial(_on_network, "decode"),
    "chunked-decode": functools.partial(_on_network, "chunked_decode"),
    "update": functools.partial(_on_network, "update"),
    "attention-kernels": functools.partial(_on_network, "attention_kernels"),
    "flash-attention": functools.partial(_on_network, "flash_attention"),
    "4-bit": functools.partial(_on_network, "four_bit"),
    "egl": egl,
}

if __name__ == "__main__":
    sys.exit(main())
