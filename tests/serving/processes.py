"""``grape serve`` as a process of its own, whose events a test waits for."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0


def install_numpy_policy(site: Path) -> Path:
    """A folder for PYTHONPATH in which the policy type ``numpy`` of ``numpy_policy.py`` is installed."""
    info = site / "numpy_policy-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy-policy\nVersion: 0.1\n")
    entry = "[grape.policies]\nnumpy = tests.serving.numpy_policy:NumpyPolicyType\n"
    (info / "entry_points.txt").write_text(entry)
    return site


class ServerProcess:
    """A running server; its log lines are collected on a thread.

    Args:
        site: What :func:`install_numpy_policy` gave.
        place: Place of the policy.
        words: Further words of the command line.
        environment: Changes of the environment.
    """

    def __init__(self, site: Path, place: str, *words: str, environment: Mapping[str, str] | None = None) -> None:
        paths = os.pathsep.join([str(site), str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "grape", "serve", "--policy", f"numpy:{place}", "--json", *words]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **(environment or {})},
            cwd=site,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        url = self.wait_for("listening")["url"]
        self.address, self.port = url.removeprefix("ws://"), int(url.rpartition(":")[2])
        self.url, self.patient_url = url, f"{url}?wait={PATIENCE:g}"

    def wait_for(self, event: str, fact: str = "event") -> dict[str, Any]:
        """The first event of a name that has some fact; waits for it."""

        def events() -> list[dict[str, Any]]:
            return [one for one in self.events if one["event"] == event and fact in one]

        with self._news:
            self._news.wait_for(lambda: self._ended or events(), PATIENCE)
            assert events(), f"no {event}: {''.join(self.lines)}"
            return events()[0]

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> dict[str, Any]:
        """End it by Ctrl-C; what it prints on standard output."""
        self.process.send_signal(signal.SIGINT)
        out = self.process.stdout.read()  # type: ignore[union-attr]
        assert self.process.wait(PATIENCE) == 0, "\n".join(self.lines)
        self._reader.join(PATIENCE)
        answer: dict[str, Any] = json.loads(out)
        return answer

    def _read(self) -> None:
        for line in self.process.stderr:  # type: ignore[union-attr]
            with self._news:
                self.lines.append(line)
                if line.startswith("{"):
                    self.events.append(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()
