"""Which variables make a process one of several, and which do not."""

import pytest

from grape.core.launched import LaunchedProcess, first_host, forget_launcher, launched_process, variables_of_slurm

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


SRUN = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "2",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
BATCH_SCRIPT = {"SLURM_JOB_ID": "1234", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


def test_tasks_of_a_job_step_are_a_process_group():
    assert launched_process(SRUN) == LaunchedProcess(5, 8, by_slurm=True)
    assert launched_process(SRUN | TORCHRUN) == LaunchedProcess(1, 2)  # srun started torchrun, which started this


@pytest.mark.parametrize(
    "environment",
    [
        BATCH_SCRIPT,
        SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        SRUN | TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"},
        SRUN | {"SLURM_STEP_NUM_TASKS": "eight"},
        SRUN | {"SLURM_PROCID": "8"},
        forget_launcher(SRUN),
        forget_launcher(TORCHRUN),
    ],
    ids=["batch script", "srun -n 1", "torchrun of one", "no number", "out of range", "forgotten srun", "forgotten"],
)
def test_one_task_of_a_job_is_alone(environment):
    assert launched_process(environment) == LaunchedProcess(0, 1)


def test_tasks_meet_at_the_first_host_of_their_step():
    variables = variables_of_slurm(SRUN)
    assert variables | {"MASTER_PORT": ""} == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "",
    }
    assert 1024 < int(variables["MASTER_PORT"]) < 2**16
    assert variables["MASTER_PORT"] == variables_of_slurm(SRUN | {"SLURM_PROCID": "6"})["MASTER_PORT"]
    assert variables["MASTER_PORT"] != variables_of_slurm(SRUN | {"SLURM_STEP_ID": "3"})["MASTER_PORT"]
    given = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
    assert variables_of_slurm(SRUN | given).items() >= given.items()
    assert launched_process(variables) == LaunchedProcess(5, 8)
    assert variables_of_slurm(SRUN | {"SLURM_LOCALID": "one"})["LOCAL_RANK"] == "0"


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[07-09,12],login1", "gpu07"),
        ("rack[2,4]-node[10-11].cluster", "rack2-node10.cluster"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_list(hosts, first):
    assert first_host(hosts) == first
