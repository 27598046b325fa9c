"""Stores and pairs go to the hub and come back: byte by byte, pinned, and without anything that is not theirs."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

import grape
from grape.core.errors import CompatibilityError, SettingsError
from grape.core.files import file_hash
from grape.core.repositories import local_folder
from grape.hub import PushSettings, run_push
from grape.preferences import read_pairs, recorded_stores
from grape.store import EpisodeStore, open_stores
from tests.hub.standin_hub import TOKEN

pytestmark = pytest.mark.needs("hub")

RECORDED = Path(__file__).resolve().parents[1] / "recorded" / "release_0_1"


class Told:
    """A reporter that keeps its messages."""

    def __init__(self):
        from grape.core.events import SILENT

        self.progress, self.messages = SILENT.progress, []
        self.info = self.warn = self.messages.append

    def __str__(self):
        return "\n".join(self.messages)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A copy of what release 0.1 recorded, in the current folder."""
    shutil.copytree(RECORDED, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def push(run, to, **options):
    return run_push(PushSettings(run=Path(run), to=to, license="mit", **options), Told())


def digests(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def test_a_store_comes_back_byte_by_byte(hub, recorded):
    summary = push("rollouts", "lab/rollouts")
    assert summary["pushed"]
    assert summary["kind"] == "dataset"
    own, back = EpisodeStore.open(recorded / "rollouts"), EpisodeStore.open("hf://lab/rollouts")
    assert digests(own.path) == digests(back.path)
    assert back.digest() == own.digest()
    assert back.path.name == summary["commit"]
    assert not (back.path / ".cache").exists()  # nothing is written into the hub's cache
    assert hub.tokens - {None} == {f"Bearer {TOKEN}"}


def test_pairs_come_back_with_their_episodes_alone(hub, recorded):
    file = recorded / "sampled-pairs" / "pairs.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    push("sampled-pairs", "lab/pairs")
    folder = local_folder("hf://lab/pairs")
    assert read_pairs("hf://lab/pairs") == read_pairs(recorded / "sampled-pairs")
    assert file_hash(folder / "pairs.jsonl") == file_hash(recorded / "sampled-pairs" / "pairs.jsonl")
    named = {name for pair in read_pairs(folder) for name in (pair.chosen, pair.rejected)}
    store, own = open_stores(recorded_stores(folder)), EpisodeStore.open(recorded / "sampled")
    assert set(store.ids()) == named < set(own.ids())
    assert {name: store.checksums()[name] for name in named} == {name: own.checksums()[name] for name in named}


def test_a_run_records_the_commit_and_goes_on_with_it(hub, recorded):
    commit = push("sampled", "lab/sampled")["commit"]
    scored = grape.score(store="hf://lab/sampled", out="scores", calibrate=False)
    settings = yaml.safe_load((recorded / "scores" / "settings.yaml").read_text())
    assert settings["store"] == f"hf://lab/sampled@{commit}"
    assert scored.summary["store"] == f"hf://lab/sampled@{commit}"
    local = grape.score(store="sampled", out="scores-local", calibrate=False)
    assert (recorded / "scores" / "scores.jsonl").read_bytes() == (recorded / "scores-local/scores.jsonl").read_bytes()
    assert local.summary["store"] != scored.summary["store"]
    assert grape.pair(scores="scores", out="pairs").store.path.name == commit
    pushed_again = push("pairs", "lab/pairs-again")
    assert "lab/sampled" not in pushed_again["open"]
    # The hub moves on: the name then means other episodes, and the folder of the earlier ones is not theirs.
    hub.add_commit("dataset", "lab/sampled", hub.files("dataset", "lab/sampled")[1] | {"note.txt": b"x"})
    assert grape.score(store="hf://lab/sampled", out="scores", calibrate=False).summary == scored.summary
    assert EpisodeStore.open(f"hf://lab/sampled@{commit}").path.name == commit


def test_without_a_network_the_cache_serves(hub, recorded, monkeypatch):
    from huggingface_hub import constants

    push("rollouts", "lab/rollouts")
    fetched = EpisodeStore.open("hf://lab/rollouts").digest()
    hub.close()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert EpisodeStore.open("hf://lab/rollouts").digest() == fetched
    with pytest.raises(SettingsError, match="not whole in the cache") as raised:
        EpisodeStore.open("hf://lab/others")
    assert "hf download lab/others --repo-type dataset" in raised.value.hint


def test_only_harmless_files_are_fetched(hub, recorded):
    push("rollouts", "lab/rollouts")
    files = hub.files("dataset", "lab/rollouts")[1]
    hub.add_commit("dataset", "lab/rollouts", files | {"a.pkl": b"\x80\x04.", "load.py": b"import os", "e/x.pt": b"x"})
    folder = local_folder("hf://lab/rollouts")
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".parquet"}
    paths = {path for method, path in hub.requests if "/resolve/" in path}
    assert not [path for path in paths if path.endswith((".pkl", ".py", ".pt"))]


@pytest.mark.parametrize("name", ["hf://lab", "hf://lab/x/y", "hf://../x", "hf:/lab/x@"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(SettingsError, match="names no repository"):
        EpisodeStore.open(name)


def test_unknown_repositories_and_revisions(hub, recorded):
    push("rollouts", "lab/rollouts")
    with pytest.raises(SettingsError, match="neither a folder here nor a data set"):
        EpisodeStore.open("hf://lab/nothing")
    with pytest.raises(SettingsError, match="no revision 'v9'"):
        EpisodeStore.open("hf://lab/rollouts@v9")


def test_a_second_push_is_a_commit_on_top(hub, recorded):
    first = push("rollouts", "lab/rollouts")["commit"]
    for path in list((recorded / "rollouts/store/episodes").iterdir())[:2]:
        path.unlink()
    reporter = Told()
    second = run_push(PushSettings(run=Path("rollouts"), to="lab/rollouts", license="mit"), reporter)
    assert "a commit on top" in str(reporter)
    own = EpisodeStore.open("rollouts")
    assert EpisodeStore.open("hf://lab/rollouts").digest() == own.digest()
    assert len(EpisodeStore.open(f"hf://lab/rollouts@{first}")) == len(own) + 2
    assert second["commit"] != first


def test_episodes_of_something_else_are_not_mixed_in(hub, recorded):
    hub.add_commit("dataset", "lab/mixed", {"episodes/other.parquet": b"x", "README.md": b"mine"})
    before = len(hub.commits["dataset", "lab/mixed"])
    with pytest.raises(CompatibilityError, match=r"episodes/other\.parquet"):
        push("rollouts", "lab/mixed")
    assert len(hub.commits["dataset", "lab/mixed"]) == before


def test_private_data_never_goes_into_a_public_repository(hub, recorded):
    push("sampled-pairs", "lab/secret", private=True)
    assert hub.private["dataset", "lab/secret"]
    hub.add_commit("dataset", "lab/open", {})
    with pytest.raises(SettingsError, match="public"):
        push("sampled-pairs", "lab/open", private=True)
    assert len(hub.commits["dataset", "lab/open"]) == 1


@pytest.mark.parametrize("status", [403, 503])
def test_what_the_hub_refuses_leaves_the_folder(hub, recorded, status, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.refuse = status
    reporter = Told()
    settings = PushSettings(run=Path("sampled-pairs"), to="lab/pairs", license="mit")
    if status == 403:
        with pytest.raises(SettingsError, match="refuses to write") as raised:
            run_push(settings, reporter)
        message = str(raised.value)
    else:
        assert not run_push(settings, reporter)["pushed"]
        message = str(reporter)
    assert "hf upload lab/pairs runs/push/lab/pairs . --repo-type dataset" in message
    assert TOKEN not in message
    assert (recorded / "runs/push/lab/pairs/pairs.jsonl").is_file()
    hub.refuse = 0
    assert run_push(settings, reporter)["pushed"]


def test_without_a_token_the_folder_is_written(hub, recorded, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    reporter = Told()
    summary = run_push(PushSettings(run=Path("rollouts"), to="lab/rollouts"), reporter)
    assert not summary["pushed"]
    assert "no token" in str(reporter)
    assert "No --license" in str(reporter)
    assert not hub.requests
    again = digests(summary["folder"])
    run_push(PushSettings(run=Path("rollouts"), to="lab/rollouts", offline=True), reporter)
    assert digests(summary["folder"]) == again


def test_the_card_says_what_was_measured(recorded):
    summary = push("sampled-pairs", "lab/pairs", offline=True, datasets=("lab/sampled",))
    text = (Path(summary["folder"]) / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "mit"
    assert front["source_datasets"] == ["lab/sampled"]
    # 2 of 8 chosen sides succeeded; the pairs share 4 initial states.
    assert "| success | chosen side | 25.0 % | 7.1 to 59.1 % | 8 |" in text
    assert "| success | rejected side (control) | 0.0 % |" in text
    assert "grape train --pairs hf://lab/pairs" in text
    written = json.loads((Path(summary["folder"]) / "grape_push.json").read_text())
    assert {name: file_hash(Path(summary["folder"]) / name) for name in written["files"]} == written["files"]


def test_no_path_token_or_log_is_pushed(recorded):
    run = recorded / "sampled-pairs"
    for file in ("run.json", "done.json"):
        data = json.loads((run / file).read_text())
        data["judge"] = {"command": "python /home/someone/judge.py --key 1234", "label": "mine"}
        (run / file).write_text(json.dumps(data))
    (run / "log.jsonl").write_text("{}\n")
    (run / "weights.pkl").write_bytes(b"x")
    folder = Path(push(run, "lab/pairs", offline=True)["folder"])
    names = digests(folder).keys()
    assert not [name for name in names if "log" in name or name.endswith(".pkl") or name == "settings.yaml"]
    text = "".join(path.read_text() for path in folder.glob("*.*") if path.suffix in (".json", ".md", ".jsonl"))
    assert "/home" not in text
    assert "1234" not in text
    assert str(recorded) not in text
    assert '"label": "mine"' in text


def test_a_token_in_a_file_stops_everything(recorded):
    pairs = recorded / "sampled-pairs" / "pairs.jsonl"
    pairs.write_text(pairs.read_text().replace("Succeeded", f"hf_{'a' * 34}", 1))
    with pytest.raises(SettingsError, match=r"pairs\.jsonl holds what looks like a token") as raised:
        push("sampled-pairs", "lab/pairs", offline=True)
    assert "aaaa" not in str(raised.value)
    assert not (recorded / "runs").exists()


def test_a_folder_of_something_else_is_left_alone(recorded):
    with pytest.raises(CompatibilityError, match="something else"):
        push("rollouts", "lab/rollouts", offline=True, out=recorded / "sampled")
    push("rollouts", "lab/rollouts", offline=True, out=recorded / "pushed")
    with pytest.raises(CompatibilityError, match="something else"):
        push("rollouts", "lab/another", offline=True, out=recorded / "pushed")


def test_a_dry_run_writes_nothing(recorded):
    before = digests(recorded)
    plan = push("rollouts", "lab/rollouts", dry_run=True)
    assert plan["dry_run"]
    assert "store.json" in plan["files"]
    assert digests(recorded) == before


@pytest.mark.parametrize(
    ("run", "options", "match"),
    [
        ("nowhere", {}, "is no folder"),
        ("sampled-scores", {}, "nothing that can be pushed"),
        ("rollouts", {"what": "pairs"}, "holds no pairs"),
        ("rollouts", {"what": "report"}, "holds no report"),
        ("rollouts", {"to": "lab"}, "no repository"),
        ("rollouts", {"to": "lab/x@main"}, "no repository"),
    ],
)
def test_mistakes_are_explained(recorded, run, options, match):
    with pytest.raises(grape.GrapeError, match=match):
        push(run, **{"to": "lab/x", "offline": True, **options})


def test_a_process_that_was_killed_leaves_nothing_half_done(recorded, monkeypatch):
    import grape.hub.push as module

    placed = []

    def fail(source, target):
        placed.append(target)
        if len(placed) == 5:
            raise OSError(28, "No space left on device")
        shutil.copyfile(source, target)

    monkeypatch.setattr(module, "_place", fail)
    with pytest.raises(grape.GrapeError, match="No space left"):
        push("rollouts", "lab/rollouts", offline=True)
    assert not Path("runs/push/lab/rollouts").exists()
    monkeypatch.undo()
    monkeypatch.chdir(recorded)
    assert push("rollouts", "lab/rollouts", offline=True)["files"] == 21
