"""A run that is extended keeps what it recorded, plays what is new, and refuses what would change an episode."""

import contextlib
from pathlib import Path

import pytest

from grape.collect import CollectSettings
from grape.collect.extending import check_extension
from grape.core.errors import CompatibilityError, GrapeError, SettingsError
from grape.core.files import read_json, write_json
from grape.envs.registry import get_suite
from grape.store import EpisodeFile, EpisodeStore
from tests.collect.test_collect import collect, store_bytes

FIRST = {"tasks": "0", "initial_states": "0-2", "samples": 2, "operators": "sloppy", "workers": 1}
LARGER = FIRST | {"initial_states": "0-3", "samples": 3}


def test_a_run_grows_by_states_and_samples_and_keeps_its_bytes(tmp_path: Path) -> None:
    collect(tmp_path / "run", **FIRST)
    first = store_bytes(tmp_path / "run")
    planned = collect(tmp_path / "run", **LARGER, extend=True, dry_run=True)
    assert (planned["kept"], planned["episodes"]) == (6, 6)
    assert store_bytes(tmp_path / "run") == first
    summary = collect(tmp_path / "run", **LARGER, extend=True)
    larger = store_bytes(tmp_path / "run")
    assert summary["episodes"] == len(larger) == 12
    assert first.items() <= larger.items()
    # Experts' episodes do not depend on their group: here the run is that of the larger settings.
    collect(tmp_path / "at-once", **LARGER)
    assert larger == store_bytes(tmp_path / "at-once")
    before = {"tasks": "0", "initial_states": "0-2", "samples": 2, "operators": "sloppy"}
    recorded = read_json(tmp_path / "run" / "run.json")
    assert recorded["inputs"]["extended"] == summary["extended"] == [before]
    assert (recorded["settings"]["samples"], recorded["settings"]["initial_states"]) == (3, "0-3")
    # With and without the flag it is this run from now on, and the one before is refused.
    assert collect(tmp_path / "run", **LARGER) == collect(tmp_path / "run", **LARGER, extend=True) == summary
    with pytest.raises(CompatibilityError, match=r"settings\.initial_states"):
        collect(tmp_path / "run", **FIRST)


def test_an_extension_can_be_killed_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        collect(tmp_path / name, **FIRST)
    collect(tmp_path / "one", **LARGER, extend=True)
    write, count = EpisodeStore.write_file, 0

    def write_some(store: EpisodeStore, file: EpisodeFile) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        write(store, file)

    monkeypatch.setattr(EpisodeStore, "write_file", write_some)
    with contextlib.suppress(KeyboardInterrupt):
        collect(tmp_path / "two", **LARGER, extend=True)
    assert len(store_bytes(tmp_path / "two")) == 8
    assert not (tmp_path / "two" / "done.json").exists()
    collect(tmp_path / "two", **LARGER)
    assert store_bytes(tmp_path / "two") == store_bytes(tmp_path / "one")
    for name in ("run.json", "plan.json", "done.json"):
        texts = [(tmp_path / run / name).read_text().replace(f"/{run}/", "/") for run in ("one", "two")]
        assert texts[0] == texts[1]


def test_a_kill_between_the_record_and_the_summary_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    collect(tmp_path / "run", **FIRST)
    (tmp_path / "run" / "done.json").unlink()  # what an extension does first
    assert collect(tmp_path / "run", **FIRST)["episodes"] == 6
    (tmp_path / "run" / "done.json").unlink()
    assert collect(tmp_path / "run", **LARGER, extend=True)["episodes"] == 12


def test_what_is_new_is_played_in_groups_of_its_own_and_mixed_episodes_come_after(tmp_path: Path) -> None:
    changes = FIRST | {"initial_states": "0-7", "samples": 4}
    collect(tmp_path / "run", **changes)
    summary = collect(tmp_path / "run", **changes, mixed_episodes=8, extend=True)
    assert summary["episodes"] == 32 + 8
    collect(tmp_path / "at-once", **changes, mixed_episodes=8)
    assert store_bytes(tmp_path / "run") == store_bytes(tmp_path / "at-once")
    again = collect(tmp_path / "run", **changes | {"initial_states": "0-8"}, mixed_episodes=8, extend=True)
    assert again["episodes"] == 36 + 8
    assert [entry.get("mixed_episodes") for entry in again["extended"]] == [None, 8]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "run"
    collect(out, **FIRST | {"tasks": "0,1", "initial_states": "1-2", "operators": "clean:1,sloppy:1"})
    return out


RECORDED = {"tasks": "0,1", "initial_states": "1-2", "samples": 2, "operators": "clean:1,sloppy:1"}


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"tasks": "0", "samples": 3}, "--tasks 0 leaves out"),
        ({"initial_states": "2-3"}, "--initial-states 2-3 leaves out 1 initial states, the first being 1"),
        ({"samples": 1}, "--samples 1 is less"),
        ({"operators": "sloppy:2"}, "--operators sloppy:2 gives"),
        ({"initial_states": "0-2", "operators": "clean:1,sloppy:2"}, "--operators"),
        ({"seed": 1, "samples": 3}, "--seed 0, not 1"),
        ({"max_steps": 5, "samples": 3}, "--max-steps"),
        ({"until": "last-step", "samples": 3}, "--until"),
        ({"lanes": 5, "samples": 3}, "--lanes 4, not 5"),
        ({"display": False, "samples": 3}, "--display"),
        ({"suite": "toy_fine"}, "--suite"),
        ({"shard": "1/2"}, "--shard 1/2"),
        ({"mixed_samples": 9}, "--mixed-samples"),
    ],
)
def test_what_would_change_an_episode_is_refused_and_named(
    recorded: Path, changes: dict[str, object], flag: str
) -> None:
    before = {path: path.read_bytes() for path in recorded.rglob("*.json")}
    with pytest.raises(GrapeError) as refused:
        collect(recorded, **RECORDED | changes, extend=True)
    assert flag in f"{refused.value.message} {refused.value.hint}"
    assert {path: path.read_bytes() for path in recorded.rglob("*.json")} == before


def test_where_there_is_no_run_nothing_is_extended(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no run of 'grape collect'"):
        collect(tmp_path / "run", **FIRST, extend=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("entries", ["all", [1], [{"seed": 3}], {}])
def test_a_record_that_says_nothing_usable_is_refused(tmp_path: Path, entries: object) -> None:
    write_json(tmp_path / "run.json", {"verb": "collect", "settings": {}, "inputs": {"extended": entries}})
    settings = CollectSettings(out=tmp_path, suite="toy", tasks="0")
    with pytest.raises(GrapeError, match=r"run\.json"):
        check_extension(settings, get_suite("toy"))
