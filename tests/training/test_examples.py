"""The settings that stand under examples/ are read and make sense; tests/study has those of studies."""

from pathlib import Path

import pytest

from grape.core.settings import read_yaml, settings_from_dict
from grape.training.settings import SftSettings, TrainSettings, check_sft, check_train

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples" / "openvla-7b").rglob("*.yaml"))


def test_there_are_examples():
    assert {path.name for path in EXAMPLES} >= {"train.yaml", "train-full.yaml", "sft.yaml"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_accepted(path, tmp_path):
    if path.name.startswith("sft"):
        check_sft(
            settings_from_dict(
                SftSettings, read_yaml(path), SftSettings(data=(tmp_path,), out=tmp_path, policy=tmp_path)
            )
        )
    else:
        check_train(
            settings_from_dict(
                TrainSettings, read_yaml(path), TrainSettings(pairs=tmp_path, policy=tmp_path, out=tmp_path)
            )
        )
