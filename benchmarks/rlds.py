"""Frames a second of writing and reading RLDS data sets, a core, beside TensorFlow Datasets where it is there.

Both write the same images (episodes of 50 steps, 256 x 256) and read what TFDS wrote (without it: what GRAPE wrote).
Reading means: records checked, episodes parsed, every image decoded. Time is processor time, all threads together, so
that what else runs on the machine counts little; of three attempts the best is taken, on both sides.

    python benchmarks/rlds.py --out docs/results/rlds-benchmark.json      # 2 minutes on an idle core
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measured_on import commit, processor
from rlds_images import make_images

from grape.core.files import write_json
from grape.store.rlds import open_rlds
from grape.store.rlds.features import FeatureTree, Image, Tensor, Text
from grape.store.rlds.images import encode_image
from grape.store.rlds.writer import RldsWriter

ROOT = Path(__file__).resolve().parents[1]
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}
TF_PYTHON = ROOT / os.environ.get("TF_VENV", ".venv-tf") / "bin" / "python"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/rlds-benchmark.json"))
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # TensorFlow's process inherits it
    result = {
        "episodes": options.episodes,
        "steps": options.steps,
        "size": options.size,
        "unit": "frames a second of processor time",
        "commit": commit(),
        "command": f"python benchmarks/rlds.py {' '.join(sys.argv[1:])}".strip(),
        "python": platform.python_version(),
        "processor": processor(),
        "load_average": {"before": list(os.getloadavg())},
    }
    with tempfile.TemporaryDirectory() as folder:
        images = [make_images(episode, options.steps, options.size) for episode in range(options.episodes)]
        ours = {f"write_{kind}": write_rate(Path(folder), images, kind) for kind in ("jpeg", "png")}
        ours |= {f"compress_{kind}": compression_rate(images, kind) for kind in ("jpeg", "png")}
        ours |= {f"read_{kind}": read_rate(Path(folder) / f"bench_{kind}0") for kind in ("jpeg", "png")}
        result["grape"] = ours
        if TF_PYTHON.exists():
            theirs = tfds_rates(Path(folder) / "tfds", options.episodes, options.steps, options.size)
            ours["read_jpeg_of_tfds"] = read_rate(Path(theirs.pop("data")))
            result["tfds"] = theirs
            result["write_jpeg_ratio"] = ours["write_jpeg"] / theirs["write_jpeg"]
            result["read_jpeg_ratio"] = ours["read_jpeg_of_tfds"] / theirs["read_jpeg"]
    result["load_average"]["after"] = list(os.getloadavg())
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


def write_rate(folder: Path, images: list[np.ndarray], kind: str) -> float:
    features = FeatureTree(
        {
            "action": Tensor("float32", (7,)),
            "language_instruction": Text(),
            "observation/image": Image(images[0].shape[1:], kind),
        },
        {},
    )
    frames = sum(map(len, images))
    rates = []
    for attempt in range(3):
        begin = time.process_time()
        writer = RldsWriter(folder / f"bench_{kind}{attempt}" / "1.0.0", f"bench_{kind}", features)
        writer.write_split("train", map(columns, images), [len(images)])
        writer.finish()
        rates.append(frames / (time.process_time() - begin))
    return max(rates)


def compression_rate(images: list[np.ndarray], kind: str) -> float:
    """Images alone, nothing written: what no writer can beat."""
    rates = []
    for _ in range(3):
        begin = time.process_time()
        for episode in images:
            for image in episode:
                encode_image(image, kind)
        rates.append(sum(map(len, images)) / (time.process_time() - begin))
    return max(rates)


def columns(images: np.ndarray) -> dict:
    return {
        "steps/action": np.zeros((len(images), 7), np.float32),
        "steps/language_instruction": ["open the drawer"] * len(images),
        "steps/observation/image": images,
    }


def read_rate(path: Path) -> float:
    rates = []
    for _ in range(3):
        begin, frames = time.process_time(), 0
        for episode in open_rlds(path).read():
            frames += len(episode.steps["action"])
            images = episode.steps["observation/image"]
            for index in range(episode.length):
                images[index]
        rates.append(frames / (time.process_time() - begin))
    return max(rates)


def tfds_rates(folder: Path, *shape: int) -> dict:
    command = [str(TF_PYTHON), str(ROOT / "benchmarks" / "rlds_tfds.py"), str(folder), *map(str, shape)]
    reply = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **_QUIET})
    if reply.returncode:
        sys.exit(f"TFDS failed:\n{reply.stderr[-2000:]}")
    return json.loads(reply.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
