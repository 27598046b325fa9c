import pytest

from grape.training.displacement import displacement_alarm


def rows(*values):
    return [
        {"update": number, "displacement": displacement, "rewards/margins": margin}
        for number, (displacement, margin) in enumerate(values, start=1)
    ]


def test_saturation_while_the_chosen_side_falls_is_told_at_once():
    warning = displacement_alarm(rows((0.1, 1.0), (-0.01, 5.1)))
    assert warning.startswith("Update 2: chosen trajectories have become 0.010 nats a token less likely")
    assert "the margin grew to 5.1" in warning
    assert "--chosen-floor" in warning


def test_falling_chosen_sides_are_told_from_the_mean_of_five_updates():
    falling = [(-0.02, 0.1), (-0.04, 0.2), (-0.06, 0.3), (-0.08, 0.4), (-0.1, 0.5)]
    assert displacement_alarm(rows(*falling[:4])) == ""
    warning = displacement_alarm(rows((5.0, 0.0), *falling))
    assert warning.startswith("Update 6: chosen trajectories have become 0.060 nats a token less likely")
    assert "the margin grew to 0.3" in warning


@pytest.mark.parametrize(
    "values",
    [
        [],
        [(0.2, 9.0)] * 5,  # large margins, but the chosen side rises
        [(-0.049, 1.0)] * 9,
        [(-0.2, -0.5)] * 9,  # both sides differ by chance only: nothing is preferred yet
        [(-0.2, 0.5), (0.1, 0.5)] * 4,
    ],
)
def test_all_is_well(values):
    assert displacement_alarm(rows(*values)) == ""


def test_rows_of_methods_without_a_reference_say_nothing():
    assert displacement_alarm([{"update": 1, "loss": 1.0}] * 9) == ""


@pytest.mark.parametrize(("method", "advice"), [("tpo", "--chosen-floor"), ("kto", "--lr"), ("rloo", "--reward")])
def test_the_advice_is_for_settings_that_the_method_has(method, advice):
    assert advice in displacement_alarm(rows((-0.01, 5.1)), method)
