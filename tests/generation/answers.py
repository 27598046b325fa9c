"""Answers that a model might give about the toy suite's push-block."""

import copy
import json
from typing import Any

SPECIFICATION: dict[str, Any] = {
    "version": 1,
    "limit": "999 steps",
    "description": "Push the block to the target",
    "keypoints": ["gripper", "object", "goal"],
    "signals": ["touching", "success"],
    "stages": [
        {
            "name": "reach",
            "description": "Come close.",
            "done_when": {"any": [{"near": {"of": "gripper", "to": "object", "within": "4 cm"}}, {"touching": {}}]},
            "subgoal": [
                {
                    "name": "at-block",
                    "cost": {"distance": {"of": "gripper", "to": "object"}},
                    "threshold": "4 cm",
                    "worst": "30 cm",
                    "weight": "1 per m",
                    "objectives": ["completion"],
                }
            ],
            "path": [
                {
                    "name": "untouched",
                    "cost": {"undisturbed": {"of": "object", "within": "1 cm"}},
                    "aggregate": "max",
                    "worst": "6 cm",
                    "weight": "1 per m",
                    "objectives": ["safety"],
                }
            ],
        },
        {
            "name": "push",
            "done_when": {"succeeded": {}},
            "path": [
                {
                    "name": "keep-block",
                    "cost": {"near": {"of": "gripper", "to": "object", "within": "6 cm"}},
                    "aggregate": "mean",
                    "worst": "20 cm",
                    "weight": "1 per m",
                    "objectives": ["completion"],
                }
            ],
        },
    ],
    "every_stage": {"path": [{"name": "time", "cost": {"duration": {}}, "weight": 0.3, "objectives": ["efficiency"]}]},
    "outcome": {
        "unfinished": 1,
        "subgoal": [
            {
                "name": "at-target",
                "cost": {"distance": {"of": "object", "to": "goal"}},
                "threshold": "5 cm",
                "worst": "35 cm",
                "weight": "1.5 per m",
                "objectives": ["completion"],
            }
        ],
    },
}


def good() -> str:
    return json.dumps(SPECIFICATION, indent=1)


def changed(**fields: Any) -> dict[str, Any]:
    return copy.deepcopy(SPECIFICATION) | fields


def unknown_keypoint() -> str:
    return good().replace('"goal"', '"target"')


def missing_unit() -> str:
    return good().replace('"4 cm"', '"4"')
