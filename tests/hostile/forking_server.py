"""Runs command lines of grape in forked children: imports once, measures each. Started by ``driver.py``, not imported.

One JSON object a line on standard input (``words``, ``folder``, ``seconds``), one on standard output: exit code (None
where the time was up), and by how many bytes the largest process in it outgrew this one.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import re
import resource
import select
import signal
import sys
import traceback
from pathlib import Path

MOST_DATA = 3 * 2**30
"""A request for more memory fails at once instead of exhausting the machine that runs the tests."""
LARGEST_FILE = 2**30
MOST_SECONDS = 60
"""Processor time of one child; SIGXCPU ends it."""
VARIABLE = re.compile("[A-Z_]+=")


def load() -> None:
    """Import what any verb may need, so that children start in milliseconds; computes nothing (that starts threads)."""
    import av
    import peft  # noqa: F401
    import pyarrow.parquet
    import safetensors.torch
    import tokenizers
    import torch
    import transformers

    import grape
    import grape.cli.main

    for module in pkgutil.walk_packages(grape.__path__, "grape."):
        if module.name == "grape.__main__":
            continue
        with contextlib.suppress(ImportError):
            importlib.import_module(module.name)
    del av, pyarrow, safetensors, tokenizers, torch, transformers


def take_variables(words: list[str]) -> list[str]:
    """Set the variables that stand before a command, as in a shell; the other words."""
    count = next((number for number, word in enumerate(words) if not VARIABLE.match(word)), len(words))
    os.environ |= dict(word.split("=", 1) for word in words[:count])
    return words[count:]


def run_child(words: list[str], folder: Path) -> None:
    """Become ``grape WORDS``, or ``python -m MODULE WORDS`` where these begin with ``-m``, in ``folder/work``; never
    returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder / "work")
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder.parent / f"{folder.name}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.environ |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        data = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_DATA, (data + MOST_DATA,) * 2)  # files that are mapped do not count
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS,) * 2)  # however busy the machine is
        words = take_variables(words)
        name, words = (words[1], words[2:]) if words[0] == "-m" else ("grape.cli.main", words)
        code = importlib.import_module(name).main(words)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            sys.stderr.write(stop.code)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def idle_memory() -> int:
    """Bytes of a child that does nothing."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.wait4(pid, 0)[2].ru_maxrss * 1024


def serve() -> None:
    """Answer requests until standard input ends."""
    gc.collect()
    gc.freeze()  # or the children's collector touches, and so copies, every page
    idle = idle_memory()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run_child(request["words"], Path(request["folder"]))
        handle = os.pidfd_open(pid)
        ended = bool(select.select([handle], [], [], request["seconds"])[0])
        os.close(handle)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status) if ended else None
        sys.stdout.write(json.dumps({"code": code, "grown": usage.ru_maxrss * 1024 - idle}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    load()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    serve()
