"""``grape doctor`` in hostile surroundings: variables, a driver's tool, asset folders, packages on the path."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.baseline import MAKERS
from tests.hostile.cases import EVERY, Case, check
from tests.hostile.documents import ESCAPES
from tests.hostile.hostile_files import SPECIAL, replace

DOCTOR = "PYTHONPATH=stub doctor --no-frame --timeout 20"
TORCH = (
    "__version__ = '2'\nclass version:\n    cuda = None\nclass cuda:\n    is_available = staticmethod(lambda: False)\n"
)
"""A stand-in, so that the question to torch takes milliseconds."""


def _make_surroundings(path: Path) -> None:
    path.mkdir()
    (path / "torch.py").write_text(TORCH, encoding="utf-8")


MAKERS["stub"] = _make_surroundings

VARIABLES = [
    "MS_ASSET_DIR=pipe", "MS_ASSET_DIR=/dev/zero", f"MS_ASSET_DIR={'x' * 5000}", f"MS_ASSET_DIR='{ESCAPES}'",
    "MS_ASSET_DIR=\udcff", "MS_ASSET_DIR=loop", "MS_ASSET_DIR=~nobody", "HOME=''", f"HOME={'x' * 5000}", "HOME=pipe",
    "HOME=\udcff", "TMPDIR=pipe", f"TMPDIR={'x' * 5000}", "MUJOCO_GL=osmesa", "MUJOCO_GL=egl",
    f"MUJOCO_GL='{ESCAPES}'", "MUJOCO_GL=\udcff", f"MUJOCO_GL={'x' * 5000}", "DISPLAY=\udcff MUJOCO_GL=glfw",
    "RANK=x WORLD_SIZE=y", f"RANK=0 WORLD_SIZE={'9' * 5000} MASTER_ADDR=x", "RANK=1 WORLD_SIZE=2 MASTER_ADDR=x",
    "COLUMNS=0", "COLUMNS=-5", "COLUMNS=x", f"COLUMNS={'9' * 400}", "COLUMNS=1000000000", "LINES=x", "TERM=\x1b[31m",
    "LC_ALL=nowhere", "LANG=\udcff", "LIBERO_CONFIG_PATH=pipe", "LIBERO_CONFIG_PATH=~nobody", "HF_HOME=pipe",
    "PYTHONHOME=/dev/null", "PYTHONPATH=pipe", "PYTHONSTARTUP=pipe", "PYTHONWARNINGS=\x1b[31m",
    "LD_LIBRARY_PATH=pipe", "LD_PRELOAD=/dev/null", "PATH=''", "PATH=/dev/zero", f"PATH={'x:' * 5000}",
    "XDG_CACHE_HOME=pipe",
]  # fmt: skip
FLAGS = [
    "--folder pipe", "--folder /dev/zero", f"--folder {'x' * 5000}", "--folder loop", "--folder a\0b", "--folder /proc",
    "--timeout nan", "--timeout inf", "--timeout 1e308", "--timeout 1e-300", "--timeout -1", f"--timeout {'9' * 5000}",
    "--suite ,", f"--suite '{ESCAPES}'", f"--suite {'x' * 5000}", f"--suite {'toy,' * 2000}", "--json --folder pipe",
]  # fmt: skip
TOOLS = {
    "bytes that are no UTF-8": "printf '\\377\\376 GPU\\n'",
    "escapes": "printf '\\033[31m\\033]0;x\\007 GPU, 1 MiB\\n'",
    "a hundred thousand cards": "yes 'GPU, 1 MiB' | head -100000",
    "endless output": "exec yes",
    "no end": "exec sleep 1000",
    "a child that stays": "sleep 1000 & echo GPU; exit 0",
    "a crash": "kill -SEGV $$",
}
MODULES = {
    "that prints escapes": TORCH + "print('\\033[31m')\n",
    "that raises escapes": "raise ImportError('\\033[31m\\033]0;x\\007')\n",
    "that exits": "raise SystemExit(3)\n",
    "that prints bytes": TORCH + "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n')\n",
    "that never ends": "while True: pass\n",
    "of an odd version": TORCH.replace("'2'", "['\\033[31m']"),
    "of an odd build": TORCH.replace("cuda = None", "cuda = {'a': [1]}"),
    "of odd devices": TORCH.replace("False)", "True)")
    + "    device_count = staticmethod(lambda: 2)\n    get_device_name = staticmethod(lambda number: [number])\n",
    "that answers in its place": "print('{\"a\": 1}'); raise SystemExit(0)\n",
    "that answers nothing": "raise SystemExit(0)\n",
    "that answers a lone surrogate": 'print(\'{"version": "\\\\ud800"}\'); raise SystemExit(0)\n',
    "that is empty": "",
    "of noise": "\0\xff",
}


def _case(what: str, line: str, spoil: Callable[[Path], object] = lambda path: None) -> Case:
    return Case("stub/torch.py", what, ("stub",), spoil, (tuple(shlex.split(line)),))  # type: ignore[arg-type]


def _tool(script: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        tool = path.with_name("nvidia-smi")
        replace(tool, f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)

    return make


def _special_tool(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        tool = path.with_name("nvidia-smi")
        tool.write_text("#!/bin/sh\n", encoding="utf-8")
        make(tool)
        if os.path.lexists(tool) and not tool.is_symlink():
            tool.chmod(0o755)

    return spoil


WITH_TOOL = DOCTOR.replace("--timeout 20", "--timeout 2").replace("doctor", f"PATH=stub:{os.environ['PATH']} doctor")
CASES = [
    *[_case(ascii(line)[:60], f"{DOCTOR.replace('doctor', f'{line} doctor', 1)}") for line in VARIABLES],
    *[_case(ascii(line)[:60], f"{DOCTOR} {line}") for line in FLAGS],
    *[_case(f"nvidia-smi with {what}", WITH_TOOL, _tool(script)) for what, script in TOOLS.items()],
    *[_case(f"nvidia-smi: {what}", WITH_TOOL, _special_tool(make)) for what, make in SPECIAL.items()],
    *[
        _case(f"torch {what}", DOCTOR.replace("20", "3"), lambda path, text=text: replace(path, text))  # type: ignore[misc]
        for what, text in MODULES.items()
    ],
]


@pytest.mark.parametrize("case", CASES[:: 1 if EVERY == 1 else 6], ids=str)
def test_the_surroundings(case, baseline, driver, place):
    os.mkfifo(place / "work" / "pipe")
    (place / "work" / "loop").symlink_to("loop")
    check(case, baseline, driver, place)
