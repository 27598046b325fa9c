"""Read a data set with real TensorFlow Datasets and print what came as JSON. Runs in the environment of `make test-tf`.

    python read_with_tfds.py VERSION_FOLDER SPLIT

The hashes follow the golden data's rule: all steps stacked, C order, little endian, flags as bytes; texts joined by
NUL.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds


def flat(value, path=""):
    if isinstance(value, dict):
        return {name: item for key, child in value.items() for name, item in flat(child, f"{path}/{key}").items()}
    return {path.removeprefix("/"): value}


def fact(values):
    if isinstance(values[0], bytes):
        return {"text": hashlib.sha256(b"\0".join(values)).hexdigest()}
    array = np.stack(values)
    return {"dtype": str(array.dtype), "shape": array.shape, "sha256": hashlib.sha256(array.tobytes()).hexdigest()}


def episodes(builder, split):
    for episode in tfds.as_numpy(builder.as_dataset(split=split)):
        steps = [flat(step) for step in episode.pop("steps")]
        yield {
            "steps": {path: fact([step[path] for step in steps]) for path in steps[0]},
            "facts": {path: fact([value]) for path, value in flat(episode).items()},
        }


def names_as_loaders_read(builder, split, shuffle_files):
    """Order of file_path under the options of the public loaders: undecoded steps, parallel reads, parallel maps.

    OpenVLA's loader shuffles files, the first GRAPE loader does not. The release of their library (dlimp) that both ask
    for keeps the order of elements; the original one lets them overtake each other, whatever the files look like.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = True
    data = builder.as_dataset(
        split=split,
        shuffle_files=shuffle_files,
        decoders={"steps": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(
            skip_prefetch=True,
            num_parallel_calls_for_interleave_files=tf.data.AUTOTUNE,
            interleave_cycle_length=tf.data.AUTOTUNE,
        ),
    ).with_options(options)
    data = data.map(lambda episode: episode["episode_metadata"]["file_path"], num_parallel_calls=tf.data.AUTOTUNE)
    return [name.decode() for name in data.as_numpy_iterator()]


folder, split = Path(sys.argv[1]), sys.argv[2]
builder = tfds.builder_from_directory(folder)
by_name = tfds.builder(folder.parent.name, data_dir=folder.parent.parent)  # as the public loaders open it
split_episodes = list(episodes(builder, split))
json.dump(
    {
        "versions": {"tensorflow": tf.__version__, "tensorflow_datasets": tfds.__version__},
        "splits": {name: info.shard_lengths for name, info in by_name.info.splits.items()},
        "episodes": split_episodes,
        "orders": {
            "grape": [names_as_loaders_read(by_name, split, shuffle_files=False) for _ in range(3)],
            "openvla": [names_as_loaders_read(by_name, split, shuffle_files=True) for _ in range(3)],
        },
    },
    sys.stdout,
)
