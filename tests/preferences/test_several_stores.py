"""Several stores that are scored as one give what one store with all of their episodes gives, up to the report."""

import json
import shutil
from pathlib import Path

import pytest

from grape.agreement.sources import read_sources
from grape.cli.main import main
from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.files import read_json, write_json
from grape.exchange.export_source import open_source
from grape.preferences import PairSettings, ScoreSettings, recorded_stores, run_pair, run_score, score_trajectories
from grape.report.contents import read_contents
from grape.store import EpisodeStore, about_unfinished, open_stores, save_trajectories
from tests.preferences.rollouts import TASKS, make_rollout
from tests.reporters import Hearing

ROLLOUTS = {
    (task, state): [make_rollout(task, state, sample, success=(sample + state) % 3 == 0) for sample in range(4)]
    for task in TASKS
    for state in range(3)
}


def store_of(path: Path, states: tuple[int, ...]) -> Path:
    """A collection of all tasks from some initial states."""
    chosen = [rollout for (_, state), some in ROLLOUTS.items() if state in states for rollout in some]
    return save_trajectories(path / "store", chosen).path.parent


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """``whole``, and ``one`` and ``two`` that hold its episodes."""
    store_of(tmp_path / "apart" / "one", (0, 1))
    store_of(tmp_path / "apart" / "two", (2,))
    store_of(tmp_path / "whole", (0, 1, 2))
    return tmp_path


def test_scores_and_pairs_are_those_of_one_store(run: Path, tmp_path: Path) -> None:
    apart, whole = run / "apart", run / "whole"
    summary = run_score(ScoreSettings(store=(apart / "one", apart / "two" / "store"), out=apart / "score"))
    expected = run_score(ScoreSettings(store=whole, out=whole / "score"))
    assert summary["stores"] == ["../one/store", "../two/store"]
    assert {**expected, "stores": summary["stores"]} == {**summary, "store": expected["store"]}
    recorded, plain = (read_json(place / "score" / "run.json")["inputs"] for place in (apart, whole))
    digests = sorted(EpisodeStore.open(apart / name).digest() for name in ("one", "two"))
    assert recorded == plain | {"stores": digests}
    for place in (apart, whole):
        run_pair(PairSettings(scores=place / "score", out=place / "pair"))
    for name in ("score/scores.jsonl", "score/calibration.json", "pair/pairs.jsonl"):
        assert (apart / name).read_bytes() == (whole / name).read_bytes()
    # The order of the stores says nothing, and runs can be moved with what they were made from.
    again = run_score(ScoreSettings(store=(apart / "two", apart / "one"), out=apart / "score"))
    assert again == summary
    moved = Path(shutil.move(apart, tmp_path / "moved"))
    for verb in ("score", "pair"):
        places = tuple((moved / name / "store").resolve() for name in ("one", "two"))
        assert recorded_stores(moved / verb, verb) == places
    assert open_source("rlds", moved / "pair", None, only_successes=False).pairs
    assert read_sources(moved)[0].store.digest() == EpisodeStore.open(whole).digest()
    contents = read_contents(moved)
    assert [len(item.store or ()) for item in contents.rounds] == [len(EpisodeStore.open(whole))]
    assert not [sentence for sentence in contents.missing if "lacks" in sentence or "no scores" in sentence]


def test_the_command_takes_several_stores(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stores = [str(run / "apart" / name) for name in ("one", "two")]
    words = ["score", "--out", str(run / "scores"), "--no-calibrate", "--store", *stores]
    assert main([*words, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [Path(store).resolve() for store in summary["stores"]] == [Path(store) / "store" for store in stores]
    assert "store" not in summary
    assert main(words) == 0
    assert stores[1] in capsys.readouterr().out.replace("\n", "")
    assert read_json(run / "scores" / "done.json")["episodes"] == 12 * len(TASKS)


def test_several_stores_are_one_in_memory_too(run: Path) -> None:
    stores = open_stores([run / "apart" / name for name in ("one", "two")])
    whole = EpisodeStore.open(run / "whole")
    assert (stores.ids(), stores.metas(), stores.digest()) == (whole.ids(), whole.metas(), whole.digest())
    assert len(stores) == len(whole)
    assert whole.ids()[-1] in stores
    assert "nothing" not in stores
    assert not stores.verify()
    scored = score_trajectories(stores)
    assert [score.gcpg for score in scored] == [score.gcpg for score in score_trajectories(whole)]
    with pytest.raises(DataError, match=r"one/store, .*two/store has no episode 'nothing'"):
        stores.read("nothing")
    with pytest.raises(CompatibilityError, match="cannot be written into several stores"):
        stores.write(ROLLOUTS[TASKS[0], 0][0])


def test_equal_episodes_count_once_and_different_ones_are_refused(run: Path) -> None:
    apart = run / "apart"
    shutil.copytree(apart / "one", apart / "copy")
    assert len(open_stores([apart / "one", apart / "copy", apart / "two"])) == 12 * len(TASKS)
    other = make_rollout(TASKS[0], 0, 0, success=False, steps=3)
    save_trajectories(run / "other" / "store", [other])
    with pytest.raises(DataError, match=f"hold different episodes of equal names .1: {other.meta.episode_id}"):
        run_score(ScoreSettings(store=(apart / "one", run / "other"), out=run / "scores"))
    assert not (run / "scores").exists()


def test_stores_that_do_not_go_together_are_refused(run: Path) -> None:
    one, two = run / "apart" / "one", run / "apart" / "two"
    with pytest.raises(SettingsError, match="is given twice"):
        open_stores([one, one / "store"])
    with pytest.raises(SettingsError, match="No episodes are named"):
        run_score(ScoreSettings(store=(), out=run / "scores"))
    header = read_json(two / "store" / "store.json")
    write_json(two / "store" / "store.json", header | {"contract": {"action_space": "other"}})
    with pytest.raises(CompatibilityError, match=r"different contracts\. action_space: None and other"):
        open_stores([one, two])
    write_json(two / "store" / "store.json", header | {"suite": "toy"})
    with pytest.raises(CompatibilityError, match=r"of suite 'metaworld', .* of 'toy'"):
        open_stores([one, two])


def test_a_damaged_file_of_the_second_store_is_named(run: Path) -> None:
    path = next((run / "apart" / "two" / "store" / "episodes").iterdir())
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=path.name):
        run_score(ScoreSettings(store=(run / "apart" / "one", run / "apart" / "two"), out=run / "scores"))


def test_scores_of_one_store_are_recorded_as_ever(run: Path) -> None:
    for name, store in (("plain", run / "whole"), ("listed", (run / "whole",))):
        run_score(ScoreSettings(store=store, out=run / name))
    texts = [(run / name / "done.json").read_text() for name in ("plain", "listed")]
    assert texts[0] == texts[1]
    assert '"store": "../whole/store"' in texts[0]
    assert "stores" not in texts[0] + (run / "plain" / "run.json").read_text()


def test_shards_that_divide_initial_states_are_warned_of_unless_all_are_given(run: Path) -> None:
    places = [run / "apart" / name for name in ("one", "two")]
    for number, place in enumerate(places, start=1):
        write_json(place / "run.json", {"verb": "collect", "settings": {"shard": f"{number}/2"}, "inputs": {}})
        episodes = len(EpisodeStore.open(place))
        facts = {"episodes": episodes, "whole": 12 * len(TASKS), "divides_states": True}
        write_json(place / "plan.json", facts | {"shard": f"{number}/2"})
    assert about_unfinished(open_stores(places)) == ()
    heard = Hearing()
    run_score(ScoreSettings(store=places[0], out=run / "scores"), heard)
    assert any("episodes in several of 2 shards, of which 1 are given here" in line for line in heard.warnings)
