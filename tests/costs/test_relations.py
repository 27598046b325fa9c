"""Each relation against its definition, written out once more by hand."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.core.errors import DataError
from grape.core.trajectories import Trajectory
from grape.costs.formulas import Call, Condition
from grape.costs.language import Amount
from grape.costs.measurement import TOLERANCE, Recording, holds, relation_cost, truth
from grape.costs.specification import KeypointSource, image_keypoint
from grape.costs.vocabulary import QUANTITIES, RELATIONS

MakeTrajectory = Callable[..., Trajectory]

A = [[0.0, 0.0, 0.0], [0.03, 0.04, 0.0], [0.03, 0.04, 0.12]]
B = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
C = [[0.1, 0.0, 0.0]] * 3
CAMERA = {"pose": [[0, 0.7, -0.7, 9], [1, 0, 0, 9], [0, -0.7, -0.7, 9], [0, 0, 0, 1]], "intrinsic": [[50, 0, 64]] * 3}
SIGNALS = {"grasped": [0, 0, 1], "touching": [0, 1, 1], "opened": [0.0, 0.4, 1.2], "gripper_opening": [1.0, 0.5, 0.1]}


def call(name: str, **arguments: str | float) -> Call:
    relation = RELATIONS[name]
    given_all = {
        parameter.name: arguments.get(parameter.name, 0.0 if parameter.required else parameter.default)
        for parameter in relation.parameters
    }
    return Call(name, tuple(given_all.items()))


PAIR = {"of": "a", "to": "b"}
GOLDEN: list[tuple[str, dict[str, Any], list[float]]] = [
    ("near", {**PAIR, "within": 0.05}, [0, 0, 0.08]),
    ("near_xy", {**PAIR, "within": 0.04}, [0, 0.01, 0.01]),
    ("near_z", {**PAIR, "within": 0.02}, [0, 0, 0.10]),
    ("above", {**PAIR, "by": 0.05}, [0.05, 0.05, 0]),
    ("below", {**PAIR, "by": 0.05}, [0.05, 0.05, 0.17]),
    ("beyond", {**PAIR, "axis": "y", "by": 0.05}, [0.05, 0.01, 0.01]),
    ("beyond", {**PAIR, "axis": "-y", "by": 0.05}, [0.05, 0.09, 0.09]),
    ("right_of", {**PAIR, "by": 0.01}, [0.01, 0, 0]),
    ("left_of", {**PAIR, "by": 0.01}, [0.01, 0.04, 0.04]),
    ("behind", {**PAIR, "by": 0.05}, [0.05, 0.01, 0.01]),
    ("in_front_of", {**PAIR, "by": 0.05}, [0.05, 0.09, 0.09]),
    # The camera looks along -x and down, so that right is +y (and -y where the image is mirrored), behind is -x.
    ("right_of", {**PAIR, "by": 0.05, "frame": "camera"}, [0.05, 0.01, 0.01]),
    ("in_front_of", {**PAIR, "by": 0.04, "frame": "camera"}, [0.04, 0.01, 0.01]),
    ("inside", {**PAIR, "x": 0.02, "y": 0.03, "z": 0.1}, [0, 0.01, 0.02]),
    ("on", {**PAIR, "within": 0.04, "by": 0.1}, [0, 0.01, 0.02]),
    ("on", {"of": "b", "to": "a", "within": 0.06, "by": 0.1}, [0, 0, 0.12]),
    ("clear_of", {**PAIR, "by": 0.10}, [0.10, 0.05, 0]),
    ("clear_of_xy", {**PAIR, "by": 0.10}, [0.10, 0.05, 0.05]),
    ("displaced", {"of": "a", "by": 0.10}, [0.10, 0.05, 0]),
    ("undisturbed", {"of": "a", "within": 0.03}, [0, 0.02, 0.10]),
    ("lifted", {"of": "a", "by": 0.02}, [0.02, 0.02, 0]),
    ("aligned", {"of": "b", "to": "a", "axis": "z", "within": 30.0}, [math.nan, 60.0, 0]),
    ("aligned", {"of": "b", "to": "a", "axis": "-z", "within": 30.0}, [math.nan, 60.0, 127.380135]),
    ("parallel", {"of": "b", "to": "a", "base": "b", "tip": "c", "within": 30.0}, [math.nan, 23.130102, 46.657636]),
    ("angle_between", {"of": "b", "to": "a", "base": "b", "tip": "c"}, [math.nan, 53.130102, 76.657636]),
    ("angle", {"of": "b", "to": "a", "axis": "z"}, [math.nan, 90.0, 22.619865]),
    ("upright", {"of": "b", "to": "a", "within": 30.0}, [math.nan, 60.0, 0]),
    ("turned", {"of": "c", "to": "a", "by": 90.0}, [90.0, 60.255119, 28.96008]),
    ("at_rest", {"of": "a", "within": 0.02}, [0, 0.03, 0.10]),
    ("grasped", {}, [1, 1, 0]),
    ("released", {}, [0, 0, 1]),
    ("touching", {}, [1, 0, 0]),
    ("succeeded", {}, [1, 1, 0]),
    ("opened", {"at_least": 0.9}, [0.9, 0.5, 0]),
    ("gripper_open", {"at_least": 0.6}, [0, 0.1, 0.5]),
    ("gripper_closed", {"at_most": 0.4}, [0.6, 0.1, 0]),
    ("signal_at_least", {"signal": "opened", "value": 1.0}, [1.0, 0.6, 0]),
    ("signal_at_most", {"signal": "opened", "value": 1.0}, [0, 0, 0.2]),
    ("distance", PAIR, [0, 0.05, 0.13]),
    ("distance_xy", PAIR, [0, 0.05, 0.05]),
    ("speed", {"of": "a"}, [0, 0.05, 0.12]),
    ("smoothness", {"of": "a"}, [0, 0, 0.13]),
    ("path_length", {"of": "a", "reference": 0.5}, [0, 0.10, 0.24]),
    ("duration", {}, [0, 1 / 16, 1 / 16]),
]


def test_every_relation_has_a_golden_case() -> None:
    assert {name for name, _, _ in GOLDEN} == set(RELATIONS)


@pytest.mark.parametrize(("name", "arguments", "due"), GOLDEN)
def test_golden_costs(make_trajectory: MakeTrajectory, name: str, arguments: dict[str, Any], due: list[float]) -> None:
    trajectory = make_trajectory({"a": A, "b": B, "c": C}, SIGNALS, success=True)
    meta = dataclasses.replace(trajectory.meta, extra={"camera": CAMERA})
    recording = Recording(dataclasses.replace(trajectory, meta=meta), limit=16)
    np.testing.assert_allclose(relation_cost(recording, call(name, **arguments)), due, atol=1e-6)


COORDINATES = st.lists(st.floats(-1, 1, width=32), min_size=12, max_size=12)
BOUNDED = [name for name, relation in RELATIONS.items() if relation.bounded]


@given(points=COORDINATES, name=st.sampled_from(BOUNDED), bound=st.floats(0.001, 0.9), values=COORDINATES)
def test_a_relation_costs_nothing_exactly_where_it_holds(
    make_trajectory: MakeTrajectory, points: list[float], name: str, bound: float, values: list[float]
) -> None:
    a = np.reshape(points, (4, 3))
    keypoints = {"a": a, "b": np.zeros((4, 3)) + 0.1, "c": np.full((4, 3), (0.3, 0.2, 0.1))}
    signals = {signal: np.abs(values[:4]) for signal in (*SIGNALS, "s")}
    recording = Recording(make_trajectory(keypoints, signals), limit=16)
    relation = RELATIONS[name]
    arguments: dict[str, str | float] = {"of": "a", "to": "b", "axis": "x", "base": "b", "tip": "c"}
    if "signal" in {parameter.name for parameter in relation.parameters if parameter.required}:
        arguments["signal"] = "s"
    arguments |= {
        parameter.name: bound * (180 if parameter.kind.unit == "deg" else 1)
        for parameter in relation.parameters
        if isinstance(parameter.kind, Amount)
    }
    made = call(name, **arguments)
    cost, verdict = relation_cost(recording, made), holds(recording, made)
    quantity = recording.quantity(made)
    low, high = made.bounds
    assert (cost >= 0).all()
    np.testing.assert_array_equal(verdict == 1.0, cost <= TOLERANCE)
    np.testing.assert_array_equal(cost == 0.0, (quantity >= low) & (quantity <= high))


def test_units_of_relations_are_those_of_their_quantities() -> None:
    assert RELATIONS["near"].unit == "m"
    assert RELATIONS["aligned"].unit == "deg"
    assert RELATIONS["duration"].unit == "of limit"
    assert all(quantity.high > quantity.low for quantity in QUANTITIES.values())


def test_truth_follows_kleene(make_trajectory: MakeTrajectory) -> None:
    """Unknown and false is false, unknown or true is true, all else unknown stays unknown."""
    recording = Recording(make_trajectory({"a": A}, {"t": [1, 1, 1], "f": [0, 0, 0], "u": [np.nan] * 3}), limit=16)
    t, f, u = (Condition("holds", call("grasped", signal=name)) for name in "tfu")
    for condition, due in [
        (Condition("not", operands=(u,)), math.nan),
        (Condition("not", operands=(t,)), 0.0),
        (Condition("all", operands=(u, f)), 0.0),
        (Condition("all", operands=(u, t)), math.nan),
        (Condition("all", operands=(t, t)), 1.0),
        (Condition("any", operands=(u, t)), 1.0),
        (Condition("any", operands=(u, f)), math.nan),
        (Condition("any", operands=(f, f)), 0.0),
    ]:
        np.testing.assert_array_equal(truth(recording, condition), [due] * 3, err_msg=str(condition))


def test_the_camera_s_right_is_the_image_s(make_trajectory: MakeTrajectory) -> None:
    """An image whose columns run against the camera's x axis shows +y on the left."""
    trajectory = make_trajectory({"a": A, "b": B})
    right_of = call("right_of", **PAIR, by=0.0, frame="camera")
    for focal, due in ((50, [0, 0.04, 0.04]), (-50, [0, -0.04, -0.04])):
        camera = {**CAMERA, "intrinsic": [[focal, 0, 64], [0, 50, 64], [0, 0, 1]]}
        meta = dataclasses.replace(trajectory.meta, extra={"camera": camera})
        recording = Recording(dataclasses.replace(trajectory, meta=meta), limit=16)
        np.testing.assert_allclose(recording.quantity(right_of), due, atol=1e-6)
    for extra in (
        {},
        {"camera": None},
        {"camera": {"pose": [[0] * 4] * 4, "intrinsic": [[1]]}},
        {"camera": {"pose": 3}},
    ):
        meta = dataclasses.replace(trajectory.meta, extra=extra)
        with pytest.raises(DataError, match="no sound camera pose"):
            Recording(dataclasses.replace(trajectory, meta=meta), limit=16).quantity(right_of)


def test_keypoints_with_provenance(make_trajectory: MakeTrajectory) -> None:
    """Aliases read the recorded point, means are computed, and a lost part makes the mean lost."""
    lost = np.array(A)
    lost[1, 0] = np.nan
    recording = Recording(
        make_trajectory({"point_3": lost, "bowl_1": C}),
        limit=16,
        sources=(
            KeypointSource("rim", "picture", image_keypoint(3), 3),
            KeypointSource("bowl", "object", "bowl_1"),
            KeypointSource("middle", "mean_of", mean_of=("rim", "bowl"), offset=(0.0, 0.0, 0.1)),
        ),
    )
    np.testing.assert_allclose(
        recording.point("middle"), [[0.05, 0, 0.1], [np.nan] * 3, [0.065, 0.02, 0.16]], atol=1e-6
    )
    np.testing.assert_allclose(recording.point("bowl"), C, atol=1e-6)
