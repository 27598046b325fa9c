"""The verb export merged for policies that decide in chunks: published files to the byte, conventions beside them."""

import json

import numpy as np
import pytest

from grape.checkpoints import ExportMergedSettings, run_export_merged
from grape.cli.main import main
from grape.core.errors import CompatibilityError, SettingsError
from grape.policies.openvla_oft.loading import load_oft_policy
from tests.openvla_oft.conftest import LIBERO

PARTS = ("libero/action_head--1_checkpoint.pt", "libero/proprio_projector--1_checkpoint.pt")


@pytest.mark.parametrize("parts", [(), PARTS])
def test_a_published_checkpoint_comes_back_with_a_statement(golden, tmp_path, capsys, parts):
    source, out = golden.checkpoint(*parts), tmp_path / "out"
    words = ["export", "merged", "--policy", str(source), "--out", str(out), "--unnorm-key", LIBERO, "--cameras", "2"]
    words += ["--preset", "simplevla-rl", "--convention", "temperature=0.6"]
    assert main([*words, "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["adapter_merged"]
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in source.iterdir()} | {"README.md", "grape.json"}
    for name in names - {"README.md", "grape.json"}:
        assert (out / name).read_bytes() == (source / name).read_bytes(), name
    card = (out / "README.md").read_text()
    assert "support window, temperature 0.6" in card
    assert f"--preset simplevla-rl --unnorm-key {LIBERO} --cameras 2 --convention temperature=0.6" in card
    policy = load_oft_policy(out)
    assert (policy.conventions.temperature, policy.conventions.support) == (0.6, "window")
    assert (policy.layout.cameras, policy.unnorm_key) == (("agentview", "wrist"), LIBERO)
    assert policy.has_logps == (not parts)
    before = (out / "README.md").stat().st_mtime_ns
    assert main(words) == 0  # the work is done
    assert (out / "README.md").stat().st_mtime_ns == before
    with pytest.raises(CompatibilityError, match="another export"):
        run_export_merged(ExportMergedSettings(str(source), out, preset="rlinf", unnorm_key=LIBERO))
    # what was exported needs no preset and comes out again as it is
    run_export_merged(ExportMergedSettings(str(out), tmp_path / "again"))
    again = load_oft_policy(tmp_path / "again")
    assert again.spec == policy.spec
    images, state = [golden.images[:2]], np.zeros((1, 8)) if parts else None
    decisions = [one.decide(one.encode_images(images, ["go"], state)).actions for one in (policy, again)]
    assert np.array_equal(*decisions)


def test_what_is_not_said_is_asked_for_before_weights_are_hashed(golden, tmp_path, monkeypatch):
    def never(*args, **options):
        raise AssertionError("files were hashed")

    monkeypatch.setattr("grape.policies.openvla.exporting._hash", never)
    with pytest.raises(SettingsError, match="Choose a --preset"):
        run_export_merged(ExportMergedSettings(str(golden.checkpoint(PARTS[1])), tmp_path / "out", unnorm_key=LIBERO))
    with pytest.raises(SettingsError, match="choose one"):
        run_export_merged(ExportMergedSettings(str(golden.checkpoint()), tmp_path / "out", preset="rlinf"))
    assert not (tmp_path / "out").exists()


def test_plain_checkpoints_take_no_settings_of_chunks(golden, tmp_path):
    with pytest.raises(SettingsError, match=r"plain OpenVLA.*--unnorm-key, --chunk cannot be used"):
        run_export_merged(ExportMergedSettings(str(golden.checkpoint()), tmp_path / "out", chunk=8, unnorm_key=LIBERO))
