"""The stages of a loop: where each one writes and which settings it gets.

All numbers that the loop hands out (seeds, initial states) are functions of the loop's settings and the iteration
alone, so a resumed loop asks for exactly what the killed one asked for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grape.collect.settings import CollectSettings
from grape.core.seeds import derive_seed
from grape.core.selections import parse_numbers
from grape.evaluation import CompareSettings, EvaluateSettings
from grape.loop.settings import LAUNCHER, LoopSettings
from grape.preferences import PairSettings, ScoreSettings
from grape.training.methods import METHOD_SETTINGS
from grape.training.settings import SftSettings, TrainSettings

__all__ = ["Stages", "StatesBlock"]


@dataclass(frozen=True)
class StatesBlock:
    """Initial states of every task that have one use.

    Attributes:
        use: What they are for, in words.
        states: Their indices.
        flags: The flags that move or resize the block.
    """

    use: str
    states: Sequence[int]
    flags: str


_LIKE_COLLECT = (
    "execute", "lanes", "workers", "unnorm_key", "center_crop", "device", "dtype", "attention", "load_in_4bit",
    "preset", "chunk", "convention",
)  # fmt: skip
"""Settings of collection that its evaluations share: the policy must see and compute alike."""


class Stages:
    """Settings of every stage of one loop.

    Args:
        settings: The loop's settings.
    """

    def __init__(self, settings: LoopSettings) -> None:
        self._loop = settings
        self._launcher = {name: getattr(settings, name) for name in LAUNCHER}
        if settings.launcher == "auto" and settings.gpus > 1 and settings.collect.device != "cpu":
            self._launcher["launcher"] = "ray"
        if self.uses_ray and not (settings.replicas or settings.ray_address) and settings.gpus > 1:
            self._launcher["replicas"] = settings.gpus
        self.root = settings.out
        validation, test = settings.first_validation_state, settings.first_test_state
        self.validation_states = range(validation, validation + settings.validation_states)
        self.test_states = range(test, test + settings.test_states)

    @property
    def uses_ray(self) -> bool:
        """Whether Ray plays the episodes."""
        return bool(self._launcher["launcher"] == "ray")

    def blocks(self) -> tuple[StatesBlock, ...]:
        """All initial states that the loop uses, by what they are for; no two blocks may share one.

        Raises:
            SettingsError: The demonstrations' states are not understood.
        """
        loop = self._loop
        collected = loop.iterations * loop.states_per_iteration
        blocks = [
            StatesBlock(
                "collection",
                range(loop.first_state, loop.first_state + collected),
                "--first-state, --states-per-iteration, --iterations",
            ),
            StatesBlock("validation", self.validation_states, "--validation-states, --first-validation-state"),
            StatesBlock("the test", self.test_states, "--test-states, --first-test-state"),
        ]
        if not loop.policy:
            states = parse_numbers(loop.demonstrations.initial_states, "initial states")
            blocks.insert(0, StatesBlock("the demonstrations", states, "--demonstrations.initial-states"))
        return tuple(blocks)

    def demonstrations(self) -> CollectSettings:
        """Demonstrations of the scripted experts."""
        return replace(
            self._loop.demonstrations,
            out=self.root / "demonstrations",
            suite=self._loop.suite,
            tasks=self._loop.tasks,
            policy="expert",
            env_python=self._loop.env_python,
            seed=self._seed("demonstrations"),
            **self._launcher,
        )

    def sft(self) -> SftSettings:
        """Supervised fine-tuning on the demonstrations."""
        return replace(
            self._loop.sft,
            data=(self.root / "demonstrations" / "store",),
            out=self.root / "sft",
            seed=self._seed("sft"),
            gpus=self._loop.gpus,
        )

    def collect(self, iteration: int, policy: Path) -> CollectSettings:
        """Rollouts of the current policy from initial states that no earlier iteration used."""
        first = self._loop.first_state + (iteration - 1) * self._loop.states_per_iteration
        return replace(
            self._loop.collect,
            out=self.folder(iteration) / "collect",
            suite=self._loop.suite,
            tasks=self._loop.tasks,
            policy=str(policy),
            env_python=self._loop.env_python,
            initial_states=f"{first}-{first + self._loop.states_per_iteration - 1}",
            seed=self._seed("collect", iteration),
            **self._launcher,
        )

    def score(self, iteration: int) -> ScoreSettings:
        """Scores of the iteration's rollouts."""
        return replace(
            self._loop.score,
            store=self.folder(iteration) / "collect" / "store",
            out=self.folder(iteration) / "score",
            **self._scoring(),
        )

    def _scoring(self) -> dict[str, Any]:
        """Processes that share the episodes to score: those of the rollouts, as far as they can read the store."""
        workers = self._loop.score.workers if self._loop.score.workers > 1 else self._loop.collect.workers
        if not self.uses_ray:
            return {"launcher": "local", "ray_address": "", "workers": workers}
        if self._loop.worker_resource:  # nodes that only simulate need not have the loop's folder
            return {"launcher": "local", "ray_address": "", "workers": 0}
        if self._loop.score.workers <= 1:  # each reserves a whole CPU, simulators may have taken less
            workers = math.ceil(workers * min(1.0, self._loop.worker_cpus))
        return {"launcher": "ray", "ray_address": self._loop.ray_address, "workers": workers}

    def pair(self, iteration: int) -> PairSettings:
        """Pairs from the iteration's scores."""
        return replace(
            self._loop.pair,
            scores=self.folder(iteration) / "score",
            out=self.folder(iteration) / "pair",
            seed=self._seed("pair", iteration),
        )

    def train(self, iteration: int, policy: Path) -> TrainSettings:
        """Training from the policy that collected, on pairs or, for unpaired methods, on scored episodes."""
        kind = "score" if self._loop.train.unpaired else "pair"
        data = self.folder(iteration) / kind
        earlier = range(max(1, iteration - self._loop.replay), iteration)
        return replace(
            self._loop.train,
            pairs=None if kind == "score" else data,
            scores=data if kind == "score" else None,
            replay=tuple(self.folder(number) / kind for number in earlier),
            policy=policy,
            out=self.folder(iteration) / "train",
            seed=self._seed("train", iteration),
            gpus=self._loop.gpus,
        )

    @property
    def filtered_bc_folder(self) -> Path:
        """Folder of filtered BC on the first iteration's rollouts."""
        return self.root / "cloning"

    def filtered_bc_pair(self) -> PairSettings:
        """The first iteration's pairs and those of initial states where all succeeded: they serve filtered BC, too."""
        return replace(self.pair(1), out=self.filtered_bc_folder / "pair", require_mixed_outcomes=False)

    def filtered_bc_train(self, policy: Path) -> TrainSettings:
        """The first iteration's training, but imitating the chosen sides that succeeded.

        Settings of the loop's own method that have no meaning here, e.g. beta, have their defaults.
        """
        own = self.train(1, policy)
        return replace(
            own,
            pairs=self.filtered_bc_folder / "pair",
            scores=None,
            out=self.filtered_bc_folder / "train",
            method="filtered-bc",
            **{name: default for name, default, methods in METHOD_SETTINGS if "filtered-bc" not in methods},
        )

    def validate(self, policy: Path, out: Path) -> EvaluateSettings:
        """Evaluation on the gate's states."""
        return self._evaluate(policy, out, self.validation_states)

    def test(self, policy: Path, out: Path) -> EvaluateSettings:
        """Evaluation on the states of the headline."""
        return self._evaluate(policy, out, self.test_states)

    def compare(self, before: Path, after: Path, out: Path) -> CompareSettings:
        """Paired comparison of two evaluations."""
        return CompareSettings(a=before, b=after, out=out)

    def folder(self, iteration: int) -> Path:
        """Folder of an iteration, counted from 1."""
        return self.root / f"iteration-{iteration}"

    def _evaluate(self, policy: Path, out: Path, states: range) -> EvaluateSettings:
        return EvaluateSettings(
            policy=str(policy),
            out=out,
            suite=self._loop.suite,
            tasks=self._loop.tasks,
            env_python=self._loop.env_python,
            initial_states=f"{states[0]}-{states[-1]}",
            samples=self._loop.evaluation_samples,
            temperature=self._loop.evaluation_temperature,
            **self._launcher,
            **{name: getattr(self._loop.collect, name) for name in _LIKE_COLLECT},
        )

    def _seed(self, *parts: int | str) -> int:
        return derive_seed(self._loop.seed, "loop", *parts) % 2**31
