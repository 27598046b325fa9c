"""A policy that was pushed is opened by ``hf://``: the same bytes, the same policy."""

from pathlib import Path

import pytest

from grape.core.errors import SettingsError
from grape.core.repositories import pinned_settings
from grape.evaluation import EvaluateSettings
from grape.hub import PushSettings, run_push
from grape.policies.openvla import load_policy
from grape.policies.registry import policy_folder, recognize_policy
from tests.hub.conftest import hub  # noqa: F401  (a fixture)

pytestmark = pytest.mark.needs("train")


def test_the_policy_is_the_same_and_pinned(hub, nano, tmp_path):  # noqa: F811
    from grape.policies.openvla import save_policy

    save_policy(nano, tmp_path / "policy")
    (tmp_path / "policy" / "provenance.json").write_text('{"collected": {"toy": {"reach": "0-3"}}}')
    settings = PushSettings(run=tmp_path / "policy", to="lab/nano", out=tmp_path / "out", license="mit")
    commit = run_push(settings)["commit"]
    chosen = pinned_settings(EvaluateSettings(policy="hf://lab/nano", suite="toy"))
    assert chosen.policy == f"hf://lab/nano@{commit}"
    assert recognize_policy(chosen.policy)[0].name == "openvla"
    opened = load_policy(chosen.policy)
    assert opened.spec.policy_hash == load_policy(tmp_path / "policy").spec.policy_hash
    folder = policy_folder(chosen.policy)
    assert folder.name == commit
    own = {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()}
    back = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "grape_push.json"}
    assert back == own
    with pytest.raises(SettingsError, match="neither a folder here nor a checkpoint"):
        pinned_settings(EvaluateSettings(policy="hf://lab/other", suite="toy"))
    assert pinned_settings(EvaluateSettings(policy=str(Path("lab/nano")), suite="toy")).policy == "lab/nano"
