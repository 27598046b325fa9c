"""``grape import grape-rlds``: RLDS pairs become a store and a folder of pairs."""

import numpy as np
import pytest

from grape.core.errors import CompatibilityError, DataError
from grape.exchange import ImportGrapeRldsSettings, RldsExportSettings, run_export_rlds, run_import_grape_rlds
from grape.preferences import read_pairs
from grape.preferences.records import recorded_stores
from grape.store import EpisodeStore
from tests.exchange.recordings import loader_actions, make_recordings
from tests.store.rlds.datasets import write_dataset
from tests.store.rlds.golden import golden, needs_golden


class Reader:
    preprocessing_hash = "abc"

    def prompt(self, instruction):
        return f"In: {instruction}?"

    def action_tokens(self, actions):
        return np.round(100 * actions).astype(np.int32)


def settings(folder, out, **options):
    places = {side: folder / side / "rlds_np_rollout" for side in ("chosen", "rejected")}
    return ImportGrapeRldsSettings(**places, out=out, **options)


def test_an_export_comes_back(tmp_path):
    store, folder = make_recordings(tmp_path)
    run_export_rlds(RldsExportSettings(tmp_path / "rlds", pairs=folder))
    import_settings = settings(tmp_path / "rlds", tmp_path / "back", split="all")
    summary = run_import_grape_rlds(import_settings, reader=Reader())
    assert (summary["pairs"], summary["joined_by"], summary["steps"]) == (
        4,
        "file_path",
        {"chosen": 18, "rejected": 24},
    )
    before = {pair.pair_id: pair for pair in read_pairs(folder)}
    pairs = read_pairs(tmp_path / "back" / "pairs")
    assert {pair.pair_id for pair in pairs} == set(before)
    back = EpisodeStore.open(*recorded_stores(tmp_path / "back" / "pairs"))
    assert not back.verify()
    for pair in pairs:
        for side in ("chosen", "rejected"):
            imported, expected = back.read(getattr(pair, side)), store.read(getattr(before[pair.pair_id], side))
            np.testing.assert_array_equal(imported.frames[:-1], expected.frames[:-1])
            np.testing.assert_allclose(imported.actions, loader_actions(expected.actions), atol=1e-6)
            np.testing.assert_array_equal(imported.action_tokens, Reader().action_tokens(imported.actions))
            assert (imported.meta.prompt, imported.meta.preprocessing_hash) == ("In: öffne the drawer?", "abc")
            assert (imported.meta.actor, imported.meta.initial_state) == ("policy", pair.initial_state)
            assert np.isnan(imported.token_logps).all()
    assert run_import_grape_rlds(import_settings, reader=Reader()) == summary
    with pytest.raises(CompatibilityError):
        run_import_grape_rlds(import_settings)


def test_images_taken_after_the_action_are_put_before_the_next(tmp_path):
    store, folder = make_recordings(tmp_path)
    run_export_rlds(RldsExportSettings(tmp_path / "rlds", pairs=folder))
    run_import_grape_rlds(settings(tmp_path / "rlds", tmp_path / "back", split="val", pictures_after_action=True))
    back = EpisodeStore.open(tmp_path / "back" / "store")
    meta = back.metas()[0]
    source = {pair.pair_id: pair for pair in read_pairs(folder)}[meta.extra["file_path"]]
    imported, expected = back.read(meta.episode_id), store.read(source.chosen)
    assert imported.steps == expected.steps - 1
    np.testing.assert_array_equal(imported.frames, expected.frames[:-1])
    np.testing.assert_allclose(imported.actions, loader_actions(expected.actions)[1:], atol=1e-6)
    assert (imported.meta.actor, imported.action_tokens.max()) == ("expert", -1)


@needs_golden
@pytest.mark.parametrize(("rule", "steps"), [("plain", (62, 70)), ("rlds_np_rollout", (50, 58))])
def test_published_pairs(tmp_path, rule, steps):
    summary = run_import_grape_rlds(settings(golden("grape_pair"), tmp_path / "out", rule=rule))
    assert (summary["pairs"], tuple(summary["steps"].values())) == (6, steps)


def test_sides_that_cannot_be_joined(tmp_path):
    write_dataset(tmp_path / "chosen", {"train": ["a", "b"]})
    write_dataset(tmp_path / "rejected", {"train": ["x"]})
    with pytest.raises(DataError, match="neither by name nor by order"):
        run_import_grape_rlds(settings(tmp_path, tmp_path / "out"))
