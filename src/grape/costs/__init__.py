"""Guided costs: a declarative constraint language over recorded keypoints, and its evaluation.

A :class:`CostSpecification` (YAML, closed vocabulary, never executed) divides a task into stages with constraints;
:func:`evaluate` prices a recorded trajectory and :func:`external_reward` turns the stage costs into R_ext. Scoring
needs no simulator and no policy.
"""

from grape.costs.builtins import builtin_names, builtin_specification, builtin_suites, suite_names_of
from grape.costs.checks import Finding, check_specification, find_problems
from grape.costs.evaluation import evaluate, external_reward, unavailable_constraints
from grape.costs.formulas import Call, Condition
from grape.costs.parsing import load_specification, parse_specification
from grape.costs.report_card import ReportCard, TrialCheck, card_text
from grape.costs.schema import specification_schema
from grape.costs.specification import (
    OBJECTIVES,
    CostSpecification,
    KeypointSource,
    adjust_objectives,
    image_keypoint,
    specification_hash,
    specification_to_dict,
)
from grape.costs.suite_specifications import (
    known_specification,
    specification_names,
    specification_suites,
    suite_is_known,
)
from grape.costs.trial_measures import concordance, with_unknown_outcome
from grape.costs.validation import ValidationCriteria, validate_specification
from grape.costs.verb import (
    CostsCheckSettings,
    CostsListSettings,
    CostsSchemaSettings,
    CostsValidateSettings,
    episodes_of_task,
    find_episodes,
    find_specification,
    run_costs_check,
    run_costs_list,
    run_costs_schema,
    run_costs_validate,
    show_specification,
)

__all__ = [
    "OBJECTIVES",
    "Call",
    "Condition",
    "CostSpecification",
    "CostsCheckSettings",
    "CostsListSettings",
    "CostsSchemaSettings",
    "CostsValidateSettings",
    "Finding",
    "KeypointSource",
    "ReportCard",
    "TrialCheck",
    "ValidationCriteria",
    "adjust_objectives",
    "builtin_names",
    "builtin_specification",
    "builtin_suites",
    "card_text",
    "check_specification",
    "concordance",
    "episodes_of_task",
    "evaluate",
    "external_reward",
    "find_episodes",
    "find_problems",
    "find_specification",
    "image_keypoint",
    "known_specification",
    "load_specification",
    "parse_specification",
    "run_costs_check",
    "run_costs_list",
    "run_costs_schema",
    "run_costs_validate",
    "show_specification",
    "specification_hash",
    "specification_names",
    "specification_schema",
    "specification_suites",
    "specification_to_dict",
    "suite_is_known",
    "suite_names_of",
    "unavailable_constraints",
    "validate_specification",
    "with_unknown_outcome",
]
