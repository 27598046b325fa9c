"""Static checks of what a specification says about holding things: grasps and releases in an order that can be."""

from collections.abc import Iterator

from grape.costs.findings import Finding
from grape.costs.formulas import Call, Condition, as_condition
from grape.costs.logic import always, contradicts, leads
from grape.costs.specification import Constraint, CostSpecification

__all__ = ["grasp_findings"]


def grasp_findings(specification: CostSpecification) -> Iterator[Finding]:
    """Grasps and releases that contradict each other, for each signal that says whether something is held.

    Relation ``released`` serves for other flags as well (a collision that is over), so a signal counts where
    ``grasped`` is used with it or where its name says so.
    """
    spoken_of = [(call.relation, name) for _, call in specification.calls() for name in call.names("signal")]
    signals = dict.fromkeys(
        name
        for relation, name in spoken_of
        if relation == "grasped" or (relation == "released" and name.startswith("grasped"))
    )
    for signal in signals:
        yield from _of_signal(specification, signal)


def _of_signal(specification: CostSpecification, signal: str) -> Iterator[Finding]:
    held = Condition("holds", Call("grasped", (("signal", signal),)))
    free = Condition("holds", Call("released", (("signal", signal),)))
    known = "free"  # nothing is held when an episode begins
    awaited = False
    for stage in specification.stages:
        where = f"stage '{stage.name}'"
        if not awaited and leads(free, stage.done_when) and not always(stage.done_when):
            message = f"waits for a release ({stage.done_when}), but no stage before it waits for a grasp."
            yield Finding("grasp-inconsistency", f"{where}, done_when", message)
        after = "held" if leads(stage.done_when, held) else "free" if leads(stage.done_when, free) else "unknown"
        for constraint in stage.constraints:
            if reason := _impossible_path(constraint, known, after, held, free):
                yield Finding("grasp-inconsistency", f"{where}, constraint '{constraint.name}'", reason, error=False)
        known = after
        awaited |= any(
            call.relation == "grasped" and signal in call.names("signal") for call in stage.done_when.calls()
        )


def _impossible_path(constraint: Constraint, before: str, after: str, held: Condition, free: Condition) -> str:
    """Why a path constraint cannot hold throughout a stage between two states of the grasp; empty if it can."""
    wanted = as_condition(constraint.cost)
    if constraint.kind != "path" or wanted is None or wanted.temporal:
        return ""
    if before == after == "held" and contradicts(wanted, held):
        return f"{constraint.cost} cannot hold: the object is held when the stage begins and when it ends."
    if before == "free" and contradicts(wanted, free) and after in ("held", "free"):
        return f"{constraint.cost} cannot hold: nothing is held yet when the stage begins."
    return ""
