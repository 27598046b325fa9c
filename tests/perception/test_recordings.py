"""The whole data flow without simulator or policy: recordings, keypoints from images, specification, scores, pairs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from grape.cli.main import main
from grape.costs import unavailable_constraints
from grape.exchange import ImportVideoSettings, run_import_video
from grape.preferences import read_pairs, read_scores, with_curves
from grape.store import EpisodeStore
from tests.perception.recording_fixtures import INSTRUCTION, TrueMasks, film_push, write_episode, write_list

pytest.importorskip("metaworld")
pytest.importorskip("av")

ANSWER = Path(__file__).with_name("answer.json")
REGION = ["-0.3", "0.4", "0.006", "0.3", "0.95", "0.25"]
PUCK, TARGET = "point_6", "point_5"


@pytest.fixture(scope="module")
def films():
    """A success, one that stops before the puck, and one that stops beside it."""
    made = [film_push("clean", None), film_push("sloppy", 3), film_push("clean", 5)]
    assert [film["success"] for film in made] == [True, False, False]
    return made


@pytest.fixture(scope="module")
def recordings(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    write_list(folder / "episodes.yaml", [write_episode(folder, f"take{n}", film) for n, film in enumerate(films)])
    return folder


@pytest.fixture(scope="module")
def keypoints(recordings, tmp_path_factory):
    out = tmp_path_factory.mktemp("proposed") / "keypoints"
    words = ["keypoints", str(recordings / "episodes.yaml"), "--features", "colour", "--region", *REGION]
    assert main([*words, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def imported(recordings, keypoints, tmp_path_factory):
    """What a user does after the model has chosen: only its keypoints are kept, then everything is imported."""
    data = yaml.safe_load((keypoints / "keypoints.yaml").read_text())
    chosen = tmp_path_factory.mktemp("chosen")
    for name in ("reference.png", "reference-depth.png"):
        shutil.copy(keypoints / name, chosen / name)
    data["keypoints"] = [row for row in data["keypoints"] if row["name"] in (PUCK, TARGET)]
    (chosen / "keypoints.yaml").write_text(yaml.safe_dump(data))
    out = tmp_path_factory.mktemp("imported") / "real"
    words = ["import", "video", str(recordings / "episodes.yaml"), "--keypoints", str(chosen), "--out", str(out)]
    assert main(words) == 0
    return out


def truth(film, name):
    return np.stack([snapshot.keypoints[name] for snapshot in film["snapshots"]])


@pytest.mark.slow
def test_candidates_lie_on_puck_and_target(films, keypoints):
    rows = json.loads((keypoints / "candidates.json").read_text())
    points = {row["name"]: np.array(row["point"]) for row in rows}
    first = films[0]["snapshots"][0].keypoints
    assert np.linalg.norm(points[PUCK] - first["object"]) < 0.03
    assert np.linalg.norm(points[TARGET] - first["goal"]) < 0.03
    assert (keypoints / "numbered.png").stat().st_size > 1000
    assert set(yaml.safe_load((keypoints / "names.yaml").read_text())["keypoints"]) == {"gripper", *points}


@pytest.mark.slow
def test_imported_keypoints_are_where_things_are(films, imported):
    store = EpisodeStore.open(imported / "store")
    assert store.ids() == tuple(f"push-puck-0000-0{n}" for n in range(3))
    assert not store.verify()
    for film, episode_id in zip(films, store.ids(), strict=True):
        episode = store.read(episode_id, display=True)
        np.testing.assert_allclose(episode.keypoints["gripper"], truth(film, "gripper"), atol=1e-6)
        puck, true_puck = episode.keypoints[PUCK], truth(film, "object")
        # The keypoint lies on the puck's surface; what must hold is that it moves as the puck does.
        error = np.linalg.norm((puck - puck[0]) - (true_puck - true_puck[0]), axis=1)
        assert np.isfinite(puck).all(axis=1).mean() > 0.8
        assert np.nanmedian(error) < 0.01
        assert np.nanmax(error) < 0.02
        # Half the decoded video is the simulator's image, but for compression.
        shown = np.stack([view.image for view in film["views"]])[::4].astype(int)
        assert np.abs(episode.frames.astype(int) - shown).mean() < 4
        assert episode.actions.shape == (episode.steps, 7)
        np.testing.assert_allclose(episode.actions, film["actions"], atol=1e-6)
        assert episode.meta.success is film["success"]
        assert np.isnan(episode.token_logps).all()


@pytest.mark.slow
def test_the_target_that_the_puck_covers_is_lost_and_not_remembered(films, imported):
    success = EpisodeStore.open(imported / "store").read("push-puck-0000-00", frames=False)
    target = success.keypoints[TARGET]
    assert np.isfinite(target[:5]).all()
    assert np.isnan(target[-1]).all()
    facts = success.meta.extra["keypoints"][TARGET]
    assert facts["lost_states"] == int(np.isnan(target).any(axis=1).sum()) > 0


@pytest.mark.slow
def test_from_recordings_to_pairs(recordings, keypoints, imported, tmp_path, capsys):
    answers = tmp_path / "answers"
    answers.mkdir()
    shutil.copy(ANSWER, answers / "1.json")
    costs, scores, pairs = tmp_path / "costs", tmp_path / "scores", tmp_path / "pairs"
    words = ["costs", "generate", "--instruction", INSTRUCTION, "--limit", "12"]
    words += ["--image", str(keypoints / "numbered.png"), "--names", str(keypoints / "names.yaml")]
    words += ["--client", "script", "--answers", str(answers)]
    assert main([*words, "--out", str(costs)]) == 0
    specification = costs / "specification.yaml"
    assert f"picture: {PUCK[-1]}" in specification.read_text()  # where the point comes from is kept
    assert main(["score", "--store", str(imported), "--costs", str(specification), "--out", str(scores)]) == 0
    assert main(["pair", "--scores", str(scores), "--out", str(pairs)]) == 0
    scores_by_id = read_scores(scores)
    assert all(score.r_self is None for score in scores_by_id.values())
    assert [scores_by_id[name].stages[0].done for name in sorted(scores_by_id)] == [True, False, True]
    best, far, near = (scores_by_id[name] for name in sorted(scores_by_id))
    assert best.gcpg > near.gcpg > far.gcpg  # costs of keypoints from images tell the two failures apart
    assert not unavailable_constraints(with_curves(scores, [near])[near.episode_id].stages)
    made = read_pairs(pairs)
    assert {pair.chosen for pair in made} == {best.episode_id}
    assert {pair.rejected for pair in made} <= {near.episode_id, far.episode_id}
    summary = json.loads((scores / "done.json").read_text())
    assert any("R_self does not count" in warning for warning in summary["warnings"])
    assert "R_self does not count" in capsys.readouterr().err


@pytest.mark.slow
def test_a_phrase_finds_the_puck_again_where_tracking_lost_it(films, recordings, tmp_path):
    class Forgetful:
        """Loses every point after the tenth image."""

        def track(self, images, points, depth=None):
            from grape.perception import PatchTracker, Tracks

            tracks = PatchTracker().track(images, points, depth)
            kept = np.arange(len(images))[:, None] <= 10
            return Tracks(tracks.pixels, np.where(kept, tracks.confidence, 0.0))

    (tmp_path / "keypoints.yaml").write_text("version: 1\nkeypoints:\n  - {name: puck, phrase: yellow puck}\n")
    listed = yaml.safe_load((recordings / "episodes.yaml").read_text())
    one = recordings / "one.yaml"
    one.write_text(yaml.safe_dump(listed | {"episodes": listed["episodes"][:1]}))
    finder = TrueMasks(films[:1], {"yellow puck": "obj"})
    settings = ImportVideoSettings(one, tmp_path / "out", keypoints=tmp_path / "keypoints.yaml")
    run_import_video(settings, tracker=Forgetful(), finder=finder)
    episode = EpisodeStore.open(tmp_path / "out" / "store").read("push-puck-0000-00", frames=False)
    puck, true_puck = episode.keypoints["puck"], truth(films[0], "object")
    error = np.linalg.norm((puck - puck[0]) - (true_puck - true_puck[0]), axis=1)
    assert np.isfinite(error).all()
    assert np.median(error) < 0.01
    facts = episode.meta.extra["keypoints"]["puck"]
    assert facts["from"] == "phrase: yellow puck"
    assert facts["found_again"] == len(puck) - 3  # states 0 to 2 lie in the first eleven images
    assert finder.n_calls == 1 + facts["found_again"]
