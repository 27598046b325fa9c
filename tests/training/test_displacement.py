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
    falling = [(-0.04, 0.1), (-0.08, 0.2), (-0.12, 0.3), (-0.16, 0.4), (-0.2, 0.5)]
    assert displacement_alarm(rows(*falling[:4])) == ""
    warning = displacement_alarm(rows((5.0, 0.0), *falling))
    assert warning.startswith("Update 6: chosen trajectories have become 0.120 nats a token less likely")
    assert "the margin grew to 0.3" in warning


@pytest.mark.parametrize(
    "values",
    [
        [],
        [(0.2, 9.0)] * 5,  # large margins, but the chosen side rises
        [(-0.07, 1.0)] * 9,  # as with defaults
        [(-0.099, 1.0)] * 9,
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
    assert advice in displacement_alarm(rows((-0.6, 5.1)), method)


@pytest.mark.parametrize("method", ["tpo", "kto"])
def test_the_advice_leaves_out_what_the_run_uses(method):
    seen = rows((-0.6, 5.1))
    assert displacement_alarm(seen, method, length_normalised=True) == displacement_alarm(seen, method).replace(
        ", use --length-normalised", ""
    )
    warning = displacement_alarm(seen, method, chosen_floor=0.1, length_normalised=True)
    last = {"tpo": "cut the pairs (grape pair --cut)", "kto": "lower --lr"}[method]
    assert warning.endswith(f"Give a higher --anchor, or {last}.")


def test_updates_without_a_desirable_episode_are_passed_over():
    """As KTO has them, where few episodes succeeded; before, five updates in a row had to hold one."""
    seen = []
    for row in rows(*[(-0.12, 0.3)] * 5):
        seen += [{**row, "update": len(seen) + 1}, {"update": len(seen) + 2, "rewards/rejected": -1.0}]
    assert displacement_alarm(seen[:8], "kto") == ""
    for count in (9, 10):  # the last of five lies at update 9, whatever came after
        warning = displacement_alarm(seen[:count], "kto")
        assert warning.startswith("Update 9: chosen trajectories have become 0.120 nats a token less likely")


def test_figures_are_named_by_the_update_that_they_come_from():
    seen = [*rows((-0.01, 5.1)), {"update": 2, "rewards/rejected": -1.0}]
    assert displacement_alarm(seen, "kto").startswith("Update 1: ")


@pytest.mark.parametrize("margin", [-0.01, 0.0, 0.2])
def test_group_advantages_warn_whatever_the_margin(margin):
    """Their margins are nats a token: 5 is out of reach, and both sides may fall alike."""
    falling = rows(*[(-0.12, margin)] * 5)
    assert displacement_alarm(falling[:4], "rloo") == ""
    assert displacement_alarm(falling, "rloo").startswith("Update 5: chosen trajectories have become 0.120 nats")
    assert displacement_alarm(rows(*[(-0.09, margin)] * 9), "rloo") == ""
    only = [{"update": row["update"], "displacement": row["displacement"]} for row in falling]  # no rejected ones
    assert displacement_alarm(only, "rloo").startswith("Update 5: ")


def test_group_advantages_warn_at_once_of_one_step_far_beyond_the_clipping_range():
    assert displacement_alarm(rows((0.0, 0.0), (-1.5, 0.1)), "rloo").startswith("Update 2: ")
    assert displacement_alarm(rows((0.0, 0.0), (-0.4, 0.1)), "rloo") == ""
