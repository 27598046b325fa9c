"""``grape import grape-npy``: files become episodes, fixed by declared rules."""

import json

import numpy as np
import pytest
from PIL import Image

from grape.core.errors import DataError
from grape.core.events import SilentReporter
from grape.exchange import ImportGrapeNpySettings, run_import_grape_npy
from grape.store import EpisodeStore
from tests.store.grape_npy.test_rollouts import step, write
from tests.store.rlds.golden import golden, needs_golden


def steps(kind, grippers):
    made = []
    for index, gripper in enumerate(grippers):
        pixels = np.full((4, 6, 3), index, np.uint8)
        image = Image.fromarray(pixels) if kind == "image" else pixels
        made.append(step(images=image, action=[index / 10, 0, 0, 0, 0, 0, gripper]))
    return made


def run(folder, out, **options):
    class Listening(SilentReporter):
        def warn(self, message):
            warnings.append(message)

    warnings = []
    summary = run_import_grape_npy(ImportGrapeNpySettings(folder, out, **options), Listening())
    rows = [json.loads(line) for line in (out / "files.jsonl").read_text().splitlines()]
    return summary, EpisodeStore.open(out / "store"), rows, warnings


def test_simplerenv_images_move_before_their_actions(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "success_episode_3_success_num_1_cost_5.npy", steps("image", [1, 1, 0, 0]))
    summary, store, rows, _ = run(tmp_path / "in", tmp_path / "out")
    episode = store.read("put-it-there-0003-success-01")
    assert summary["flavours"] == {"simplerenv": 1}
    assert episode.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3]  # image 0 follows action 0
    np.testing.assert_allclose(episode.actions[:, 0], [0.1, 0.2, 0.3], atol=1e-6)
    assert episode.actions[:, 6].tolist() == [1, 0, 0]
    assert (episode.meta.success, episode.meta.initial_state, episode.meta.extra["cost_hint"]) == (True, 3, 5)
    assert any("moved by one decision" in text for text in rows[0]["done"])
    assert not store.verify()


def test_libero_gripper_is_turned(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "failure_episode_0.npy", steps("array", [-1, 1, 1]))
    write(tmp_path / "in" / "success_episode_0.npy", steps("array", [0, 1, 0]))
    summary, store, rows, warnings = run(tmp_path / "in", tmp_path / "out")
    episode = store.read("put-it-there-0000-failure-00")
    assert episode.actions[:, 6].tolist() == [1, 0, 0]
    assert episode.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 2]
    assert any("turned from +1 closes" in text for text in rows[0]["done"])
    assert any(text.startswith("Odd: the gripper is only 0 and 1") for text in rows[1]["done"])
    assert summary["odd"] == 1
    assert "1 files look odd" in warnings[0]


def test_the_user_may_know_better(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "success_episode_0.npy", steps("array", [0, 1, 0]))
    options = {"gripper": "1 opens, 0 closes", "pictures_after_action": "yes"}
    _, store, rows, _ = run(tmp_path / "in", tmp_path / "out", **options)
    assert store.read("put-it-there-0000-success-00").actions[:, 6].tolist() == [1, 0]
    assert not any("Odd" in text for text in rows[0]["done"])


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "success_episode_0.npy", steps("array", [-1, 1]))
    write(tmp_path / "in" / "success_episode_1.npy", steps("array", [-1, 1]))
    (tmp_path / "in" / "again").mkdir()
    write(tmp_path / "in" / "again" / "success_episode_1.npy", steps("array", [-1, 1]))
    write(tmp_path / "in" / "bad.npy", [step(images=print)])
    (tmp_path / "in" / "gone.npy").symlink_to(tmp_path / "in" / "nowhere.npy")
    (tmp_path / "in" / "folder.npy").mkdir()
    summary, _, rows, warnings = run(tmp_path / "in", tmp_path / "out")
    assert (summary["files"], summary["episodes"], summary["left_out"]) == (5, 2, 3)
    left = {row["file"]: row["left_out"] for row in rows if "left_out" in row}
    assert "builtins.print" in left["bad.npy"]
    assert "another file holds episode" in left["success_episode_1.npy"]
    assert "does not exist" in left["gone.npy"]
    assert len(warnings) == 3


def test_instructions_without_latin_letters_stay_apart(tmp_path):
    (tmp_path / "in").mkdir()
    for folder, prompt in (("a", "碗を置く"), ("b", "皿を置く")):
        (tmp_path / "in" / folder).mkdir()
        taken = [{**taken, "prompt": prompt} for taken in steps("array", [-1, 1])]
        write(tmp_path / "in" / folder / "success_episode_0.npy", taken)
    summary, store, _, _ = run(tmp_path / "in", tmp_path / "out")
    assert (summary["episodes"], summary["left_out"]) == (2, 0)
    assert len({meta.task for meta in store.metas()}) == 2


def test_a_folder_without_anything(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"no \.npy file"):
        run(tmp_path / "in", tmp_path / "out")
    write(tmp_path / "in" / "bad.npy", [])
    with pytest.raises(DataError, match="None of the 1 files"):
        run(tmp_path / "in", tmp_path / "out")


@needs_golden
def test_golden_folder(tmp_path):
    summary, store, rows, _ = run(golden("grape_npy"), tmp_path / "out")
    assert summary["flavours"] == {"libero": 2, "simplerenv": 3}
    assert (summary["files"], summary["left_out"], summary["successes"]) == (6, 1, 2)
    assert "no steps" in next(row["left_out"] for row in rows if row["file"] == "empty_episode.npy")
    assert not store.verify()
    assert run(golden("grape_npy"), tmp_path / "out")[0] == summary


def test_a_folder_and_a_name_that_tell_different_outcomes_are_not_imported(tmp_path):
    for place in ("failures/success_episode_0.npy", "success/success_episode_1.npy", "success/episode_2.npy"):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "in" / place, steps("array", [-1, 1, 1]))
    summary, store, _, warnings = run(tmp_path / "in", tmp_path / "out")
    assert (summary["episodes"], summary["left_out"], summary["successes"], summary["unknown_outcomes"]) == (2, 1, 1, 1)
    assert any("folder 'failures' and the file's name tell different outcomes" in text for text in warnings)
    assert {meta.success for meta in store.metas()} == {True, None}
