"""Stores of many packs: opening one takes longer than reading an episode, so no verb may open it for each."""

import pickle
from collections import Counter

import pytest

from grape.cli.main import main
from grape.collect import CollectSettings, MergeSettings, run_collect, run_merge
from grape.store import EpisodeStore, OpenedStores, packs

EPISODES, PACKS = 16, 8


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    place = tmp_path_factory.mktemp("rollouts")
    settings = {"suite": "toy", "tasks": "push-block", "initial_states": "0-7", "samples": 2, "operators": "sloppy"}
    run_collect(CollectSettings(out=place / "run", **settings, workers=1))
    run_merge(MergeSettings(stores=(place / "run",), out=place / "packed", pack=EPISODES // PACKS))
    return place / "packed"


@pytest.mark.parametrize(
    "verb",
    [
        "export lerobot --collection {store} --out {out} --fps 5 --workers 1",
        "export rlds --collection {store} --out {out} --workers 1",
        pytest.param("export rerun --store {store} --out {out}", marks=pytest.mark.needs("rerun")),
        "score --store {store} --out {out} --workers 1",
        "costs validate toy/push-block --store {store} --workers 1",
    ],
    ids=lambda verb: " ".join(verb.split()[:2]),
)
def test_no_verb_opens_a_store_for_each_episode(rollouts, tmp_path, monkeypatch, verb):
    opened, read = [], Counter()
    open_store, read_directory = EpisodeStore.open.__func__, packs.read_directory

    def counted_open(cls, path):
        opened.append(path)
        return open_store(cls, path)

    def counted_read(path):
        read[path.name] += 1
        return read_directory(path)

    monkeypatch.setattr(EpisodeStore, "open", classmethod(counted_open))
    monkeypatch.setattr(packs, "read_directory", counted_read)
    # 1 is the verdict of a trial, for which these episodes are too few.
    assert main(verb.format(store=rollouts, out=tmp_path / "out").split()) == int(verb.startswith("costs"))
    assert len(read) == PACKS
    assert max(read.values()) <= len(opened) < EPISODES // 3


def test_another_process_opens_stores_for_itself(rollouts):
    stores = OpenedStores()
    (name, *_) = EpisodeStore.open(rollouts).ids()
    trajectory = stores.read(rollouts, name)
    sent = pickle.dumps(stores)
    assert len(sent) < 100
    assert pickle.loads(sent).read(rollouts, name).meta == trajectory.meta
