"""Mappers of this process and of processes of this machine."""

import os
from pathlib import Path

import pytest

from grape.core.errors import DataError, SettingsError
from grape.mapping import MappingSettings, open_mapper
from tests.mapping.functions import KilledOnce, doubled, failing, process_of
from tests.reporters import Hearing


def test_one_worker_is_this_process() -> None:
    with open_mapper(MappingSettings()) as mapper:
        assert mapper.is_here
        assert list(mapper.map(process_of, [0, 1])) == [os.getpid()] * 2
        assert mapper.shards([1, 2, 3], 2) == [[1], [2], [3]]


def test_processes_share_shards_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    reporter = Hearing()
    with open_mapper(MappingSettings(workers=2), reporter) as mapper:
        parts = mapper.shards(range(5), 2)
        assert [list(part) for part in mapper.map(doubled, parts)] == [[0, 2], [4, 6], [8]]
        squares = list(mapper.map(KilledOnce(tmp_path / "killed", 2), range(8)))
        assert squares == [number * number for number in range(8)]
        assert reporter.warnings == ["A worker was killed by signal 9. Its shard of episodes is done again."]
        with pytest.raises(DataError, match="Episode 3 is damaged") as raised:
            list(mapper.map(failing, range(6)))
        assert raised.value.hint == "Copy it again."


def test_a_single_shard_is_computed_here() -> None:
    with open_mapper(MappingSettings(workers=2)) as mapper:
        assert list(mapper.map(process_of, [0])) == [os.getpid()]
        assert os.getpid() not in mapper.map(process_of, [0, 1])


def test_zero_is_one_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    with open_mapper(MappingSettings(workers=0)) as mapper:
        assert (mapper.workers, mapper.is_here) == (3, False)


def test_an_address_without_its_launcher_is_refused() -> None:
    with (
        pytest.raises(SettingsError, match="no effect with --launcher local"),
        open_mapper(MappingSettings(ray_address="10.0.0.1:6379")),
    ):
        pass
    with pytest.raises(SettingsError, match="--workers is -1"), open_mapper(MappingSettings(workers=-1)):
        pass
