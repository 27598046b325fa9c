"""Filling the page's template: every text from a file passes the template's escaping."""

import base64
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from types import ModuleType
from typing import Any

import grape
from grape.core.errors import GrapeError, printable
from grape.core.packages import load_package
from grape.evaluation.format import p_text
from grape.report import numbers
from grape.report.charts import Chart, Point, success_chart
from grape.report.contents import Arm, RoundContents, RunContents
from grape.report.curves import preference_charts, sft_charts
from grape.report.gallery import PairView
from grape.report.headline import caveats, headline_of, measure_rows, methods_of, task_rows
from grape.report.timelines import TERM_NAMES

__all__ = ["SuccessCharts", "load_jinja", "render_page", "render_template"]


@dataclass(frozen=True)
class SuccessCharts:
    """The success chart for wide and for narrow screens."""

    wide: Chart
    narrow: Chart


def load_jinja() -> ModuleType:
    """Jinja, which fills the template.

    Raises:
        SettingsError: It is not installed.
    """
    return load_package("jinja2", "The report needs Jinja", "report")


def render_page(contents: RunContents, pairs: Sequence[PairView], pairs_total: int, title: str) -> str:
    """The whole page as HTML.

    Args:
        contents: The run.
        pairs: The gallery.
        pairs_total: How many pairs the run made.
        title: Heading; empty takes the run's title or folder name.
    """
    headline = headline_of(contents)
    tasks = task_rows(contents, headline)
    success = _success_charts(contents.arms)
    tpo = preference_charts([item.training for item in contents.rounds if item.training is not None])
    sft = sft_charts(contents.sft) if contents.sft is not None else ()
    data = [_data_row(item) for item in contents.rounds if item.store is not None or item.pairs]
    agreements = [(item.round.label, item.agreement) for item in contents.rounds if item.agreement is not None]
    methods = methods_of(contents)
    sections = [
        ("success", "Success", success is not None),
        ("tasks", "Tasks", bool(tasks)),
        ("training", "Training", bool(sft or tpo)),
        ("data", "Rollouts", bool(data)),
        ("agreement", "Agreement", bool(agreements)),
        ("pairs", "Pairs", bool(pairs)),
        ("method", "Method", True),
        ("caveats", "Caveats", True),
        ("settings", "Settings", True),
    ]
    return render_template(
        "report.html.j2",
        title=title or contents.title or contents.path.resolve().name,
        facts=_facts(contents),
        headline=headline,
        missing=contents.missing,
        arms=contents.arms,
        gate=any(policy.accepted is False for arm in contents.arms for policy in arm.policies),
        success=success,
        is_loop=contents.is_loop,
        tasks=tasks,
        measures=measure_rows(contents),
        sft_charts=sft,
        tpo_charts=tpo,
        data=data,
        agreements=agreements,
        pairs=pairs,
        pairs_total=pairs_total,
        methods=tuple(methods),
        learns_from=_learns_from(methods),
        pair_tasks=sorted({view.candidate.pair.task for view in pairs}),
        caveats=caveats(contents, headline),
        versions=tuple(contents.versions.items()),
        commands=contents.commands,
        settings=contents.settings,
        sections=[(key, label) for key, label, there in sections if there],
    )


def render_template(name: str, **values: Any) -> str:
    """A page of this package as HTML: its template, filled, with the common style and script in it.

    Args:
        name: The template's file name.
        **values: Values of the template; every text is escaped.
    """
    environment = _environment(load_jinja())
    templates = resources.files("grape.report") / "templates"
    script = (templates / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    page = environment.get_template(name).render(
        version=grape.__version__,
        css=(templates / "report.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=f"sha256-{digest}",
        **values,
    )
    return str(page)


def _environment(jinja2: ModuleType) -> Any:
    """Template environment: escaping always on, unknown names are errors."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("grape.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # what is markup already stays
    )
    environment.filters |= {
        "percent": numbers.percent,
        "points": numbers.points,
        "p_text": p_text,
        "signed": numbers.signed,
        "short": numbers.short,
        "fixed": numbers.fixed,
        "count_of": numbers.count_of,
        "tidy": lambda value: f"{value:.1f}".removesuffix(".0"),
        "thousands": lambda value: f"{value:,}",
        "breakable": _breakable,
    }
    return environment


def _breakable(name: str) -> Any:
    """Markup of a name that a line may break behind its underscores, where there is no room for it."""
    from markupsafe import Markup, escape  # comes with jinja2, which may be absent

    return escape(printable(name)).replace("_", Markup("_<wbr>"))


def _success_charts(arms: Sequence[Arm]) -> SuccessCharts | None:
    """Success of every policy, or None with fewer than two of them."""
    columns = max((len(arm.policies) for arm in arms), default=0)
    if columns < 2 or not any(policy.results for arm in arms for policy in arm.policies):
        return None
    longest = max(arms, key=lambda arm: len(arm.policies))
    labels = [policy.label for policy in longest.policies]
    series = []
    words = []
    for arm in arms:
        points = []
        for column, policy in enumerate(arm.policies):
            if policy.results is None:
                continue
            rate, (low, high) = policy.results.success_rate, policy.results.interval
            note = (
                f"{policy.label}: {numbers.percent(rate)} ({numbers.percent(low)} to {numbers.percent(high)}), "
                f"{numbers.count_of(policy.results.episodes, 'episode')}"
            )
            points.append(Point(column, rate, low, high, policy.accepted is False, note))
            words.append(f"{arm.label + ', ' if arm.label else ''}{note}.")
        series.append((arm.label or "this run", points))
    text = "Success rate of each policy with its 95 % interval. " + " ".join(words)
    return SuccessCharts(
        success_chart("success-wide", text, labels, series, width=600, height=330),
        success_chart("success-narrow", text, labels, series, width=330, height=260),
    )


def _learns_from(methods: Collection[str]) -> str:
    """What the section on the method says that the policy learns from: ``"pairs"``, ``"chosen"`` or ``"episodes"``."""
    if not {"tpo", "step-dpo"}.isdisjoint(methods):
        return "pairs"
    return "chosen" if set(methods) == {"filtered-bc"} else "episodes"


def _facts(contents: RunContents) -> list[str]:
    """The line under the title."""
    facts = [f"suite {contents.suite}"] if contents.suite else []
    if contents.tasks:
        names = ", ".join(contents.tasks[:6]) + (", …" if len(contents.tasks) > 6 else "")
        facts.append(f"{numbers.count_of(len(contents.tasks), 'task')}: {names}")
    trained = sum(1 for item in contents.rounds if item.training is not None)
    if trained:
        facts.append(numbers.count_of(trained, "iteration"))
    # One store may be reached in two ways: by its collection, and by what was scored of it.
    stores = {item.store.path.resolve(): item.store for item in contents.rounds if item.store}
    rollouts = sum(len(store) for store in stores.values())
    if rollouts:
        facts.append(numbers.count_of(rollouts, "rollout"))
    n_pairs = sum(len(item.pairs) for item in contents.rounds)
    if n_pairs:
        facts.append(numbers.count_of(n_pairs, "pair"))
    if contents.demonstrations is not None:
        facts.append(numbers.count_of(len(contents.demonstrations), "demonstration"))
    if contents.seed is not None:
        facts.append(f"seed {contents.seed}")
    return facts


def _data_row(item: RoundContents) -> dict[str, str]:
    """A line of the table of rollouts and pairs."""
    row = dict.fromkeys(("episodes", "states", "solved", "pairs", "margin", "terms"), "–")
    row["label"] = item.round.label
    metas = _metas(item)
    if metas:
        known_outcomes = [success for _, success in metas if success is not None]
        row |= {"episodes": f"{len(metas):,}", "states": f"{len({state for state, _ in metas}):,}"}
        row["solved"] = numbers.percent(sum(known_outcomes) / len(known_outcomes)) if known_outcomes else "unknown"
        if known_outcomes and len(known_outcomes) < len(metas):
            row["solved"] += f" of {len(known_outcomes):,} ({len(metas) - len(known_outcomes):,} unknown)"
    if item.pairs:
        margin = sum(pair.margin for pair in item.pairs) / len(item.pairs)
        sums: dict[str, float] = {}
        for pair in item.pairs:
            for key, value in pair.terms.items():
                sums[key] = sums.get(key, 0.0) + value
        row |= {"pairs": f"{len(item.pairs):,}", "margin": numbers.short(margin)}
        row["terms"] = ", ".join(
            f"{TERM_NAMES.get(key, (key, ''))[0]} {numbers.signed(sums[key] / len(item.pairs))}"
            for key in (*TERM_NAMES, *sorted(set(sums) - set(TERM_NAMES)))
            if key in sums
        )
    return row


def _metas(item: RoundContents) -> list[tuple[tuple[str, int], bool | None]]:
    """Initial state and success of every rollout, from the store or else from the scores."""
    if item.store is not None:
        try:
            return [((meta.task, meta.initial_state), meta.success) for meta in item.store.metas()]
        except GrapeError:
            pass
    return [((score.task, score.initial_state), score.success) for score in item.scores.values()]
