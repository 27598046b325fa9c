"""The record of the trainer's speed: runs naive_window.py and gemm_rate.py one after the other and keeps what they say.

    python benchmarks/train_benchmark.py --out docs/results/train-benchmark.json      # 45 minutes on an idle core

Prints and writes JSON. `ratio_*`: processor time per pair of the first public loop over ours.
`peak_memory_t48_over_t16`: the larger of the two networks' ratios. `gemm_share`: of the larger network; the smaller
one's stands beside it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from measured_on import commit, processor

from grape.core.files import write_json

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/train-benchmark.json"))
    parser.add_argument("--shapes", nargs="+", default=["23m", "71m"])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--micro-batch", type=int, default=4)
    options = parser.parse_args()
    before = os.getloadavg()
    common = ["--shapes", *options.shapes, "--micro-batch", str(options.micro_batch)]
    common += ["--repetitions", str(options.repetitions)]
    products = run("gemm_rate.py", *common)
    pairs = run("naive_window.py", *common)
    runs = pairs.pop("runs")
    result = {
        **pairs,
        "gemm_share": products[options.shapes[-1]]["gemm_share"],
        **{f"gemm_share_{shape}": products[shape]["gemm_share"] for shape in options.shapes},
        "commit": commit(),
        "command": f"python benchmarks/train_benchmark.py {' '.join(sys.argv[1:])}".strip(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": 1,
        "processor": processor(),
        "load_average": {"before": list(before), "after": list(os.getloadavg())},
        "gemm_rate": products,
        "runs": runs,
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


def run(script: str, *flags: str) -> dict[str, Any]:
    """What a benchmark beside this file prints, in a process with one thread."""
    done = subprocess.run(
        [sys.executable, HERE / script, *flags],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    measurement: dict[str, Any] = json.loads(done.stdout)
    return measurement


if __name__ == "__main__":
    main()
