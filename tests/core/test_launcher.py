import pytest

from grape.core.runs import LaunchedProcess, launched_process

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "LOCAL_RANK": "1"}


def test_a_process_of_a_launcher_knows_its_number():
    assert launched_process(TORCHRUN) == LaunchedProcess(1, 2)
    assert not launched_process(TORCHRUN).is_main
    assert launched_process(TORCHRUN | {"RANK": "0"}).is_main


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "1"},
        {"RANK": "3", "MASTER_ADDR": "node1"},
        {"WORLD_SIZE": "8"},
        {"RANK": "1", "WORLD_SIZE": "2"},
        TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"},
        TORCHRUN | {"RANK": "2"},
        TORCHRUN | {"RANK": "-1"},
        TORCHRUN | {"RANK": "first"},
        TORCHRUN | {"WORLD_SIZE": ""},
        TORCHRUN | {"MASTER_ADDR": ""},
    ],
)
def test_variables_that_no_launcher_left_mean_alone(environment):
    assert launched_process(environment) == LaunchedProcess(0, 1)
    assert launched_process(environment).is_main
