"""What verbs read of folders and flags: hostile values give a sentence, never a traceback."""

import os

import pytest

from grape.collect import CollectSettings
from grape.core.cameras import camera_from_dict
from grape.core.errors import DataError, SettingsError
from grape.core.files import file_hash, read_json_mapping
from grape.core.runs import RunFolder, load_summary
from grape.core.settings import settings_from_dict

HOSTILE = ("[]", "null", '"x"', "-1", "1e400", str(2**80), "[" * 100_000, '{"verb": "\\ud800"}', "{", "")


@pytest.mark.parametrize("text", HOSTILE)
def test_the_files_of_a_run_hold_objects(tmp_path, text):
    for name in ("run.json", "done.json"):
        (tmp_path / "run.json").write_text('{"verb": "score"}')
        (tmp_path / "done.json").write_text("{}")
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError):
            load_summary(tmp_path, "score")


def test_the_files_of_a_run_are_no_pipes_and_no_links_out(tmp_path):
    (tmp_path / "outside.json").write_text("{}")
    run = tmp_path / "run"
    run.mkdir()
    os.mkfifo(run / "done.json")
    with pytest.raises(DataError, match="named pipe"):
        RunFolder(run, "score").done  # noqa: B018 - a property that reads
    (run / "done.json").unlink()
    (run / "done.json").symlink_to("../outside.json")
    with pytest.raises(DataError, match="leads out"):
        RunFolder(run, "score").done  # noqa: B018
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(DataError, match="no JSON object"):
        read_json_mapping(tmp_path / "list.json")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="named pipe"):
        file_hash(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("out", "a\0b", "NUL"),
        ("out", "a\udcff", "Unicode"),
        ("suite", "\ud800", "Unicode"),
        ("samples", 2**80, "64 bits"),
        ("temperature", 10**400, "needs a number"),
    ],
)
def test_settings_that_no_file_could_keep_are_refused(field, value, words):
    with pytest.raises(SettingsError, match=words):
        settings_from_dict(CollectSettings, {field: value})


@pytest.mark.parametrize("value", [{}, [], None, "x", -1, 0, True, 2**62, [[]], 10**400])
def test_every_field_of_a_camera_is_checked(value):
    good = {
        "size": [4, 4],
        "intrinsic": [[1, 0, 2], [0, 1, 2], [0, 0, 1]],
        "pose": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    }
    camera_from_dict(good)
    for key in good:
        with pytest.raises(DataError):
            camera_from_dict({**good, key: value})


def test_a_pose_near_the_largest_number_is_refused_without_a_warning():
    pose = [[1e308, 0, 0, 0], [0, 1e308, 0, 0], [0, 0, 1e308, 0], [0, 0, 0, 1]]
    with pytest.raises(DataError, match="rigid"):
        camera_from_dict({"size": 4, "intrinsic": [[1, 0, 2], [0, 1, 2], [0, 0, 1]], "pose": pose})
