"""Why a trajectory is preferred to another, in one sentence for people."""

from grape.core.preferences import Score, StageScore

__all__ = ["judged_reason", "reason_for", "stage_reason"]

_DRAWN = {
    "random": "Drawn at random, whatever the scores: ",
    "success-only": "Drawn at random among successes and failures: ",
    "every-success": "One of all successes, the other drawn at random: ",
}


def reason_for(chosen: Score, rejected: Score, mode: str) -> str:
    """One sentence: the outcomes, the stage and constraint that differ most in cost, and the term that decided.

    Example:
        ``Succeeded where the other never finished stage 'hook'; stage 'pull' cost 0.12 against 0.93, mostly by
        'keep-handle' (0.02 m against 0.3 m); success decided it (2 of the margin 2.61).``
    """
    clauses = [_outcomes(chosen, rejected)]
    gaps = {name: value - rejected.terms[name] for name, value in chosen.terms.items()}
    margin = chosen.gcpg - rejected.gcpg
    decisive = max(gaps, key=lambda name: gaps[name])
    clauses += _stage_clause(chosen, rejected)
    if mode in _DRAWN:
        return f"{_DRAWN[mode]}{'; '.join(clauses)}."
    clauses += _deciding_clause(chosen, rejected, decisive, f"{gaps[decisive]:.3g} of the margin {margin:.3g}")
    sentence = "; ".join(clauses)
    return f"{sentence[0].upper()}{sentence[1:]}."


def judged_reason(chosen: Score, rejected: Score, label: str, p: float, why: str) -> str:
    """One sentence: the judge and how sure it is, what it says itself, and the outcomes.

    Example:
        ``Judge 'vlm' prefers it with probability 0.80 ("it reaches the handle"); both failed: ...``
    """
    quoted = f' ("{why}")' if why else ""
    return f"Judge '{label}' prefers it with probability {p:.2f}{quoted}; {_outcomes(chosen, rejected)}."


def stage_reason(chosen: StageScore, rejected: StageScore, mode: str) -> str:
    """One sentence about one stage of two episodes: both costs, and what makes most of the difference.

    Example:
        ``In stage 'pull' the chosen side cost 0.120, the other 0.930, mostly by 'keep-handle' (0.02 m against 0.3 m),
        and did not finish it.``
    """
    start = f"{_DRAWN[mode]}in" if mode in _DRAWN else "In"
    because = _constraint_clause(chosen, rejected)
    unfinished = {
        (False, True): "" if because.endswith(" it") else ", and did not finish it",
        (True, True): "; neither finished it",
    }
    ending = unfinished.get((_charged_unfinished(chosen), _charged_unfinished(rejected)), "")
    return (
        f"{start} stage '{chosen.name}' the chosen side cost {chosen.cost:.3f}, the other {rejected.cost:.3f}"
        f"{because}{ending}."
    )


def _charged_unfinished(stage: StageScore) -> bool:
    """Whether a stage is known not to have been finished; of one that only the simulator's verdict ends, it is not."""
    return any(item.name == "done" and item.cost > 0 for item in stage.constraints)


def _outcomes(chosen: Score, rejected: Score) -> str:
    if chosen.success and rejected.success is False:
        return f"succeeded where the other {_failure(rejected)}"
    if rejected.success and chosen.success is False:
        return f"{_failure(chosen)}, although the other succeeded"
    if chosen.success is None or rejected.success is None:
        which = "both are" if chosen.success is rejected.success else "one is"
        return f"outcomes unknown ({which}), {_progress(chosen)} stages finished against {_progress(rejected)}"
    steps = f"in {chosen.steps} steps, the other in {rejected.steps}" if chosen.steps != rejected.steps else ""
    if chosen.success:
        return f"both succeeded{', this one ' + steps if steps else ''}"
    if _progress(chosen) != _progress(rejected):
        return f"both failed, but this one {_failure(chosen)} and the other {_failure(rejected)}"
    return f"both failed: they {_failure(chosen)}"


def _failure(score: Score) -> str:
    """How far a failed trajectory came."""
    if not score.stages:
        return "did not solve the task"
    in_order = sorted(_stages(score), key=lambda stage: stage.position or 0)  # as listed where no order was taken
    open_stages = [stage for stage in in_order if not stage.done]
    if not open_stages:
        return "went through every stage without solving the task"
    return f"never finished stage '{open_stages[0].name}'"


def _progress(score: Score) -> int:
    return sum(stage.done for stage in _stages(score))


def _stage_clause(chosen: Score, rejected: Score) -> list[str]:
    """The stage in whose cost they differ most in the chosen one's favor, and its most telling constraint.

    Stages that both entered come first: a stage that was never entered costs a fixed amount, which tells nothing.
    """
    others = {stage.name: stage for stage in rejected.stages}
    rows = [(stage, others[stage.name]) for stage in chosen.stages if stage.name in others]
    cheaper = [(stage, other) for stage, other in rows if stage.cost < other.cost]
    if not cheaper:
        return ["no stage was cheaper"] if rows else []
    entered = [(stage, other) for stage, other in cheaper if other.reached and stage.name != "outcome"]
    stage, other = max(entered or cheaper, key=lambda row: row[1].cost - row[0].cost)
    where = "the outcome" if stage.name == "outcome" else f"stage '{stage.name}'"
    return [f"{where} cost {stage.cost:.2f} against {other.cost:.2f}{_constraint_clause(stage, other)}"]


def _constraint_clause(chosen: StageScore, rejected: StageScore) -> str:
    """What makes most of the difference where the chosen side's stage is cheaper: a constraint, or not being finished.

    "Mostly" is said of more than half of the difference alone. Success, a yes or no, is told by the outcomes.
    """
    total = rejected.cost - chosen.cost
    others = {item.name: item for item in rejected.constraints}
    rows = [
        (others[item.name].contribution - item.contribution, item, others[item.name])
        for item in chosen.constraints
        if item.name in others
    ]
    gap, item, other = max(rows, key=lambda row: row[0], default=(0.0, None, None))
    if min(gap, total) <= 0 or item is None or other is None or item.name == "success":
        return ""
    share = "mostly" if gap > total / 2 else "above all"
    if item.name == "done":
        return f", {share} because the other never {'finished' if rejected.reached else 'entered'} it"
    unit = "" if item.unit in ("", "fraction", "ratio") else f" {item.unit}"
    return f", {share} by '{item.name}' ({item.cost:.2g}{unit} against {other.cost:.2g}{unit})"


def _deciding_clause(chosen: Score, rejected: Score, decisive: str, share: str) -> list[str]:
    if decisive == "success":
        return [f"success decided it ({share})"]
    if decisive == "ext" and chosen.external:
        values = f"{chosen.r_ext:.3g} against {rejected.r_ext:.3g}"
        return [f"scorer '{chosen.external}' decided it ({values}, {share})"]
    if decisive == "ext":
        return [f"lower costs decided it (R_ext {chosen.r_ext:.2g} against {rejected.r_ext:.2g}, {share})"]
    if chosen.r_self is None or rejected.r_self is None:
        return [f"self-reward decided it ({share})"]
    likelihoods = [score.r_self / max(score.steps, 1) for score in (chosen, rejected) if score.r_self is not None]
    shown = " against ".join(f"{likelihood:.3g}" for likelihood in likelihoods)
    return [f"the policy's own likelihood decided it ({shown} nats a step, {share})"]


def _stages(score: Score) -> list[StageScore]:
    return [stage for stage in score.stages if stage.name != "outcome"]
