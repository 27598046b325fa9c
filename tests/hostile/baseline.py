"""The sound inputs that hostile ones are made from: a small run of every verb on the suite ``toy``, made on demand."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.hostile.driver import Driver


class Baseline:
    """Sound files by name of their part; each is made once, with the parts it needs."""

    def __init__(self, driver: Driver, root: Path) -> None:
        self._driver, self._root = driver, root
        for name in ("work", "home", "tmp"):
            (root / name).mkdir(parents=True)

    def part(self, name: str) -> Path:
        """Folder (or file) of a part; made by the function in ``PARTS`` or the commands in ``COMMANDS``."""
        path = self._root / "work" / name
        if not path.exists():
            if name in MAKERS:
                MAKERS[name](path)
            else:
                needs, words = COMMANDS[name]
                for need in needs:
                    self.part(need)
                self.run(*words, "--out", name)
        return path

    def run(self, *words: str) -> None:
        ending = self._driver.run(words, self._root, 300)
        assert ending.code == 0, f"{words}: {ending}"


def copy_part(source: Path, target: Path) -> None:
    """Copy quickly: files are hard links, so a changed one is always a new file (see ``hostile_files.replace``)."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link, symlinks=True)
    else:
        os.link(source, target)


TOY = ("--suite", "toy", "--tasks", "push-block", "--workers", "1")

COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "demos": (
        (),
        ("collect", *TOY, "--policy", "expert", "--initial-states", "0-1", "--operators", "clean:1,sloppy:1"),
    ),
    "sft": (("demos",), ("sft", "--data", "demos/store", "--max-updates", "1", "--batch-size", "8")),
    "rollouts": (
        ("sft",),
        ("collect", *TOY, "--policy", "sft/policy", "--initial-states", "1000-1001", "--samples", "2",
         "--max-steps", "3"),
    ),
    "packed": (("rollouts",), ("merge", "rollouts", "--pack", "8")),
    "scores": (("rollouts",), ("score", "--store", "rollouts/store")),
    "pairs": (("scores",), ("pair", "--scores", "scores", "--no-require-mixed-outcomes")),
    "tpo": (("pairs", "sft"), ("train", "--pairs", "pairs", "--policy", "sft/policy", "--max-updates", "1")),
    "lora": (
        ("pairs", "sft"),
        ("train", "--pairs", "pairs", "--policy", "sft/policy", "--max-updates", "1", "--lora-rank", "2"),
    ),
    "evaluation": ((), ("evaluate", *TOY, "--policy", "expert", "--episodes", "2")),
    "rlds": (("pairs",), ("export", "rlds", "--pairs", "pairs")),
    "loop": (
        (),
        ("loop", "--config", str(Path(__file__).with_name("loop.yaml"))),
    ),
}  # fmt: skip

MAKERS: dict[str, Callable[[Path], None]] = {}
