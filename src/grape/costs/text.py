"""A specification as text that a person reads."""

from grape.costs.specification import Constraint, CostSpecification

__all__ = ["specification_text"]


def specification_text(specification: CostSpecification) -> str:
    """Stages, conditions and constraints, one a line, in canonical units."""
    title = "/".join(part for part in (specification.suite, specification.task) if part) or specification.source
    lines = [f"{title}: {specification.description}".rstrip(": "), f"limit {specification.limit} steps"]
    for number, stage in enumerate(specification.stages, start=1):
        lines += ["", f"{number}. {stage.name}" + (f": {stage.description}" if stage.description else "")]
        lines.append(f"   done when {stage.done_when}; unfinished costs {stage.penalty:.3g}")
        lines += map(_line, stage.constraints)
    lines += ["", f"outcome: a failure costs {specification.outcome.unfinished:.3g}"]
    lines += map(_line, specification.outcome.constraints)
    return "\n".join(lines)


def _line(constraint: Constraint) -> str:
    how = " ".join(part for part in (constraint.kind, constraint.aggregate) if part)
    tags = ", ".join(constraint.objectives)
    return (
        f"   - {constraint.name} ({how}; {tags}): {constraint.weight:g} x {constraint.cost} "
        f"above {constraint.threshold:g} {constraint.unit}, at most {constraint.dearest:.3g}"
    )
