"""A specification, and the vocabulary, as text that a person reads."""

from grape.costs.language import Field
from grape.costs.specification import Constraint, CostSpecification
from grape.costs.vocabulary import QUANTITIES, RELATIONS, Relation

__all__ = ["specification_text", "vocabulary_table"]


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


def vocabulary_table() -> str:
    """The published table of relations and that of quantities, in Markdown; ``docs/costs.md`` holds them."""
    lines = ["| relation | arguments | meaning | cost of a state | unit |", "|---|---|---|---|---|"]
    for relation in RELATIONS.values():
        arguments = " ".join(map(_argument, relation.parameters)) or "none"
        lines.append(
            f"| `{relation.name}` | {arguments} | {relation.meaning} | {_formula(relation)} | {relation.unit} |"
        )
    lines += ["", "| quantity | meaning | unit |", "|---|---|---|"]
    lines += [f"| {quantity.name} | {quantity.meaning} | {quantity.unit} |" for quantity in QUANTITIES.values()]
    return "\n".join(lines)


def _argument(parameter: Field) -> str:
    if parameter.required:
        return f"`{parameter.name}`"
    default = f"{parameter.default:g}" if isinstance(parameter.default, float) else parameter.default
    return f"`{parameter.name} = {default}`"


def _formula(relation: Relation) -> str:
    measured = relation.quantity + (" of `to` over `of`" if relation.arguments else "")
    if relation.upper is not None:
        return f"max(0, {measured} - {_bound(relation.upper)})"
    if relation.lower is not None:
        return f"max(0, {_bound(relation.lower)} - {measured})"
    return measured + (" so far" if QUANTITIES[relation.quantity].per == "stage" else "")


def _bound(bound: str | float) -> str:
    return f"`{bound}`" if isinstance(bound, str) else f"{bound:g}"
