"""Results of an evaluation, and the file that holds them.

``results.json`` holds every episode's outcome and the figures computed from them. The reader
recomputes the figures from the episodes and refuses a file whose figures differ.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import DataError
from grape.core.files import read_json, read_json_mapping, write_json
from grape.core.reading import decode, record
from grape.core.remote.mirror_names import with_addresses
from grape.core.trajectories import EpisodeMeta
from grape.evaluation.outcomes import EpisodeOutcome, Share, figures_of, outcome_of
from grape.evaluation.statistics import Interval

__all__ = [
    "RESULTS_NAME",
    "EpisodeOutcome",
    "EvaluationResults",
    "TaskResults",
    "read_results",
    "results_path",
    "write_results",
]

FORMAT = 1
RESULTS_NAME = "results.json"

_HINT = "Evaluate again."


@record
@dataclass(frozen=True, kw_only=True)
class TaskResults:
    """Figures of one task.

    Attributes:
        success_rate: Successes over episodes, in [0, 1].
        interval: 95 % Wilson interval of the success rate, for the effective number of episodes where several share
            an initial state.
        episodes: Number of episodes.
        successes: Number of solved ones.
        mean_steps: Mean control steps an episode, failures included.
        measures: Shares of episodes in which further facts held, by name, e.g. ``"grasp_ever"``.
        instruction: What the policy was told.
        max_steps: Decisions after which an episode ended without success; 0 where older results do not say.
    """

    success_rate: float
    interval: Interval
    episodes: int
    successes: int
    mean_steps: float
    measures: Mapping[str, Share] = field(default_factory=dict)
    instruction: str
    max_steps: int = 0


@record
@dataclass(frozen=True)
class EvaluationResults:
    """Figures of one policy on fixed initial states.

    Attributes:
        suite: Registered name of the suite.
        policy: ``"expert"`` or the checkpoint folder as it was given.
        policy_hash: Hash of the policy's weights and configuration; empty for experts.
        temperature: Sampling temperature; 0 for greedy decoding and for experts.
        seed: Seed of the evaluation.
        success_rate: Successes over episodes of all tasks, in [0, 1].
        interval: 95 % Wilson interval of the success rate (see :class:`TaskResults`); it is about fresh initial
            states of these tasks, not of other tasks.
        episodes: Number of episodes.
        successes: Number of solved ones.
        mean_steps: Mean control steps an episode, failures included.
        tasks: Figures by task name, in the order of names.
        per_episode: Every episode, ordered by task name, initial state and sample.
        versions: Versions of what shapes physics and images.
        measures: Shares of episodes in which further facts held, by name; empty where none was measured.
        protocol: Published protocol that was followed; empty for none.
        until: When an episode ended: ``"success"`` or ``"last-step"``, see
            :class:`~grape.core.trajectories.EpisodeMeta`.
        operators: Styles of the scripted expert, e.g. ``"clean"``; empty for a policy and where older results do not
            say.
        computation: Device, number type and attention of the policy, e.g. ``"cpu float32, sdpa"``; empty for experts
            and where older results do not say.
        execute: Actions of a policy's chunk that were executed before it looked again; 0 for all.
    """

    suite: str
    policy: str
    policy_hash: str
    temperature: float
    seed: int
    success_rate: float
    interval: Interval
    episodes: int
    successes: int
    mean_steps: float
    tasks: Mapping[str, TaskResults]
    per_episode: tuple[EpisodeOutcome, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, Share] = field(default_factory=dict)
    protocol: str = ""
    until: str = "success"
    operators: str = ""
    computation: str = ""
    execute: int = 0

    @classmethod
    def from_outcomes(
        cls,
        outcomes: Iterable[EpisodeOutcome],
        instructions: Mapping[str, str],
        *,
        suite: str,
        policy: str,
        policy_hash: str,
        temperature: float,
        seed: int,
        versions: Mapping[str, str],
        protocol: str = "",
        until: str = "success",
        limits: Mapping[str, int] | None = None,
        operators: str = "",
        computation: str = "",
        execute: int = 0,
    ) -> "EvaluationResults":
        """Compute all figures from the episodes.

        Args:
            outcomes: The episodes, in any order.
            instructions: Instruction of each task, by task name.
            suite: Registered name of the suite.
            policy: ``"expert"`` or the checkpoint folder.
            policy_hash: Hash of the policy; empty for experts.
            temperature: Sampling temperature.
            seed: Seed of the evaluation.
            versions: Versions of what shapes physics and images.
            protocol: Published protocol that was followed; empty for none.
            until: When an episode ended.
            limits: Most control steps of an episode, by task name, where they are known.
            operators: Styles of the scripted expert; empty for a policy.
            computation: Device, number type and attention of the policy; empty for experts.
            execute: Actions of a chunk that were executed; 0 for all.

        Raises:
            DataError: There are no episodes, one occurs twice, or not all were measured alike.
        """
        ordered = tuple(sorted(outcomes, key=lambda outcome: outcome.key))
        if not ordered:
            raise DataError("There are no episodes to evaluate.", "Check --tasks and --initial-states.")
        for first, second in itertools.pairwise(ordered):
            if first.key == second.key:
                raise DataError(
                    f"Task {first.task}, initial state {first.initial_state}, sample {first.sample} occurs twice.",
                    "Evaluate into a folder of its own.",
                )
        if any(outcome.measures.keys() != ordered[0].measures.keys() for outcome in ordered):
            raise DataError("Not all episodes were measured alike.", "Evaluate into a folder of its own.")
        tasks = {}
        for name in sorted({outcome.task for outcome in ordered}):
            members = [outcome for outcome in ordered if outcome.task == name]
            limit = (limits or {}).get(name, 0)
            tasks[name] = TaskResults(**figures_of(members), instruction=instructions[name], max_steps=limit)
        return cls(
            suite=suite,
            policy=policy,
            policy_hash=policy_hash,
            temperature=temperature,
            seed=seed,
            **figures_of(ordered),
            tasks=tasks,
            per_episode=ordered,
            versions=dict(versions),
            protocol=protocol,
            until=until,
            operators=operators,
            computation=computation,
            execute=execute,
        )

    @classmethod
    def from_episodes(
        cls,
        metas: Sequence[EpisodeMeta],
        *,
        policy: str,
        temperature: float,
        seed: int,
        protocol: str = "",
        measures: Mapping[str, Mapping[str, bool]] | None = None,
        limits: Mapping[str, int] | None = None,
        operators: str = "",
        computation: str = "",
        execute: int = 0,
    ) -> "EvaluationResults":
        """Compute all figures from the facts of recorded episodes.

        Args:
            metas: The episodes of one policy on one suite.
            policy: ``"expert"`` or the checkpoint folder.
            temperature: Sampling temperature.
            seed: Seed of the evaluation.
            protocol: Published protocol that was followed; empty for none.
            measures: Facts that were measured, by episode id; see :func:`grape.evaluation.outcomes.measure`.
            limits: Most control steps of an episode, by task name, where they are known.
            operators: Styles of the scripted expert; empty for a policy.
            computation: Device, number type and attention of the policy; empty for experts.
            execute: Actions of a chunk that were executed; 0 for all.

        Raises:
            DataError: There are no episodes, one occurs twice, or they come from different suites, policies,
                temperatures or versions, or ended by different rules.
        """
        for fact in ("suite", "policy_hash", "temperature", "versions", "until"):
            values = [getattr(meta, fact) for meta in metas]
            different = next((value for value in values if value != values[0]), None)
            if different is not None:
                raise DataError(
                    f"The episodes do not belong together: {fact} is {values[0]!r} in one, {different!r} in another.",
                    "Evaluate each policy into a folder of its own.",
                )
        outcomes = [outcome_of(meta, None if measures is None else measures[meta.episode_id]) for meta in metas]
        return cls.from_outcomes(
            outcomes,
            {meta.task: meta.instruction for meta in metas},
            suite=metas[0].suite if metas else "",
            policy=policy,
            policy_hash=metas[0].policy_hash if metas else "",
            temperature=temperature,
            seed=seed,
            versions=metas[0].versions if metas else {},
            protocol=protocol,
            until=metas[0].until if metas else "success",
            limits=limits,
            operators=operators,
            computation=computation,
            execute=execute,
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON value that ``results.json`` holds."""
        data = dataclasses.asdict(self)
        if not self.execute:
            del data["execute"]  # as results were written before there were chunks
        for figures in (data, *data["tasks"].values(), *_measures_in(data)):
            figures["interval"] = list(figures["interval"])
        return {"format": FORMAT, **data, "per_episode": list(data["per_episode"])}


def _measures_in(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every share of a results file."""
    return [share for figures in (data, *data["tasks"].values()) for share in figures["measures"].values()]


def write_results(folder: Path, results: EvaluationResults, name: str = RESULTS_NAME) -> Path:
    """Write ``folder/results.json``, or a file of another name there, atomically and return its path."""
    path = folder / name
    write_json(path, with_addresses(results.to_json()))
    return path


def results_path(path: Path) -> Path:
    """The results file that a folder or the file itself stands for.

    Raises:
        DataError: There is none.
    """
    if path.is_file():
        return path
    if (path / RESULTS_NAME).is_file():
        return path / RESULTS_NAME
    if not path.exists():
        raise DataError(f"{path} does not exist.", "Give the --out folder of 'grape evaluate'.")
    if (path / "run.json").is_file() and read_json_mapping(path / "run.json", within=path).get("verb") == "evaluate":
        raise DataError(
            f"The evaluation in {path} is not complete.", "Run the same 'grape evaluate' command again: it resumes."
        )
    raise DataError(f"{path} holds no {RESULTS_NAME}.", "Give the --out folder of 'grape evaluate'.")


def read_results(path: Path) -> EvaluationResults:
    """Read the results of an evaluation, strictly.

    Args:
        path: Output folder of ``grape evaluate``, or its ``results.json``.

    Raises:
        DataError: There are no results, a field is missing, unknown or of the wrong type, or the figures do not
            follow from the episodes.
    """
    file = results_path(path)
    data = read_json(file, hint=_HINT, within=None if file == path else path)
    number = data.pop("format", None) if isinstance(data, dict) else FORMAT
    if number != FORMAT or isinstance(number, bool):
        raise DataError(f"{file} has format {number!r:.60}; this version reads {FORMAT}.", _HINT)
    stored = decode(EvaluationResults, data, str(file), _HINT)
    if set(stored.tasks) != {outcome.task for outcome in stored.per_episode}:
        raise DataError(f"{file}: 'tasks' and 'per_episode' name different tasks.", _HINT)
    for place, outcome in enumerate(stored.per_episode):
        for name in ("initial_state", "sample", "steps"):
            value = getattr(outcome, name)
            if not 0 <= value < 2**31:
                raise DataError(
                    f"{file}, per_episode[{place}]: '{name}' is {value}, not a number from 0 to {2**31 - 1}.", _HINT
                )
    results = EvaluationResults.from_outcomes(
        stored.per_episode,
        {name: task.instruction for name, task in stored.tasks.items()},
        suite=stored.suite,
        policy=stored.policy,
        policy_hash=stored.policy_hash,
        temperature=stored.temperature,
        seed=stored.seed,
        versions=stored.versions,
        protocol=stored.protocol,
        until=stored.until,
        limits={name: task.max_steps for name, task in stored.tasks.items()},
        operators=stored.operators,
        computation=stored.computation,
        execute=stored.execute,
    )
    _check_figures(stored.to_json(), results.to_json(), file)
    return results


def _check_figures(stated: Mapping[str, Any], recomputed: Mapping[str, Any], file: Path) -> None:
    """Compare the figures in the file with those computed from its episodes."""
    pairs = [("", stated, recomputed)] + [
        (f"task {name}: ", stated["tasks"][name], recomputed["tasks"][name]) for name in recomputed["tasks"]
    ]
    for where, stored, computed in pairs:
        for key in ("episodes", "successes", "success_rate", "mean_steps", "interval", "measures"):
            if not _close(stored[key], computed[key]):
                raise DataError(
                    f"{file} disagrees with itself: {where}{key} is {stored[key]!r}, its episodes give "
                    f"{computed[key]!r}.",
                    "The file was changed by hand or truncated. Delete the folder and evaluate again.",
                )


def _close(stored: Any, computed: Any) -> bool:
    if isinstance(computed, dict):
        return stored.keys() == computed.keys() and all(_close(stored[key], computed[key]) for key in computed)
    if isinstance(computed, list):
        return all(_close(a, b) for a, b in zip(stored, computed, strict=True))
    return math.isclose(stored, computed, rel_tol=1e-9, abs_tol=1e-9)
