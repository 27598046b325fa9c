"""Numbers out of range are refused by every verb before it reads anything, with flag, value and limit."""

from pathlib import Path

import pytest

from grape.cli.main import main
from grape.core.settings import Range


@pytest.mark.parametrize(
    ("words", "message", "limit"),
    [
        ("compare a b --confidence 1", "--confidence is 1.0", "at least 0.5 and below 1"),
        ("compare a b --difference 0", "--difference is 0.0", "above 0 and at most 1"),
        ("compare a b --bootstrap-samples 10", "--bootstrap-samples is 10", "at least 1000"),
        ("report run --pairs-shown -1", "--pairs-shown is -1", "at least 0"),
        ("report run --video-size 5000", "--video-size is 5000", "between 64 and 1024"),
        ("costs show toy/push-block --out p.html --store s --shown 99", "--shown is 99", "between 0 and 24"),
        ("costs validate toy/push-block --store s --draws 0", "--draws is 0", "at least 1"),
        ("costs validate toy/push-block --store s --max-trend 2", "--max-trend is 2.0", "between -1 and 1"),
        ("costs validate toy/push-block --store s --min-auc nan", "--min-auc is nan", "between 0 and 1"),
        ("costs import f.py --out o --limit -1", "--limit is -1", "between 0 and 1000000"),
        ("costs generate --out o --repairs 99", "--repairs is 99", "between 0 and 20"),
        ("costs generate --out o --timeout inf", "--timeout is inf", "between 0.1 and 86400"),
        (f"costs generate --out o --seed {10**400}", "--seed is 1000", "between 0 and 2147483647"),
        ("keypoints e.yaml --out o --clusters 0", "--clusters is 0", "at least 1"),
        ("keypoints e.yaml --out o --apart nan", "--apart is nan", "at least 0"),
        ("import video e.yaml --out o --hz -1", "--hz is -1.0", "at least 0"),
        ("import video e.yaml --out o --memory inf", "--memory is inf", "above 0"),
        ("import video e.yaml --out o --confidence 0", "--confidence is 0.0", "above 0 and at most 1"),
        ("export lerobot --collection c --out o --crf 99", "--crf is 99", "between 0 and 51"),
        ("export lerobot --collection c --out o --fps -1", "--fps is -1", "at least 0"),
        ("export rerun --store s --out o --hz nan", "--hz is nan", "at least 0"),
        ("export rlds --collection c --out o --shards 0", "--shards is 0", "at least 1"),
        ("export rlds --collection c --out o --val-fraction 1", "--val-fraction is 1.0", "at least 0 and below 1"),
        ("doctor --timeout 0", "--timeout is 0.0", "above 0"),
        ("score --store s --out o --beta 0", "--beta is 0.0", "above 0"),
        ("score --store s --out o --threshold-quantile 1.5", "--threshold-quantile is 1.5", "between 0 and 1"),
        ("pair --scores s --out o --m 0", "--m is 0", "at least 1"),
        ("pair --scores s --out o --margin inf", "--margin is inf", "at least 0"),
    ],
)
def test_numbers_out_of_range_are_usage_errors(
    words: str, message: str, limit: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert message in err
    assert f"It must be {limit}." in err
    assert list(tmp_path.iterdir()) == []


def test_ranges_take_integers_of_any_length() -> None:
    assert 10**400 not in Range(0, 5)
    assert 10**400 in Range(0)
    assert -(10**400) not in Range(0)
