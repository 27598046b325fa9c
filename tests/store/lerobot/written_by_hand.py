"""Small LeRobotDatasets of versions 2.1 and 3.0, written by hand as LeRobot's documentation has them."""

import dataclasses
import fractions
import io
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FPS = 10
SIZE = (32, 48)
KEYS = ("observation.images.front", "observation.images.wrist")
NAMES = ["x", "y", "gripper"]
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


@dataclasses.dataclass
class Content:
    """What is written; tests change it before it is."""

    lengths: tuple[int, ...] = (5, 30, 4)
    tasks: tuple[str, ...] = ("open the drawer", "Öffne die Lade")
    task_of: Callable[[int, int], int] = lambda episode, row: episode % 2
    success: Callable[[int], bool] | None = lambda episode: episode != 1
    keys: tuple[str, ...] = KEYS
    stored: str = "video"
    fps: int = FPS
    written_fps: float = FPS
    state: int = 4


def actions_of(episode: int, length: int) -> np.ndarray:
    values = np.random.default_rng(episode).normal(size=(length, 3)).astype(np.float32)
    values[:, 2] = np.where(values[:, 2] > 0, 1, -1)
    return values


def state_of(episode: int, length: int, width: int = 4) -> np.ndarray:
    return np.random.default_rng(100 + episode).normal(size=(length, width)).astype(np.float32)


def color_of(episode: int, row: int, camera: int) -> tuple[int, int, int]:
    """The one color of an image, by which it is recognized after lossy coding."""
    return 20 + 7 * row, 40 + 60 * episode, 60 + 120 * camera


def images_of(episode: int, length: int, camera: int) -> np.ndarray:
    images = np.empty((length, *SIZE, 3), np.uint8)
    for row in range(length):
        images[row] = color_of(episode, row, camera)
    return images


def assert_images(images: np.ndarray, episode: int, rows, camera: int, *, exact: bool = False) -> None:
    expected = np.array([color_of(episode, row, camera) for row in rows], float)
    assert images.shape == (len(expected), *SIZE, 3)
    assert np.abs(images.mean(axis=(1, 2)) - expected).max() <= (0 if exact else 3)


def write_video(path: Path, images: np.ndarray, fps: float = FPS) -> None:
    """Far key frames and frames that refer to later ones: whoever does not seek properly gets the wrong image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fractions.Fraction(fps))
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "10", "preset": "ultrafast", "bf": "2"}
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def png(image: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(image).save(target, "PNG")
    return target.getvalue()


def rows_of(content: Content, episode: int, first: int) -> pa.Table:
    length = content.lengths[episode]
    count = np.arange(length)
    columns = {
        "action": pa.FixedSizeListArray.from_arrays(pa.array(actions_of(episode, length).ravel()), 3),
        "timestamp": pa.array((count / content.written_fps).astype(np.float32)),
        "frame_index": pa.array(count),
        "episode_index": pa.array(np.full(length, episode)),
        "index": pa.array(first + count),
        "task_index": pa.array([content.task_of(episode, int(row)) for row in count]),
    }
    if content.state:
        columns["observation.state"] = pa.array(list(state_of(episode, length, content.state)))  # lists of any length
    if content.success is not None:
        columns["next.success"] = pa.array((count == length - 1) & content.success(episode))
    if content.stored == "image":
        for number, key in enumerate(content.keys):
            blobs = [{"bytes": png(image), "path": None} for image in images_of(episode, length, number)]
            columns[key] = pa.array(blobs, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    return pa.table(columns)


def info_of(content: Content, version: str) -> dict[str, object]:
    number = {"dtype": "int64", "shape": [1], "names": None}
    image = {"dtype": content.stored, "shape": [*SIZE, 3], "names": ["height", "width", "channels"]}
    if version == "v2.0":  # some sets of this version have channels first
        image |= {"shape": [3, *SIZE], "names": ["channel", "height", "width"]}
    if content.stored == "video":
        image["info" if version != "v2.0" else "video_info"] = {"video.fps": float(content.fps), "video.channels": 3}
    features = {
        "action": {"dtype": "float32", "shape": [3], "names": NAMES if version == "v3.0" else {"motors": NAMES}},
        **dict.fromkeys(content.keys, image),
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), number),
    }
    if content.state:
        features["observation.state"] = {"dtype": "float32", "shape": [content.state], "names": None}
    if content.success is not None:
        features["next.success"] = {"dtype": "bool", "shape": [1], "names": None}
    return {
        "codebase_version": version,
        "robot_type": "so100",
        "total_episodes": len(content.lengths),
        "total_frames": sum(content.lengths),
        "total_tasks": len(content.tasks),
        "chunks_size": 1000 if version == "v3.0" else 2,
        "fps": content.fps,
        "splits": {"train": f"0:{len(content.lengths)}"},
        "data_path": V3_DATA if version == "v3.0" else V2_DATA,
        "video_path": (V3_VIDEO if version == "v3.0" else V2_VIDEO) if content.stored == "video" else None,
        "features": features,
    }


def write_dataset(folder: Path, version: str = "v3.0", **changes: object) -> Path:
    """A data set; ``changes``: fields of :class:`Content`."""
    content = Content(**changes)
    meta = folder / "meta"
    meta.mkdir(parents=True)
    (meta / "info.json").write_text(json.dumps(info_of(content, version)))
    (_write_v3 if version == "v3.0" else _write_v2)(folder, content)
    return folder


def _write_v2(folder: Path, content: Content) -> None:
    first, episodes = 0, []
    for episode, length in enumerate(content.lengths):
        place = {"episode_chunk": episode // 2, "episode_index": episode}
        path = folder / V2_DATA.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows_of(content, episode, first), path)
        if content.stored == "video":
            for number, key in enumerate(content.keys):
                write_video(folder / V2_VIDEO.format(video_key=key, **place), images_of(episode, length, number))
        first += length
        texts = sorted({content.tasks[content.task_of(episode, row)] for row in range(length)})
        episodes.append({"episode_index": episode, "tasks": texts, "length": length})
    tasks = [{"task_index": number, "task": text} for number, text in enumerate(content.tasks)]
    for name, rows in (("episodes.jsonl", episodes), ("tasks.jsonl", tasks)):
        (folder / "meta" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_v3(folder: Path, content: Content) -> None:
    """Episodes 0 and 1 share their files, the others lie in second ones."""
    parts = [range(min(2, len(content.lengths))), range(2, len(content.lengths))]
    rows, first = [], 0
    for file, part in enumerate(parts):
        tables = []
        start = 0
        for episode in part:
            length = content.lengths[episode]
            tables.append(rows_of(content, episode, first))
            row = {
                "episode_index": episode, "tasks": [content.tasks[content.task_of(episode, 0)]], "length": length,
                "data/chunk_index": 0, "data/file_index": file,
                "dataset_from_index": first, "dataset_to_index": first + length, "stats/action/mean": [0.0] * 3,
            }  # fmt: skip
            for key in content.keys if content.stored == "video" else ():
                row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": file}
                row |= {
                    f"videos/{key}/from_timestamp": start / FPS,
                    f"videos/{key}/to_timestamp": (start + length) / FPS,
                }
            rows.append(row)
            first += length
            start += length
        if not tables:
            continue
        path = folder / V3_DATA.format(chunk_index=0, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), path, row_group_size=7)  # episodes begin within row groups
        for number, key in enumerate(content.keys if content.stored == "video" else ()):
            images = [images_of(episode, content.lengths[episode], number) for episode in part]
            write_video(folder / V3_VIDEO.format(video_key=key, chunk_index=0, file_index=file), np.concatenate(images))
    path = folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    texts = pa.table({"task_index": range(len(content.tasks)), "__index_level_0__": list(content.tasks)})
    pq.write_table(texts, folder / "meta" / "tasks.parquet")
