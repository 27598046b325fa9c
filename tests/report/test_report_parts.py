import base64
import io
import math
import random
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grape.report import page
from grape.report.charts import Point, line_chart, nice_ticks, success_chart, thin_out
from grape.report.gallery import Candidate, VideoLimits, choose_pairs, pair_view
from grape.report.numbers import fixed, percent, points, quantity, short, signed
from grape.report.timelines import constraint_rows, stage_bands, term_bars
from grape.report.videos import encode_video, episode_strip, frames_per_second
from grape.store import EpisodeStore
from tests.preferences.rollouts import in_chunks
from tests.report.synthetic_run import episode, image, pair_of, score


def images(count: int, size: int = 64) -> np.ndarray:
    return np.stack([image(size, (0.1 + 0.6 * index / count, 0.3), 0.0, "drawer-open") for index in range(count)])


def decode(data: bytes) -> tuple[np.ndarray, av.container.InputContainer]:
    container = av.open(io.BytesIO(data))
    return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), container


def test_a_video_holds_every_image_and_then_the_last_one() -> None:
    frames = images(9)
    decoded, container = decode(encode_video(frames, size=128, fps=4, n_frames=12, max_bytes=10**6))
    assert decoded.shape == (12, 128, 128, 3)
    stream = container.streams.video[0]
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert float(stream.duration * stream.time_base) == pytest.approx(3.0)
    small = decoded[:, ::2, ::2].astype(float)
    for index in range(12):
        assert np.abs(small[index] - frames[min(index, 8)]).mean() < 8
    assert np.abs(small[8] - frames[0]).mean() > 1.5 * np.abs(small[8] - frames[8]).mean()


def test_an_episode_of_chunks_is_shown_at_its_control_steps(tmp_path: Path) -> None:
    """So the video keeps pace with curves and stages; between two decisions the image stands still."""
    sides = [in_chunks(episode("drawer-open", 0, sample, success=sample == 0), 8, 5) for sample in range(2)]
    store = EpisodeStore.create(tmp_path / "store", sides[0].meta.suite, {})
    for side in sides:
        store.write(side)
    chosen, rejected = map(score, sides)
    pair = replace(pair_of(chosen, rejected), rejected_steps=(0, 7))
    candidate = Candidate(pair, chosen, rejected, "here", store)
    view = pair_view(1, candidate, VideoLimits(size=96, max_bytes=10**6))
    shown, _ = decode(base64.b64decode(view.sides[0].video.partition(",")[2]))
    assert len(shown) == max(side.steps for side in sides) + 1
    moved = np.abs(np.diff(shown.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert 2 * moved[:4].max() < moved[4]
    assert view.sides[1].compared == f"control steps 1–7 of {sides[1].steps} compared"


def test_equal_images_give_equal_bytes_without_time_stamps() -> None:
    first, second = (encode_video(images(5), size=96, fps=4, n_frames=5, max_bytes=10**6) for _ in range(2))
    assert first == second
    assert b"Lavf" not in first


def test_a_video_that_is_too_large_is_made_coarser() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    free = encode_video(noise, size=128, fps=4, n_frames=8, max_bytes=10**7)
    tight = encode_video(noise, size=128, fps=4, n_frames=8, max_bytes=len(free) // 3)
    assert len(tight) < len(free) // 2


def test_odd_and_wide_images_get_even_sizes() -> None:
    decoded, _ = decode(encode_video(np.zeros((2, 33, 65, 3), np.uint8), size=101, fps=4, n_frames=2, max_bytes=10**6))
    assert decoded.shape[1] % 2 == 0
    assert decoded.shape[2] == 100


@given(st.integers(1, 2000))
def test_frame_rates_are_watchable(n_frames: int) -> None:
    assert 4 <= frames_per_second(n_frames) <= 30


def test_a_film_strip_ends_where_the_episode_ends() -> None:
    assert episode_strip(images(6), cells=6, n_frames=12)[1] == 3
    assert episode_strip(images(12), cells=6, n_frames=12)[1] == 6
    assert episode_strip(images(1), cells=6, n_frames=200)[1] == 1


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_cover_the_range_in_even_steps(low: float, extent: float, n_steps: int) -> None:
    high = low + extent
    ticks = nice_ticks(low, high, n_steps)
    rounding = 1e-6 * extent + 2 * math.ulp(max(abs(low), abs(high)))  # a narrow range far from 0 has few numbers
    assert ticks[0] <= low + rounding
    assert ticks[-1] >= high - rounding
    assert 2 <= len(ticks) <= 2 * n_steps + 3
    assert list(ticks) == sorted(set(ticks))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=700), st.integers(2, 240))
def test_thinning_keeps_the_count_small_and_the_values_inside(values: list[float], limit: int) -> None:
    thinned = thin_out([Point(index, value) for index, value in enumerate(values)], limit)
    assert len(thinned) == min(limit, len(values))
    assert min(values) - 1e-9 <= min(point.y for point in thinned)
    assert max(point.y for point in thinned) <= max(values) + 1e-9


def test_a_curve_is_broken_where_the_next_training_begins() -> None:
    curve = [Point(x, float(x % 50)) for x in range(1, 101)]
    chart = line_chart("k", "t", "d", "u", [("a", curve)], dividers=[(0, "one"), (50, "two")])
    assert chart.lines[0].path.count("M") == 2
    assert [divider.label for divider in chart.dividers] == ["one", "two"]


def test_labels_stay_short_where_there_is_little_room() -> None:
    curve = [Point(x, 1e-7 * (x - 20)) for x in range(1, 41)]
    chart = line_chart("k", "t", "d", "u", [("a", curve)], dividers=[(x, f"iteration {x}") for x in (0, 20, 25, 26)])
    assert [divider.label for divider in chart.dividers] == ["iteration 0", "20", "", "iteration 26"]
    assert all(divider.position >= chart.left for divider in chart.dividers)
    assert max(len(tick.label) for tick in chart.y_ticks) <= 6
    assert "0" in [tick.label for tick in chart.y_ticks]


def test_values_that_are_not_finite_do_not_reach_the_drawing() -> None:
    chart = line_chart("k", "t", "d", "u", [("a", [Point(0, 1.0), Point(1, math.nan), Point(2, 3.0)])])
    assert len(chart.lines[0].marks) == 2
    with pytest.raises(ValueError, match="finite"):
        line_chart("k", "t", "d", "u", [("a", [Point(0, math.inf)])])


def test_a_rejected_policy_stands_beside_the_line() -> None:
    rates = [Point(0, 0.4, 0.3, 0.5), Point(1, 0.3, 0.2, 0.4, hollow=True), Point(2, 0.8, 0.7, 0.9)]
    line = success_chart(
        "k", "d", ["SFT", "iteration 1", "iteration 2"], [("run", rates)], width=600, height=300
    ).lines[0]
    assert line.path.count("L") == 1
    assert line.aside.count("M") == 1
    assert all(mark.low_y > mark.y > mark.high_y for mark in line.marks if mark.low_y and mark.high_y)


def candidate(task: str, state: int, origin: str = "iteration 1") -> Candidate:
    good, bad = (score(episode(task, state, sample, success=not sample, display=False)) for sample in (0, 1))
    return Candidate(pair_of(good, bad), good, bad, origin, None)


CANDIDATES = [candidate("drawer-open", state) for state in range(6)] + [candidate("faucet-open", 9)]


@given(st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_choice_is_varied_and_does_not_depend_on_order(count: int, shuffle: random.Random) -> None:
    shuffled = list(CANDIDATES)
    shuffle.shuffle(shuffled)
    chosen = choose_pairs(shuffled, count)
    assert chosen == choose_pairs(CANDIDATES, count)
    assert len(chosen) == len({item.pair.pair_id for item in chosen}) == min(count, len(CANDIDATES))
    if count >= 2:
        assert {item.pair.task for item in chosen} == {"drawer-open", "faucet-open"}


def test_a_pair_of_another_kind_comes_before_a_second_one_of_the_same() -> None:
    alike = candidate("drawer-open", 3)
    both_fail = replace(alike, pair=replace(alike.pair, pair_id="z", chosen="p", rejected="q", margin=0.01))
    both_fail = replace(both_fail, chosen=replace(alike.chosen, success=False))
    assert both_fail in choose_pairs([*CANDIDATES[:6], both_fail], 2)


def test_stages_and_curves_lie_on_the_videos_time_axis() -> None:
    good = score(episode("drawer-open", 1, 0, success=True, display=False))
    bad = score(episode("drawer-open", 1, 1, success=False, display=False))
    n_frames = bad.steps + 1
    bands = stage_bands(good, n_frames)
    assert bands[0].left == 0
    assert bands[1].left == pytest.approx(bands[0].left + bands[0].width)
    assert bands[-1].left + bands[-1].width == pytest.approx(100 * (good.steps + 1) / n_frames)
    assert [band.name for band in stage_bands(bad, n_frames)] == ["reach", "pull"]
    good_rows, bad_rows = constraint_rows(good, bad, n_frames)
    assert [row.name for row in good_rows] == [row.name for row in bad_rows]
    first_x = float(good_rows[0].path[1:].split()[0])
    assert first_x == pytest.approx(1000 * 0.5 / n_frames, abs=0.1)
    # A speed has no value at the stage's first state, so its curve begins one image later.
    assert float(good_rows[1].path[1:].split()[0]) == pytest.approx(1000 * 1.5 / n_frames, abs=0.1)
    assert not bad_rows[-1].reached
    assert bad_rows[-1].path == ""


def test_only_path_constraints_over_their_threshold_are_filled() -> None:
    good = score(episode("drawer-open", 1, 0, success=True, display=False))
    bad = score(episode("drawer-open", 1, 1, success=False, display=False))
    good_rows, bad_rows = constraint_rows(good, bad, bad.steps + 1)
    rows = {(side, row.name): row for side, side_rows in (("good", good_rows), ("bad", bad_rows)) for row in side_rows}
    assert rows["bad", "hand stays at handle"].excess
    assert not rows["good", "hand stays at handle"].excess
    assert not rows["bad", "gripper near handle"].excess
    assert rows["bad", "gripper near handle"].judged


def test_bars_of_both_sides_share_one_zero() -> None:
    good = score(episode("drawer-open", 1, 0, success=True, display=False))
    bad = score(episode("drawer-open", 1, 1, success=False, display=False))
    bars = term_bars(good, bad)
    assert [bar.key for bar in bars] == ["self", "ext", "success", "total"]
    assert len({bar.zero for bar in bars}) == 1
    for bar in bars:
        for side in (bar.chosen, bar.rejected):
            end = side.left + side.width if side.value < 0 else side.left
            assert end == pytest.approx(bar.zero)
            assert side.left >= -1e-9
            assert side.left + side.width <= 100 + 1e-9


def test_numbers_are_written_for_people() -> None:
    assert [percent(value) for value in (0.4375, 0.5, 1.0)] == ["43.8 %", "50 %", "100 %"]
    assert [signed(value) for value in (0.5, -0.25, 0.001)] == ["+0.50", "\N{MINUS SIGN}0.25", "0"]
    assert [short(value) for value in (0.0139, 1234.5, 0.0, None, math.nan, 0.00001)] == [
        "0.0139",
        "1234",
        "0",
        "\N{EN DASH}",
        "\N{EN DASH}",
        "0",
    ]
    assert quantity(0.0139, "m") == "1.4 cm"
    assert quantity(0.03, "m/step2") == "3 cm/step²"
    assert quantity(0.5, "fraction") == "0.5"
    assert quantity(3.0, "m") == "3 m"
    assert points(-0.12) == "\N{MINUS SIGN}12.0"
    assert [fixed(value) for value in (1.0, 33.333, 0.0, 100.0)] == ["1", "33.33", "0", "100"]


def test_control_characters_in_names_are_shown_escaped() -> None:
    template = page._environment(page.load_jinja()).from_string("<b>{{ name }}</b>\n{{ style|safe }}")
    shown = template.render(name="x\x1b[2J\u202e<i>\r", style="<p>")
    assert shown == "<b>x\\x1b[2J\\u202e&lt;i&gt;\\x0d</b>\n<p>"
