"""The README's commands for a checkpoint of one's own: they run, in order, with small checkpoints and a small suite."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grape.cli.main import main
from grape.policies.openvla import compute_norm_stats, create_nano, save_policy
from grape.policies.openvla_oft.conventions import PRESETS, Layout
from grape.policies.openvla_oft.nano import create_nano_oft
from grape.policies.openvla_oft.saving import save_oft_policy

ROOT = Path(__file__).resolve().parents[2]
SECTION = re.search(
    r"^## Align your own checkpoint\n(.*?)^## ", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
)
CHOICES = re.findall(r"^    BASE=(\S+) READ=(\S+)$", SECTION[1] if SECTION else "", re.M)
COMMANDS = re.findall(r"^    grape (.*)$", SECTION[1].replace("\\\n", " ") if SECTION else "", re.M)
VERBS = ["evaluate", "collect", "score", "pair", "train", "evaluate", "compare"]
NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")


def nano(folder: Path) -> None:
    """OpenVLA's layout."""
    stats = compute_norm_stats(np.random.default_rng(0).uniform(-1, 1, (32, 7)), NAMES)
    save_policy(create_nano(seed=0, norm_stats=stats, gripper="+1 closes", instructions=[]), folder)


def nano_oft(folder: Path) -> None:
    """OpenVLA-OFT's: chunks of two actions, under the conventions of the README's preset."""
    stats = compute_norm_stats(np.random.default_rng(0).uniform(-1, 1, (32, 7)), NAMES)
    policy = create_nano_oft(
        seed=0,
        norm_stats={"toy": stats},
        gripper="+1 closes",
        layout=Layout(chunk=2, action_dim=7),
        conventions=PRESETS["simplevla-rl"],
    )
    save_oft_policy(policy, folder)


def words(command: str, base: Path, read: str) -> list[str]:
    """The command with a small checkpoint and the toy suite, whose episodes take milliseconds."""
    smaller = {
        "$BASE": str(base),
        "$READ": read,
        "libero_goal": "toy",
        "20-49": "20-21",
        "0-19": "0-3",
        "examples/": f"{ROOT}/examples/",
    }
    for given, instead in smaller.items():
        command = command.replace(given, instead)
    return shlex.split(command)


@pytest.mark.slow
@pytest.mark.parametrize(("choice", "make"), [(0, nano), (1, nano_oft)], ids=["openvla", "openvla-oft"])
def test_from_a_checkpoint_to_a_verdict(
    choice: int,
    make: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert [command.split()[0] for command in COMMANDS] == VERBS
    monkeypatch.chdir(tmp_path)
    make(base := tmp_path / "checkpoint")
    for command in COMMANDS:
        code = main([*words(command, base, CHOICES[choice][1]), "--json"])
        printed = capsys.readouterr()
        assert code == 0, f"grape {command}\n{printed.err}"
    comparison = json.loads(printed.out)
    assert comparison["pairs"] == 6
