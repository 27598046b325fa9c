"""``python -m tests.hostile.reading_initial_states FOLDER``: what a LIBERO suite does before it loads a simulator."""

import sys
from collections.abc import Sequence
from pathlib import Path

from grape.cli.main import guarded
from grape.envs.libero.initial_states import read_initial_states


def main(words: Sequence[str]) -> int:
    """Read the initial states of the task ``push`` as a command of grape would; returns the exit status."""

    def read() -> int:
        sys.stdout.write(f"{read_initial_states(Path(words[0]), 'libero_goal', 'push').shape}\n")
        return 0

    return guarded(words, read, whole_process=False)
