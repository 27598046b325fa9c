"""Summary of a run: success before and after, with intervals, a verdict and caveats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grape.core.errors import GrapeError
from grape.evaluation import PROTOCOLS, EvaluationResults, Share, compare_results
from grape.evaluation.format import p_text
from grape.report.contents import Evaluated, RunContents
from grape.report.numbers import count_of, percent, points

__all__ = ["Headline", "Rate", "TaskRow", "caveats", "headline_of", "measure_rows", "methods_of", "task_rows"]


@dataclass(frozen=True)
class Rate:
    """A policy's success.

    Attributes:
        label: The policy's name.
        rate: Success rate in [0, 1].
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        successes: Solved episodes.
        episodes: All episodes.
        mean_steps: Mean control steps an episode.
    """

    label: str
    rate: float
    low: float
    high: float
    successes: int
    episodes: int
    mean_steps: float


@dataclass(frozen=True)
class Headline:
    """The page's first statement.

    Attributes:
        before: The first policy, or None where only one was evaluated.
        after: The result: the best policy on the validation states.
        verdict: ``"better"``, ``"worse"``, ``"not distinguishable"``, or empty without a comparison.
        sentence: The verdict in words.
        comparison: Result of ``grape compare`` for the two, or an empty mapping.
        where: On what it was measured.
    """

    before: Rate | None
    after: Rate
    verdict: str
    sentence: str
    comparison: Mapping[str, Any]
    where: str

    @property
    def tone(self) -> str:
        """Class of the verdict's mark."""
        return {"better": "better", "worse": "worse"}.get(self.verdict, "unclear")


@dataclass(frozen=True)
class TaskRow:
    """One task of the table.

    Attributes:
        name: The task.
        instruction: What the policy was told.
        before: First policy, or None.
        after: Last policy.
        comparison: Figures of this task's comparison, or an empty mapping.
    """

    name: str
    instruction: str
    before: Rate | None
    after: Rate
    comparison: Mapping[str, Any]


def _rate(label: str, figures: Any) -> Rate:
    low, high = figures.interval
    return Rate(label, figures.success_rate, low, high, figures.successes, figures.episodes, figures.mean_steps)


def _ends(contents: RunContents) -> tuple[Evaluated | None, Evaluated | None]:
    """First and last policy: on test states where they were made, else on the states of the iterations."""
    if contents.before and contents.after and contents.before.results and contents.after.results:
        return contents.before, contents.after
    policies = [p for p in (contents.arms[0].policies if contents.arms else ()) if p.results is not None]
    if not policies:
        return None, None
    accepted = [policy for policy in policies[1:] if policy.accepted is not False]
    if not accepted:
        return None, policies[0]
    return policies[0], accepted[-1]


def headline_of(contents: RunContents) -> Headline | None:
    """The headline, or None where nothing was evaluated."""
    first, last = _ends(contents)
    if last is None or last.results is None:
        return None
    after = _rate(last.label, last.results)
    where = _where(contents, last)
    if first is None or first.results is None:
        sentence = (
            f"{_capital(last.label)} solves {percent(after.rate)} of {count_of(after.episodes, 'episode')} "
            f"({percent(after.low)} to {percent(after.high)}). There is no second policy to compare it with yet."
        )
        return Headline(None, after, "", sentence, {}, where)
    try:
        comparison = compare_results(first.results, last.results)
    except GrapeError as error:
        return Headline(_rate(first.label, first.results), after, "", f"Not compared: {error.message}", {}, where)
    before = _rate(first.label, first.results)
    verdict = str(comparison["verdict"])
    return Headline(before, after, verdict, _sentence(before, after, comparison, first, last), comparison, where)


def _sentence(before: Rate, after: Rate, comparison: Mapping[str, Any], first: Evaluated, last: Evaluated) -> str:
    if first.name == last.name or "same policy" in " ".join(comparison["warnings"]):
        return (
            f"The result is the first policy ({before.label}): no iteration was accepted, "
            "or none did better on the validation states, so there is nothing to compare."
        )
    low, high = comparison["interval"]
    size = f"{points(comparison['difference'])} points (95 % interval {points(low)} to {points(high)})"
    test = f"{p_text(comparison['p_value'])}, {comparison['test']}"
    if comparison["verdict"] == "better":
        return f"{_capital(after.label)} is better than {before.label} by {size}; {test}."
    if comparison["verdict"] == "worse":
        return f"{_capital(after.label)} is worse than {before.label}: {size}; {test}."
    return f"{_capital(after.label)} is not distinguishable from {before.label} on these episodes: {size}; {test}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _states(results: EvaluationResults) -> int:
    return len({(outcome.task, outcome.initial_state) for outcome in results.per_episode})


def _where(contents: RunContents, last: Evaluated) -> str:
    assert last.results is not None
    results = last.results
    decoding = "greedy decoding" if results.temperature == 0 else f"sampling at temperature {results.temperature:g}"
    if results.protocol:
        decoding += f"; protocol {results.protocol}"
    if results.until == "last-step":
        decoding += "; episodes run to their last step, and success is that of the last state"
    tested = contents.after is not None and last.name == contents.after.name
    kind = "test states, which decided nothing before" if tested else "initial states of the iterations' evaluation"
    tasks = count_of(len(results.tasks), "task")
    return f"{count_of(results.episodes, 'episode')} a policy, {tasks}, {_states(results)} {kind}; {decoding}."


def task_rows(contents: RunContents, headline: Headline | None) -> tuple[TaskRow, ...]:
    """One row a task, for the policies of the headline."""
    first, last = _ends(contents)
    if headline is None or last is None or last.results is None:
        return ()
    rows = []
    for name, figures in last.results.tasks.items():
        before = None
        if headline.before is not None and first is not None and first.results is not None:
            earlier = first.results.tasks.get(name)
            before = None if earlier is None else _rate(first.label, earlier)
        comparison = headline.comparison.get("tasks", {}).get(name, {})
        rows.append(TaskRow(name, figures.instruction, before, _rate(last.label, figures), comparison))
    return tuple(rows)


def measure_rows(contents: RunContents) -> tuple[tuple[str, Mapping[str, Share]], ...]:
    """What was measured of the last policy beside success, by task and over all; empty where nothing was."""
    _, last = _ends(contents)
    if last is None or last.results is None or not last.results.measures:
        return ()
    rows = [(name, figures.measures) for name, figures in last.results.tasks.items()]
    return (*rows, ("All tasks", last.results.measures)) if len(rows) > 1 else tuple(rows)


def caveats(contents: RunContents, headline: Headline | None) -> tuple[str, ...]:
    """Caveats on the figures, computed from the run."""
    texts: list[str] = []
    first, last = _ends(contents)
    if headline is not None and last is not None and last.results is not None:
        texts.append(_interval_caveat(headline))
        if last.results.protocol in PROTOCOLS:
            texts += [f"Protocol {last.results.protocol}: {rule}" for rule in PROTOCOLS[last.results.protocol].rules]
        needed = headline.comparison.get("needed")
        if headline.verdict == "not distinguishable" and needed:
            texts.append(
                f"To find a difference of {100 * needed['difference']:.1f} points with "
                f"{100 * needed['power']:.0f} % power, about {needed['number']} {needed['unit']} would be needed."
            )
        texts.append(_overlap_caveat(contents, [item.results for item in (first, last) if item and item.results]))
        if not contents.is_loop:
            texts.append(
                "The evaluations stand in the order of their folders' names, those called SFT or before first: nothing "
                "here says which policy came of which. 'grape compare A B' compares two that you name."
            )
        elif contents.after is None or last.name != contents.after.name:
            texts.append(
                "Before and after were measured on the states that also chose the policy, because no separate test "
                "was made: the figure of the chosen one is likely too high."
            )
    if contents.arms and any(policy.accepted is not None for policy in contents.arms[0].policies):
        texts.append(
            "The figures by iteration come from the gate's validation states. The gate chose on them, so only a test "
            "on other states measures the final policy."
        )
    texts += _method_caveats(contents)
    trainings = [item.training for item in contents.rounds if item.training is not None]
    texts += [f"Training of {item.label}: {item.alarm}" for item in trainings if item.alarm]
    if contents.seed is not None:
        texts.append(
            f"This is one run with one seed ({contents.seed}). Another seed gives other demonstrations, rollouts and "
            "weights, and can give a different difference; these intervals cover initial states, not training runs."
        )
    texts.extend(str(warning) for warning in headline.comparison.get("warnings", ())) if headline else None
    texts.append(
        "Everything was measured in simulation. Costs follow written specifications: they see only what these name."
    )
    return tuple(sentence for sentence in texts if sentence)


def methods_of(contents: RunContents) -> Mapping[str, Sequence[str]]:
    """Labels of the rounds that each method trained; under ``tpo`` none where nothing was trained."""
    labels: dict[str, list[str]] = {}
    for item in contents.rounds:
        if item.round.train is not None:
            labels.setdefault(str(item.round.train.settings.get("method", "tpo")), []).append(item.round.label)
    return labels or {"tpo": []}


def _method_caveats(contents: RunContents) -> list[str]:
    """What was trained with another loss than the paper's."""
    sentences = {
        "kto": "KTO (arXiv 2402.01306), on single episodes, desirable or not",
        "rloo": "group advantages (RLOO, arXiv 2402.14740), on single episodes",
        "step-dpo": "DPO between single steps, the paper's step-wise baseline",
        "filtered-bc": "filtered behavior cloning, without a preference",
    }
    return [
        f"Trained with {sentences[method]}, not with TPO: {', '.join(labels)}."
        for method, labels in methods_of(contents).items()
        if method in sentences
    ]


def _interval_caveat(headline: Headline) -> str:
    tasks = len(headline.comparison.get("tasks", {}))
    text = (
        f"Each success rate rests on {count_of(headline.after.episodes, 'episode')}; intervals are 95 % Wilson "
        "intervals and speak of fresh initial states of these tasks, not of other tasks."
    )
    if tasks > 1:
        text += " Differences of single tasks rest on fewer episodes still: their p-values are adjusted by Holm."
    return text


def _overlap_caveat(contents: RunContents, results: Sequence[EvaluationResults]) -> str:
    """Whether any evaluated initial state was also collected from; checked, not assumed."""
    tested = {(outcome.task, outcome.initial_state) for evaluation in results for outcome in evaluation.per_episode}
    stores = [item.store for item in contents.rounds if item.store is not None]
    stores += [contents.demonstrations] if contents.demonstrations is not None else []
    if not stores or not tested:
        return ""
    try:
        used = {(meta.task, meta.initial_state) for store in stores for meta in store.metas()}
    except GrapeError:
        return "Whether an evaluated initial state was also used for training could not be checked."
    shared = len(tested & used)
    if shared:
        return (
            f"{shared} of the {len(tested)} evaluated initial states were also used for demonstrations or rollouts: "
            "the success rates are not those of fresh states."
        )
    return (
        f"Checked: none of the {len(tested)} evaluated initial states occurs among the {len(used)} from which "
        "demonstrations and rollouts were recorded."
    )
