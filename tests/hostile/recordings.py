"""Hostile robot logs, videos and Parquet tables."""

import io
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.exchange.short_video import log_rows, write_recording
from tests.hostile.documents import ESCAPES


def write_sound(path: Path) -> None:
    """The sound recording, with its log in three formats and its depth in two."""
    from PIL import Image

    write_recording(path)
    pq.write_table(pa.Table.from_pylist(log_rows()), path / "log.parquet")
    import json

    (path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log_rows()), encoding="utf-8")
    text = (path / "episodes.yaml").read_text(encoding="utf-8")
    for kind in ("jsonl", "parquet"):
        (path / f"episodes-{kind}.yaml").write_text(text.replace("log.csv", f"log.{kind}"), encoding="utf-8")
    (path / "depth").mkdir()
    depth = np.load(path / "depth.npy")
    for number, levels in enumerate(depth):
        Image.fromarray(levels).save(path / "depth" / f"{number:03d}.png")
    (path / "episodes-folder.yaml").write_text(text.replace("depth.npy", "depth"), encoding="utf-8")


def parquet(table: pa.Table, **options: object) -> bytes:
    """Bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _log(rows: int) -> dict[str, pa.Array]:
    return {name: pa.array(np.zeros(rows)) for name in log_rows()[0]}


def parquet_bombs() -> dict[str, bytes]:
    """Robot logs in Parquet that hold far more than their size says, or other things."""
    names = list(log_rows()[0])
    many = pa.table(_log(5_000_000))
    texts = pa.table({"time": pa.DictionaryArray.from_arrays(pa.array(np.zeros(50, np.int32)), ["x" * 20_000_000])})
    nested = pa.array([1.0])
    for _ in range(60):
        nested = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), nested)
    return {
        "5,000,000 rows": parquet(many, compression="zstd", use_dictionary=True),
        "texts of 20 MB, 50 times": parquet(texts, compression="zstd"),
        "lists 60 deep": parquet(pa.table(dict.fromkeys(names, nested))),
        "20,000 columns": parquet(pa.table({f"c{n}": [1.0] for n in range(20_000)})),
        "no rows": parquet(pa.table(_log(0))),
        "one row": parquet(pa.table(_log(1))),
        "texts": parquet(pa.table({name: ["x", "y"] for name in names})),
        "nulls": parquet(pa.table({name: pa.nulls(6) for name in names})),
        "times": parquet(pa.table({name: pa.array([10**18] * 6, pa.timestamp("ns")) for name in names})),
        "decimals": parquet(pa.table({name: pa.array([10**30] * 6, pa.decimal128(38)) for name in names})),
        "bytes": parquet(pa.table({name: [b"\xff"] * 6 for name in names})),
        "structures": parquet(pa.table({name: [{"a": 1}] * 6 for name in names})),
        "repeated columns": parquet(pa.Table.from_arrays([pa.array([1.0, 2.0])] * 20, [*names, *names][:20])),
        "escapes in a column's name": parquet(pa.table({ESCAPES: [1.0]})),
        "NaN": parquet(pa.table({name: [float("nan")] * 6 for name in names})),
        "infinite": parquet(pa.table({name: [float("inf")] * 6 for name in names})),
        "footer of 2 GB": b"PAR1" + bytes(64) + struct.pack("<I", 2**31 - 1) + b"PAR1",
        "footer of nothing": b"PAR1" + struct.pack("<I", 0) + b"PAR1",
    }


_HEAD = ",".join(log_rows()[0])
_ROW = ",".join("0.1" for _ in log_rows()[0])

CSV_LOGS: dict[str, bytes] = {
    "header only": _HEAD.encode(),
    "two rows at one time": f"{_HEAD}\n{_ROW}\n{_ROW}\n".encode(),
    "rows longer than the header": f"{_HEAD}\n{_ROW},1,2,3\n".encode(),
    "rows shorter than the header": f"{_HEAD}\n1,2\n".encode(),
    "repeated columns": f"{_HEAD},time\n{_ROW},9\n".encode(),
    "one line of 8 MB": b"time," + b"x" * 8_000_000,
    "one field of 200,000 characters": f"{_HEAD}\n{'1' * 200_000}{_ROW[3:]}\n".encode(),
    "a quote that never ends": f'{_HEAD}\n"{_ROW}\n'.encode() * 1000,
    "NUL bytes": f"{_HEAD}\n{_ROW}\0\n".encode(),
    "texts": f"{_HEAD}\n{_ROW.replace('0.1', 'x')}\n".encode(),
    "escapes": f"{_HEAD}\n{_ROW.replace('0.1', ESCAPES)}\n".encode(),
    "escapes in the header": f"{ESCAPES},{_HEAD}\n1,{_ROW}\n".encode(),
    "1e999": f"{_HEAD}\n{_ROW.replace('0.1', '1e999')}\n".encode(),
    "NaN": f"{_HEAD}\n{_ROW.replace('0.1', 'nan')}\n".encode() * 2,
    "5,000 digits": f"{_HEAD}\n{_ROW.replace('0.1', '9' * 5000)}\n".encode(),
    "underscores": f"{_HEAD}\n{_ROW.replace('0.1', '1_0')}\n".encode(),
    "times backwards": f"{_HEAD}\n5{_ROW[3:]}\n4{_ROW[3:]}\n3{_ROW[3:]}\n".encode(),
    "times far apart": f"{_HEAD}\n0{_ROW[3:]}\n1e300{_ROW[3:]}\n".encode(),
    "a million rows": (f"{_HEAD}\n" + "".join(f"{n},{_ROW[4:]}\n" for n in range(300_000))).encode(),
    "UTF-16": f"{_HEAD}\n{_ROW}\n".encode("utf-16"),
    "invalid UTF-8": f"{_HEAD}\n".encode() + b"\xff\xfe\n",
    "100,000 columns": (",".join(f"c{n}" for n in range(100_000)) + "\n").encode(),
    "carriage returns": f"{_HEAD}\r{_ROW}\r".encode(),
}

TEXT_LISTS: dict[str, str] = {
    name: f"version: 1\nsuite: s\ntask: t\ninstruction: i\nepisodes:\n- {{{entry}}}\n"
    for name, entry in {
        "video elsewhere": "video: ../../../../etc/passwd, log: log.csv, outcome: success, initial_state: 0",
        "video of zeros": "video: /dev/zero, log: log.csv, outcome: success, initial_state: 0",
        "video that is the folder": "video: ., log: log.csv, outcome: success, initial_state: 0",
        "video from the network": "video: 'http://127.0.0.1:9/x.mp4', log: log.csv, outcome: success, initial_state: 0",
        "video by protocol": "video: 'concat:take.mp4|take.mp4', log: log.csv, outcome: success, initial_state: 0",
        "log of zeros": "video: take.mp4, log: /dev/zero, outcome: success, initial_state: 0",
        "log that is a video": "video: take.mp4, log: take.mp4, outcome: success, initial_state: 0",
        "depth of zeros": "video: take.mp4, log: log.csv, depth: /dev/zero, outcome: success, initial_state: 0",
        "depth that is the folder": "video: take.mp4, log: log.csv, depth: ., outcome: success, initial_state: 0",
        "depth that is the video": "video: take.mp4, log: log.csv, depth: take.mp4, outcome: success, initial_state: 0",
        "camera of zeros": "video: take.mp4, log: log.csv, camera: /dev/zero, outcome: success, initial_state: 0",
        "camera that is a video": "video: take.mp4, log: log.csv, camera: take.mp4, outcome: success, initial_state: 0",
        "task with dots": "task: ../../x, video: take.mp4, log: log.csv, outcome: success, initial_state: 0",
        "huge initial state": "video: take.mp4, log: log.csv, outcome: success, initial_state: 99999999999999999999",
        "offset of infinity": "video: take.mp4, log: log.csv, outcome: success, initial_state: 0, offset: .inf",
        "depth unit of NaN": "video: take.mp4, log: log.csv, outcome: success, initial_state: 0, depth_unit: .nan",
    }.items()
}

VIDEOS: dict[str, bytes] = {
    "box of 2^32 bytes": b"\0\0\0\x20ftypisom" + bytes(20) + b"\xff\xff\xff\xffmdat",
    "box of 2^63 bytes": b"\0\0\0\x20ftypisom" + bytes(20) + b"\0\0\0\x01moov" + b"\x7f" + b"\xff" * 7,
    "boxes 10,000 deep": b"\0\0\0\x20ftypisom" + bytes(20)
    + b"".join(struct.pack(">I", 8 * (10_000 - n)) + b"moov" for n in range(10_000)),
    "playlist": b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "list of files": b"ffconcat version 1.0\nfile /etc/passwd\nfile take.mp4\n",
    "text": b"hello",
    "WAV": b"RIFF\xff\xff\xff\x7fWAVE"
    b"fmt \x10\0\0\0\x01\0\x01\0\x44\xac\0\0\x88\x58\x01\0\x02\0\x10\0data\xff\xff\xff\x7f" + bytes(1000),
    "AVI announcing much": b"RIFF\xff\xff\xff\x7fAVI LIST\xff\xff\xff\x7fhdrlavih" + bytes(1000),
    "Y4M of 60,000 x 60,000": b"YUV4MPEG2 W60000 H60000 F30:1 C420\nFRAME\n" + bytes(1000),
    "subtitles": b"1\n00:00:00,000 --> 99:59:59,000\n\x1b[31mx\n",
}  # fmt: skip
