"""Content of a report, read from a run's folder.

A file that is missing or truncated costs its own part of the page: it is named under "what is missing" and the rest is
shown. Only a folder in which nothing can be recognized is an error.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import DataError, GrapeError, SettingsError
from grape.core.files import read_json
from grape.core.preferences import PreferencePair, Score
from grape.core.reading import read_file
from grape.core.runs import read_run_settings
from grape.evaluation import EvaluationResults
from grape.preferences import ScoreFile, open_scores, recorded_stores
from grape.report.best_effort import BestEffortReader
from grape.report.curves import Training
from grape.report.folders import Folder, Round, find_folders, group_rounds, is_demonstrations, natural, round_label
from grape.store import EpisodeStore

__all__ = ["Arm", "Evaluated", "RoundContents", "RunContents", "read_contents"]


@dataclass(frozen=True)
class Evaluated:
    """A policy and its evaluation.

    Attributes:
        label: The policy's name for people.
        name: Folder of the evaluation within the run.
        results: Its results, or None where they are not there.
        accepted: Whether the gate let it pass; None where there was no gate.
        verdict: The gate's sentence, or empty.
    """

    label: str
    name: str
    results: EvaluationResults | None
    accepted: bool | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Arm:
    """Successive policies of one method."""

    label: str
    policies: tuple[Evaluated, ...]


@dataclass(frozen=True)
class RoundContents:
    """Results of one iteration.

    Attributes:
        round: Its folders.
        store: Its episodes, or None.
        score_file: Its scores, or None.
        pairs: Its pairs.
        training: Its metrics, or None.
        agreement: How its scorers and judges agree, or None without any.
    """

    round: Round
    store: EpisodeStore | None
    score_file: ScoreFile | None
    pairs: tuple[PreferencePair, ...]
    training: Training | None
    agreement: Mapping[str, Any] | None

    @property
    def scores(self) -> Mapping[str, Score]:
        """Scores by episode, without their stages."""
        return {} if self.score_file is None else self.score_file.brief


@dataclass(frozen=True)
class RunContents:
    """A run as far as it got.

    Attributes:
        path: The run's folder.
        title: Its title, or empty.
        suite: Suite of tasks, or empty.
        tasks: Task names.
        seed: Seed of the run, or None.
        arms: Evaluated policies in order; the first arm is the run's own.
        before: First policy on the test states, or None.
        after: Last policy on the test states, or None.
        rounds: The iterations.
        demonstrations: Store of demonstrations, or None.
        sft: Metrics of supervised fine-tuning, or None.
        settings: Name and text of each settings file.
        versions: Versions of what made the run.
        commands: Commands that made the run.
        gate_stopped: Why the loop stopped early, or empty.
        missing: What is not there or cannot be read, one sentence each.
    """

    path: Path
    title: str
    suite: str
    tasks: tuple[str, ...]
    seed: int | None
    arms: tuple[Arm, ...]
    before: Evaluated | None
    after: Evaluated | None
    rounds: tuple[RoundContents, ...]
    demonstrations: EpisodeStore | None
    sft: Training | None
    settings: tuple[tuple[str, str], ...]
    versions: Mapping[str, str]
    commands: tuple[str, ...]
    gate_stopped: str
    missing: tuple[str, ...]

    @property
    def is_loop(self) -> bool:
        """Whether a loop wrote the folder, which alone says in what order its policies were made."""
        return (self.path / "loop.json").is_file() or (self.path / "iteration-1").is_dir()


def read_contents(root: Path) -> RunContents:
    """Read a run.

    Args:
        root: Output folder of ``grape loop`` or any folder with folders of verbs inside.

    Raises:
        SettingsError: The folder does not exist.
        DataError: Nothing in it can be recognized.
    """
    if not root.is_dir():
        raise SettingsError(
            f"Run folder {root} does not exist.",
            "Give a folder that holds what verbs wrote, e.g. the --out folder of 'grape loop'.",
        )
    folders = find_folders(root)
    reader = BestEffortReader()
    loop = _loop_facts(root, reader)
    if not folders and not loop:
        raise DataError(
            f"{root} holds nothing that a report could show.",
            "Give a folder that holds output of grape loop, collect, score, pair, train or evaluate.",
        )
    settings = _settings_of(root, folders)
    beside = {str(arm.get("folder")) for arm in _mappings(loop.get("arms"))}
    own = tuple(folder for folder in folders if folder.name.partition("/")[0] not in beside)
    rounds = tuple(_read_round(group, root, reader) for group in group_rounds(own))
    arms = _read_arms(root, folders, loop, reader)
    before, after = _test_policies(root, loop, arms, reader)
    paired = {item.round.collect.path for item in rounds if item.round.collect is not None}
    demonstrations = next(
        (f for f in folders if f.verb == "collect" and f.path not in paired and is_demonstrations(f)), None
    )
    demo_store = reader.store([] if demonstrations is None else [demonstrations.path / "store"], "demonstrations")
    sft = next((folder for folder in folders if folder.verb == "sft"), None)
    sft_training = reader.training(sft, "SFT")
    for folder in folders:
        if not folder.complete:
            reader.note(f"{folder.name}: 'grape {folder.verb}' was started here and is not complete.")
    for sentence in _not_begun(root, rounds, loop):
        reader.note(sentence)
    stores = [item.store for item in rounds if item.store is not None] + ([demo_store] if demo_store else [])
    results = [item.results for arm in arms for item in arm.policies if item.results is not None]
    return RunContents(
        path=root,
        title=str(loop.get("title") or ""),
        suite=str(loop.get("suite") or next((s.suite for s in stores), next((r.suite for r in results), ""))),
        tasks=_tasks(loop, results, stores),
        seed=seed if isinstance(seed := loop.get("seed", _run_settings(root).get("seed")), int) else None,
        arms=arms,
        before=before,
        after=after,
        rounds=rounds,
        demonstrations=demo_store,
        sft=sft_training,
        settings=settings,
        versions=_versions(loop, results, stores),
        commands=tuple(str(command) for command in loop.get("commands") or ()),
        gate_stopped=next((str(p["stopped"]) for p in _mappings(loop.get("policies")) if p.get("stopped")), ""),
        missing=tuple(reader.missing),
    )


def _loop_facts(root: Path, reader: BestEffortReader) -> Mapping[str, Any]:
    """Contents of ``loop.json``, or an empty mapping."""
    if not (root / "loop.json").is_file():
        return {}
    try:
        data = read_json(root / "loop.json", within=root)
    except GrapeError as error:
        reader.note(error.message)
        return {}
    return data if isinstance(data, dict) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _run_settings(root: Path) -> Mapping[str, Any]:
    """Settings in the run's own folder, or nothing."""
    try:
        data = read_run_settings(root)
    except GrapeError:
        return {}
    return data if isinstance(data, dict) else {}


def _read_round(runs_of_round: Round, root: Path, reader: BestEffortReader) -> RoundContents:
    scores = reader.scores(runs_of_round.score)
    pairs = reader.pairs(runs_of_round.pair)
    if pairs and scores is None and runs_of_round.pair is not None:
        named = Path(str(runs_of_round.pair.settings.get("scores") or "/"))
        # The path may be relative to where the command was run; then the folder is looked for beside the pairs.
        beside = runs_of_round.pair.path.absolute().parent / named.name
        if scores_folder := next((path for path in (named, beside) if (path / "scores.jsonl").is_file()), None):
            try:
                scores = open_scores(scores_folder)
            except GrapeError as error:
                reader.note(f"{runs_of_round.pair.name}: {error.message}")
    known = {} if scores is None else scores.brief
    n_without_scores = sum(1 for pair in pairs if pair.chosen not in known or pair.rejected not in known)
    if n_without_scores:
        reader.note(
            f"{runs_of_round.label}: {n_without_scores} of {len(pairs)} pairs have no scores in this folder "
            "and cannot be shown."
        )
    return RoundContents(
        round=runs_of_round,
        store=reader.store(_store_paths(runs_of_round), runs_of_round.label),
        score_file=scores,
        pairs=pairs,
        training=reader.training(runs_of_round.train, runs_of_round.label),
        agreement=reader.agreement(runs_of_round.score, runs_of_round.label),
    )


def _store_paths(runs_of_round: Round) -> tuple[Path, ...]:
    """Where the round's episodes are: beside the scores, or where scoring or pairing recorded that it read them."""
    recorded: tuple[Path, ...] = ()
    for folder, verb in ((runs_of_round.score, "score"), (runs_of_round.pair, "pair")):
        if folder is not None and folder.product and not recorded:
            with contextlib.suppress(GrapeError):
                recorded = recorded_stores(folder.path, verb)
    if len(recorded) < 2 and runs_of_round.collect is not None and runs_of_round.collect.product:
        return (runs_of_round.collect.path / "store",)
    return recorded


def _read_arms(
    root: Path, folders: Sequence[Folder], loop: Mapping[str, Any], reader: BestEffortReader
) -> tuple[Arm, ...]:
    """Evaluated policies as the loop listed them, else every evaluation in the order of names.

    What is called SFT or ``before`` comes first.
    """
    entries = _mappings(loop.get("policies"))
    if entries:
        arms = [Arm("", _read_policies(root, entries, reader))]
        arms += [
            Arm(str(arm.get("label") or "another arm"), _read_policies(root, _mappings(arm.get("policies")), reader))
            for arm in _mappings(loop.get("arms"))
        ]
        return tuple(arm for arm in arms if arm.policies)
    policies = []

    def place(folder: Folder) -> tuple[bool, tuple[tuple[int, str | int], ...]]:
        name = folder.name.lower()
        return not ("sft" in name or "before" in name), natural(folder.name)

    for folder in sorted(folders, key=place):
        if folder.verb == "evaluate" and folder.product and not folder.name.startswith("test/"):
            policies.append(Evaluated(_evaluation_label(folder), folder.name, reader.results(folder.path, folder.name)))
    return (Arm("", tuple(policies)),) if policies else ()


def _evaluation_label(folder: Folder) -> str:
    parent, _, last = folder.name.rpartition("/")
    if last.lower() == "sft":
        return "SFT"
    if last in ("evaluate", "evaluation"):
        return round_label(parent) if parent else "evaluation"
    return folder.path.resolve().name if folder.name == "." else last


def _read_policies(root: Path, entries: Sequence[Mapping[str, Any]], reader: BestEffortReader) -> tuple[Evaluated, ...]:
    policies = []
    for entry in entries:
        name = str(entry.get("evaluation") or "")
        label = str(entry.get("label") or name)
        accepted = entry.get("accepted")
        policies.append(
            Evaluated(
                label,
                name,
                reader.results(root / name, f"evaluation of {label}") if name else None,
                accepted if isinstance(accepted, bool) else None,
                str(entry.get("verdict") or ""),
            )
        )
    return tuple(policies)


def _test_policies(
    root: Path, loop: Mapping[str, Any], arms: Sequence[Arm], reader: BestEffortReader
) -> tuple[Evaluated | None, Evaluated | None]:
    """First policy and the loop's result on states of their own, as the loop names them."""
    test = loop.get("test")
    if not isinstance(test, dict):
        return None, None
    sides = []
    policies = arms[0].policies if arms else ()
    accepted = [policy for policy in policies if policy.accepted is not False]
    labels = [accepted[0].label, accepted[-1].label] if accepted else ["before", "after"]
    if isinstance(named := test.get("labels"), list) and len(named) == 2:
        labels = [str(label) for label in named]
    for key, label in zip(("before", "after"), labels, strict=True):
        name = str(test.get(key) or "")
        sides.append(Evaluated(label, name, reader.results(root / name, f"test of {label}")) if name else None)
    return sides[0], sides[1]


def _settings_of(root: Path, folders: Sequence[Folder]) -> tuple[tuple[str, str], ...]:
    """Text of the run's settings, then of every verb's that the run's own do not already nest."""
    paths = [(".", root)] + [(folder.name, folder.path) for folder in folders if folder.name != "."]
    texts = []
    for name, path in paths:
        try:
            text = read_file(path / "settings.yaml", within=path).decode(errors="replace")
        except GrapeError:
            continue
        texts.append(("the run" if name == "." else name, text))
    return tuple(texts)


def _not_begun(root: Path, rounds: Sequence[RoundContents], loop: Mapping[str, Any]) -> list[str]:
    """Sentences on what a loop, or a set of folders, has not written yet."""
    settings = _run_settings(root)
    iterations = settings.get("iterations")
    missing = []
    if isinstance(iterations, int) and not loop:
        present = {item.round.name for item in rounds}
        for number in range(1, iterations + 1):
            if f"iteration-{number}" not in present:
                missing.append(f"Iteration {number} of {iterations} has not begun.")
        missing.append("The final comparison on test states has not been made: the loop did not finish.")
    for item in rounds:
        runs_of_round = item.round
        parts = (
            ("rollouts", runs_of_round.collect),
            ("scores", runs_of_round.score),
            ("pairs", runs_of_round.pair),
            ("training", runs_of_round.train),
            ("evaluation", runs_of_round.evaluate),
        )
        if any(folder is not None and folder.name == runs_of_round.name for _, folder in parts):
            continue  # a verb's own folder promises no other verb
        absent = [label for label, folder in parts if folder is None]
        trained = runs_of_round.train
        if runs_of_round.pair is None and trained is not None and trained.settings.get("scores"):
            absent.remove("pairs")  # single episodes were learned from
        if absent:
            missing.append(
                f"{runs_of_round.label[:1].upper()}{runs_of_round.label[1:]} has no {' and no '.join(absent)} yet."
            )
    return missing


def _tasks(
    loop: Mapping[str, Any], results: Sequence[EvaluationResults], stores: Sequence[EpisodeStore]
) -> tuple[str, ...]:
    task_names = loop.get("tasks")
    if isinstance(task_names, list) and task_names:
        return tuple(str(task) for task in task_names)
    names = {name for evaluation in results for name in evaluation.tasks}
    return tuple(sorted(names or {meta.task for store in stores for meta in store.metas()}))


def _versions(
    loop: Mapping[str, Any], results: Sequence[EvaluationResults], stores: Sequence[EpisodeStore]
) -> Mapping[str, str]:
    versions: dict[str, str] = {}
    for evaluation in results[:1]:
        versions.update({str(key): str(value) for key, value in evaluation.versions.items()})
    for store in stores[:1]:
        for meta in store.metas()[:1]:
            versions.update({str(key): str(value) for key, value in meta.versions.items()})
    stated = loop.get("versions")
    if isinstance(stated, dict):
        versions.update({str(key): str(value) for key, value in stated.items()})
    return dict(sorted(versions.items()))
