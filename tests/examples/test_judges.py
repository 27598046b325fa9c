"""The scorers of ``examples/judges``, run as the pages say."""

import sys
from pathlib import Path

import numpy as np

from grape.collect import CollectSettings, run_collect
from grape.preferences import ScoreSettings, run_score
from grape.preferences.records import load_scorer_values
from grape.store import EpisodeStore

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "judges"


def test_scorers_give_what_they_promise(tmp_path: Path) -> None:
    settings = CollectSettings(
        suite="toy", tasks="push-block", policy="expert", initial_states="0-2", workers=1, out=tmp_path / "rollouts"
    )
    run_collect(settings)
    programs = tuple(f"{name}={sys.executable} {EXAMPLES / name}.py" for name in ("haste", "image_change"))
    summary = run_score(ScoreSettings(store=tmp_path / "rollouts", out=tmp_path / "scores", scorer=programs))
    values = {label: item.by_episode() for label, item in load_scorer_values(tmp_path / "scores", summary).items()}
    store = EpisodeStore.open(tmp_path / "rollouts")
    assert set(values) == {"haste", "image_change"}
    for name in store.ids():
        episode = store.read(name)
        assert values["haste"][name] == -episode.meta.steps
        change = np.abs(episode.frames[-1].astype(float) - episode.frames[0]).mean()
        assert values["image_change"][name] == change
