"""The other side of benchmarks/rlds.py: TensorFlow Datasets writes and reads the same episodes.

Started by benchmarks/rlds.py with the interpreter of `make test-tf`; inherits its binding to one core.

    rlds_tfds.py FOLDER EPISODES STEPS SIZE
"""

import json
import sys
import time

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from rlds_images import make_images

folder = sys.argv[1]
episodes, steps, size = map(int, sys.argv[2:])
tfds.disable_progress_bar()


class Bench(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg")
        step = {
            "observation": {"image": image},
            "action": tfds.features.Tensor(shape=(7,), dtype=np.float32),
            "language_instruction": tfds.features.Text(),
        }
        features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(step)})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._episodes()}

    def _generate_examples(self):
        return self._episodes()

    def _episodes(self):
        for episode in range(episodes):
            images = IMAGES[episode]
            yield (
                episode,
                {
                    "steps": [
                        {
                            "observation": {"image": pixels},
                            "action": np.zeros(7, np.float32),
                            "language_instruction": "open the drawer",
                        }
                        for pixels in images
                    ]
                },
            )


IMAGES = [make_images(episode, steps, size) for episode in range(episodes)]
written = []
for attempt in range(3):
    begin = time.process_time()
    builder = Bench(data_dir=f"{folder}{attempt}")
    builder.download_and_prepare()
    written.append(episodes * steps / (time.process_time() - begin))

builder = tfds.builder_from_directory(builder.data_path)
rates = []
for _ in range(3):
    begin = time.process_time()
    data = builder.as_dataset(split="train").flat_map(lambda episode: episode["steps"])
    frames = sum(1 for _ in tfds.as_numpy(data))
    rates.append(frames / (time.process_time() - begin))
json.dump(
    {
        "write_jpeg": max(written),
        "read_jpeg": max(rates),
        "frames": frames,
        "data": str(builder.data_path),
        "tensorflow": tf.__version__,
        "tensorflow_datasets": tfds.__version__,
    },
    sys.stdout,
)
