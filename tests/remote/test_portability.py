"""What is uploaded names addresses, never this machine's cache, so that any machine can go on with it."""

import json

import fsspec
import pytest

import grape
from grape.core.errors import SettingsError
from grape.core.remote import writer_claims
from grape.core.remote.addresses import RemoteAddress
from grape.core.remote.mirror_names import address_led_to, mirrors_folder
from grape.core.remote.publishing import mirrored_folder
from grape.core.runs import identity_of
from grape.policies.openvla.adapter_pointer import adapter_base
from grape.preferences.records import portable_path, recorded_stores

HOME = "memory://shared/work"
STATES = {"suite": "toy", "tasks": "0"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Gives every machine a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_claims, "_SETTLED", 0.0)

        def become(name):
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp(name)))

        yield become


def run_all():
    """Everything from a policy at an address to an adapter of it."""
    policy = f"{HOME}/sft/policy"
    rollouts = {**STATES, "policy": policy, "initial_states": "8-10", "lanes": 4, "workers": 1}
    grape.collect(**rollouts, samples=3, temperature=1.0, mixed_episodes=4, out=f"{HOME}/run/collect")
    grape.score(store=f"{HOME}/run/collect", out=f"{HOME}/run/score")
    grape.pair(scores=f"{HOME}/run/score", out=f"{HOME}/run/pair")
    training = {"epochs": 1, "pairs_per_update": 2, "lora_rank": 2, "max_updates": 1}
    grape.train_tpo(pairs=f"{HOME}/run/pair", policy=policy, out=f"{HOME}/run/train", **training)
    for name, chosen in (("before", policy), ("after", f"{HOME}/run/train/policy")):
        evaluation = {**rollouts, "policy": chosen, "initial_states": "20"}
        grape.evaluate(**evaluation, out=f"{HOME}/{name}")
    grape.compare(a=f"{HOME}/before", b=f"{HOME}/after", out=f"{HOME}/compare")


@pytest.fixture(scope="module")
def uploaded(machine):
    """Content of every file there."""
    machine("first")
    grape.collect(**STATES, initial_states="0-3", out=f"{HOME}/demonstrations")
    grape.train_sft(data=(f"{HOME}/demonstrations",), epochs=6, max_updates=20, out=f"{HOME}/sft")
    run_all()
    return contents()


def contents():
    files = fsspec.filesystem("memory")
    return {path: files.cat_file(path) for path in files.find("/shared/work")}


def test_nothing_uploaded_names_this_machines_cache(uploaded):
    mirrors = str(mirrors_folder()).encode()
    assert len(uploaded) > 30
    assert [path for path, content in uploaded.items() if mirrors in content] == []
    assert json.loads(uploaded["/shared/work/before/results.json"])["policy"] == f"{HOME}/sft/policy"
    sft = mirrored_folder(RemoteAddress("memory", "shared/work/sft"))
    loop = grape.LoopSettings(policy=str(sft / "policy"), out=sft / "unused")
    assert identity_of(loop)["policy"] == f"{HOME}/sft/policy"
    assert json.loads(uploaded["/shared/work/compare/comparison.json"])["a"]["policy"] == f"{HOME}/sft/policy"


def test_the_same_commands_find_their_work_done_on_another_machine(uploaded, machine):
    machine("second")
    run_all()
    assert contents() == uploaded


def test_an_adapter_finds_its_base_from_any_machine(uploaded, machine):
    assert json.loads(uploaded["/shared/work/run/train/policy/grape_adapter.json"])["base"] == f"{HOME}/sft/policy"
    machine("third")
    base = adapter_base(mirrored_folder(RemoteAddress("memory", "shared/work/run/train/policy")))
    assert base is not None
    assert base.is_relative_to(mirrors_folder())
    assert (base / "config.json").is_file()


def test_an_adapter_beside_its_base_can_be_mirrored_alone_and_with_it(uploaded, machine):
    files = fsspec.filesystem("memory")
    for path, content in uploaded.items():
        if path.startswith(("/shared/work/run/train/policy/", "/shared/work/sft/policy/")):
            files.pipe_file(path.replace("/shared/work", "/moved"), content)
    files.pipe_file("/moved/run/train/policy/grape_adapter.json", b'{"base": "../../../sft/policy"}')
    machine("fourth")
    whole = mirrored_folder(RemoteAddress("memory", "moved"))
    assert adapter_base(whole / "run" / "train" / "policy").resolve() == (whole / "sft" / "policy").resolve()
    alone = mirrored_folder(RemoteAddress("memory", "moved/run/train/policy"))
    assert adapter_base(alone) == mirrored_folder(RemoteAddress("memory", "moved/sft/policy"))


def test_a_part_of_a_run_is_read_by_its_own_address(machine):
    machine("fifth")
    files = fsspec.filesystem("memory")
    grape.collect(**STATES, initial_states="0-1", samples=2, temperature=0, out="memory://parts/loop/collect")
    grape.score(store="memory://parts/loop/collect", scorer=("success",), out="memory://parts/loop/score")
    done = json.loads(files.cat_file("/parts/loop/score/done.json")) | {"store": "../collect/store"}
    files.pipe_file("/parts/loop/score/done.json", json.dumps(done).encode())
    machine("sixth")
    [store] = recorded_stores("memory://parts/loop/score", "score")
    assert store == mirrored_folder(RemoteAddress("memory", "parts/loop/collect/store"))
    assert len(grape.EpisodeStore.open(store)) == done["episodes"]
    whole = mirrored_folder(RemoteAddress("memory", "parts/loop"))
    [store] = recorded_stores(whole / "score", "score")
    assert store == (whole / "collect" / "store").resolve()


def test_from_a_mirror_no_relative_path_leads_to_a_folder_without_an_address(machine, tmp_path):
    machine("seventh")
    fsspec.filesystem("memory").pipe_file("/deep/a/b/c/d/e/file", b"x")
    folder = mirrored_folder(RemoteAddress("memory", "deep/a/b/c/d/e"))
    assert portable_path(tmp_path, folder) == str(tmp_path.resolve())
    assert address_led_to(folder, str(tmp_path)) == ""
    assert address_led_to(folder, "inner/x") == address_led_to(folder / "inner", "../x") == ""
    assert address_led_to(folder, "../e/x") == address_led_to(folder, "../../../../../../../x") == ""
    assert address_led_to(folder, "../../y") == "memory://deep/a/b/c/y"
    assert address_led_to(folder / "inner", "../../ee") == "memory://deep/a/b/c/d/ee"
    assert address_led_to(tmp_path, "../y") == ""


def test_what_would_be_written_beside_an_address_wants_a_place_here(uploaded, machine, tmp_path):
    machine("eighth")
    with pytest.raises(SettingsError, match=f"The page would not get to {HOME}/before") as caught:
        grape.report(run=f"{HOME}/before")
    assert "--out FILE" in str(caught.value.hint)
    page = tmp_path / "page.html"
    assert grape.report(run=f"{HOME}/before", out=page).report == page
    assert page.stat().st_size > 1000
    with pytest.raises(SettingsError, match="The folder agreement would not get to"):
        grape.agree(run=f"{HOME}/run/score")
    from grape.labeling import LabelSettings
    from grape.labeling.verb import open_labeling

    scores = mirrored_folder(RemoteAddress("memory", "shared/work/run/score"))
    for votes in (None, scores / "votes"):
        with pytest.raises(SettingsError, match="The folder of votes would not get to"):
            open_labeling(LabelSettings(scores=scores, votes=votes), "token")
