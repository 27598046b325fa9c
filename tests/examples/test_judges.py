"""The scorers of ``examples/judges``, run as the pages say."""

import sys
from pathlib import Path

import numpy as np

from grape.preferences import ScoreSettings, run_score
from grape.preferences.records import load_scorer_values
from grape.store import EpisodeStore
from tests.preferences.rollouts import make_store

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "judges"


def test_scorers_give_what_they_promise(tmp_path: Path) -> None:
    make_store(tmp_path / "store", tasks=("drawer-open",))
    programs = tuple(f"{name}={sys.executable} {EXAMPLES / name}.py" for name in ("haste", "image_change"))
    summary = run_score(ScoreSettings(store=tmp_path / "store", out=tmp_path / "scores", scorer=programs))
    values = {label: item.by_episode() for label, item in load_scorer_values(tmp_path / "scores", summary).items()}
    store = EpisodeStore.open(tmp_path / "store")
    assert set(values) == {"haste", "image_change"}
    for name in store.ids():
        episode = store.read(name)
        assert values["haste"][name] == -episode.meta.steps
        change = np.abs(episode.frames[-1].astype(float) - episode.frames[0]).mean()
        assert values["image_change"][name] == change
