"""A specification for the same task at another rate of decisions.

Speeds and accelerations are counted by the step, so where each decision is held for several steps of the original they
have to be converted. Lengths, angles, parts of the limit and what a stage costs at most stay as they are.
"""

import dataclasses

from grape.costs.specification import Constraint, CostSpecification

__all__ = ["at_lower_rate"]

_PER_STEP = {"m/step": 1, "m/step2": 2}
"""How often each canonical unit is divided by a step."""


def at_lower_rate(specification: CostSpecification, suite: str, held: int) -> CostSpecification:
    """The specification of a suite whose decisions are each held for several steps of the original suite.

    Args:
        specification: Of the original suite.
        suite: The slower suite's name.
        held: How many steps of the original a decision takes, at least 1.
    """

    def converted(constraint: Constraint) -> Constraint:
        factor = float(held ** _PER_STEP.get(constraint.unit, 0))
        return dataclasses.replace(
            constraint,
            threshold=constraint.threshold * factor,
            worst=constraint.worst * factor,
            weight=constraint.weight / factor,
        )

    outcome = specification.outcome
    return dataclasses.replace(
        specification,
        suite=suite,
        limit=specification.limit // held,
        control_hz=None if specification.control_hz is None else specification.control_hz / held,
        stages=tuple(
            dataclasses.replace(stage, constraints=tuple(map(converted, stage.constraints)))
            for stage in specification.stages
        ),
        outcome=dataclasses.replace(outcome, constraints=tuple(map(converted, outcome.constraints))),
        source=f"{specification.source}, each decision held for {held} steps",
    )
