"""Which room may import which, as docs/architecture.md draws it, and where heavy packages may appear."""

import os
import subprocess
import sys

import pytest

from tests.architecture.arrows import ROOT, documented_arrows, imports_of, room_of, rooms_on_disk, sources

ARROWS = documented_arrows((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))

WITHOUT_TORCH = ("core", "store", "costs", "preferences", "evaluation")

LEARNING, SIMULATION = frozenset({"policies", "training", "perception", "vlm"}), frozenset({"envs"})

HEAVY = {
    **dict.fromkeys(("torch", "transformers", "peft", "safetensors", "tokenizers"), LEARNING),
    **dict.fromkeys(("mujoco", "metaworld", "gymnasium", "mani_skill", "sapien"), SIMULATION),
}
"""Packages that only some rooms may import, at any depth."""


def test_table_lists_the_rooms_that_exist():
    assert set(ARROWS) == rooms_on_disk()


def test_table_names_known_rooms_only():
    assert {name for allowed in ARROWS.values() for name in allowed} <= set(ARROWS)


def test_table_has_no_circle():
    # "everything" rooms may look at each other only downwards: order them by removing rooms whose imports are all gone.
    left = {room: set(allowed) - {room} for room, allowed in ARROWS.items()}
    while left:
        free = {room for room, allowed in left.items() if not allowed & set(left)}
        assert free, f"circle among {sorted(left)}"
        left = {room: allowed for room, allowed in left.items() if room not in free}


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_imports_follow_the_arrows(room):
    allowed = ARROWS[room] | {room}
    wrong = [
        str(found)
        for path in sources(room)
        for found in imports_of(path)
        if room_of(found.target) and room_of(found.target) not in allowed
    ]
    assert not wrong, f"{room} may import {sorted(ARROWS[room])} only:\n" + "\n".join(wrong)


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_heavy_packages_stay_in_their_rooms(room):
    wrong = [
        str(found)
        for path in sources(room)
        for found in imports_of(path)
        if room not in HEAVY.get(found.target.split(".")[0], {room})
    ]
    assert not wrong, "\n".join(wrong)


_LOAD_ROOMS = """
import importlib, pkgutil, sys
for room in sys.argv[1:]:
    package = importlib.import_module(f"grape.{room}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
heavy = {"torch", "transformers", "peft", "mujoco", "metaworld", "gymnasium", "mani_skill", "sapien", "av", "jinja2"}
print(" ".join(sorted(heavy & set(sys.modules))))
"""


@pytest.mark.parametrize(
    "rooms",
    [WITHOUT_TORCH, ("envs", "store", "doctor"), ("vlm", "generation"), ("cli",)],
    ids=["core-rooms", "envs-doctor", "generation", "cli"],
)
def test_importing_loads_nothing_heavy(rooms):
    reply = subprocess.run(
        [sys.executable, "-c", _LOAD_ROOMS, *rooms],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert reply.returncode == 0, reply.stderr
    assert reply.stdout.strip() == "", f"importing {rooms} loads {reply.stdout}"
