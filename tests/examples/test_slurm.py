"""The job scripts for SLURM, run by a shell with stand-ins for the cluster's programs; grape itself makes a dry run."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.training.recordings import record, write_pairs, write_policy

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "slurm"

# The first task of a step, as srun would start it: its own flags are noted and left out.
SRUN = """#!/bin/bash
ntasks=$SLURM_NTASKS
for word in "$@"; do
    case $word in
        --ntasks=*) ntasks=${word#*=} ;;
        --*) ;;
        *) break ;;
    esac
    shift
done
export SLURM_STEP_NUM_TASKS=$ntasks SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_STEP_ID=0
export SLURM_STEP_TASKS_PER_NODE=$((ntasks / SLURM_NNODES > 0 ? ntasks / SLURM_NNODES : 1))
case $1 in
    grape) echo "$@" >>"$STEPS"; shift; exec "$PYTHON" -m grape "$@" --dry-run --json ;;
    hostname) echo 10.0.0.1 ;;
    *) echo "$@" >>"$STEPS"; cat >/dev/null ;;
esac
"""
TOOLS = {
    "srun": SRUN,
    "scontrol": "#!/bin/bash\nprintf 'gpu07\\ngpu08\\n'\n",
    "openssl": "#!/bin/bash\necho 00ff\n",
}


def run_script(folder: Path, script: str, words: list[str], verb: str = "") -> tuple[dict, list[str]]:
    """Run a job script on two nodes with two tasks each; its dry run's plan, and the command lines of its steps."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name, text in TOOLS.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "STEPS": str(folder / "steps"),
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "4",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "gpu[07-08]",
        "SLURM_PROCID": "0",
    }
    environment |= {"VERB": verb} if verb else {}
    finished = subprocess.run(
        ["bash", str(SCRIPTS / script), *words],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1]), (folder / "steps").read_text().splitlines()


def test_a_training_takes_all_tasks_of_the_job(tmp_path):
    policy = write_policy(tmp_path / "policy")
    write_pairs(tmp_path / "pairs", record(tmp_path / "store", policy))
    words = ["--pairs", "pairs", "--policy", "policy", "--sharding", "full", "--out", "run"]
    plan, steps = run_script(tmp_path, "train.sbatch", words)
    assert steps == [f"grape train {' '.join(words)}"]
    processes = plan["processes"]
    assert (processes["count"], processes["machines"], processes["on_each_machine"]) == (4, 2, 2)
    assert "spread" in processes["parameters"]


def test_a_loop_plays_by_ray_and_trains_in_all_tasks(tmp_path):
    words = ["--suite", "toy", "--out", "run"]
    plan, steps = run_script(tmp_path, "collect.sbatch", words, verb="loop")
    loop = next(line for line in steps if line.startswith("grape"))
    assert loop == "grape loop --launcher ray --ray-address 10.0.0.1:6379 --suite toy --out run"
    assert sum(line.startswith("ray start") for line in steps) == 2
    assert all("--num-cpus=16" in line for line in steps if line.startswith("ray start"))  # of both tasks of a node
    assert plan["processes"]["training"]["count"] == 4
    assert "by Ray on each GPU of its nodes" in plan["processes"]["rollouts"]


def test_rollouts_have_one_driver_however_many_tasks_the_job_has(tmp_path):
    plan, steps = run_script(tmp_path, "collect.sbatch", ["--suite", "toy", "--out", "run"])
    assert "grape collect --launcher ray --ray-address 10.0.0.1:6379 --suite toy --out run" in steps
    assert plan["dry_run"]
