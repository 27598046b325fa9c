"""A small result of a cell, for tests of what reads such results."""

from dataclasses import replace
from typing import Any

from grape.study.cells import Cell, Outcome, Round


def small_cell(**changes: Any) -> Cell:
    round_ = Round(
        iteration=1,
        policy_hash="b" * 8,
        rollouts="c" * 8,
        collected=8,
        collected_success=0.5,
        pairs=3,
        updates=2,
        curve={"update": (1.0, 2.0), "loss": (0.5, None)},
        outcomes=(Outcome(0, 100, 0, 1, 7, None), Outcome(0, 101, 0, 0, 9, 3)),
    )
    cell = Cell(
        settings="a" * 8,
        seed=3,
        arm="tpo",
        suite="toy",
        tasks=("reach-red",),
        merit="success",
        measured_on="test",
        start="d" * 8,
        software={"version": "1", "commit": "e"},
        versions={"toy": "1"},
        rounds=(round_,),
        wall_seconds=1.5,
        cpu_seconds=1.25,
        start_cpu_seconds=9.0,
    )
    return replace(cell, **changes)
