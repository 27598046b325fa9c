"""Recordings as a laboratory would have them, made from a simulator: videos, depth, camera, logs, a list."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml

from grape.core.cameras import Camera
from grape.perception import FinderResult

INSTRUCTION = "push the puck to the target"
ACTIONS = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "grip")


def write_video(path: Path, images: np.ndarray, fps: int, crf: int = 14) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf)})
        stream.height, stream.width, stream.pix_fmt = *images.shape[1:3], "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())


def write_camera(path: Path, camera: Camera) -> None:
    path.write_text(yaml.safe_dump(camera.to_dict() | {"pixel_origin": "corner"}), encoding="utf-8")


def write_log(path: Path, rows: list[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_list(path: Path, episodes: list[dict[str, Any]], **top: Any) -> Path:
    robot_log = {"actions": list(ACTIONS)} | top.pop("robot_log", {})
    data = {"version": 1, "suite": "filmed", "task": "push-puck", "instruction": INSTRUCTION} | top
    path.write_text(yaml.safe_dump(data | {"robot_log": robot_log, "episodes": episodes}), encoding="utf-8")
    return path


def film_push(operator: str, stop: int | None, state: int = 0) -> dict[str, Any]:
    """Meta-World's push, filmed at 40 images a second with a log at 10 rows a second.

    Args:
        operator: Style of the expert.
        stop: Decision after which the robot stands still; None lets it finish.
        state: The initial state.
    """
    from grape.envs.metaworld.suite import MetaWorldSuite

    suite = MetaWorldSuite()
    task = next(task for task in suite.tasks if task.name == "push")
    environment, expert = suite.make_environment(task), suite.make_expert(task, operator, seed=1)
    snapshot = environment.reset(state)
    world, views, snapshots, actions = environment._world, [environment.scene_view(256)], [snapshot], []
    for decision in range(12):
        action = np.asarray(expert.act(snapshot)[0], np.float32)
        if stop is not None and decision >= stop:
            action = np.zeros(7, np.float32)
        data, success = environment._episode.data, False
        world.swap_in(environment._episode)
        for substep in range(8):
            world.advance(data, np.clip(action[[0, 1, 2, 6]], -1, 1))
            success |= world.solved(data)
            if substep % 2:
                views.append(environment.scene_view(256))
        snapshot = environment._snapshot(data, success)
        snapshots.append(snapshot)
        actions.append(action)
        if success:
            break
    return {"views": views, "snapshots": snapshots, "actions": actions, "success": bool(snapshots[-1].success)}


def write_episode(folder: Path, name: str, film: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The files of a film; its entry in the list."""
    write_video(folder / f"{name}.mp4", np.stack([view.image for view in film["views"]]), 40)
    depth = np.stack([view.depth for view in film["views"]])
    np.save(folder / f"{name}-depth.npy", np.where(depth < 60, np.rint(depth * 1000), 0).astype(np.uint16))
    rows = []
    for number, snapshot in enumerate(film["snapshots"]):
        position, action = snapshot.keypoints["gripper"], np.full(7, np.nan)
        if number < len(film["actions"]):
            action = film["actions"][number]
        row = {"time": round(100.0 + number * 0.1, 6), **dict(zip("xyz", position.tolist(), strict=True))}
        row["gripper"] = snapshot.signals["gripper_opening"]
        rows.append(row | dict(zip(ACTIONS, action.tolist(), strict=True)))
    write_log(folder / f"{name}.csv", rows)
    write_camera(folder / "camera.yaml", film["views"][0].camera)
    return {
        "video": f"{name}.mp4",
        "depth": f"{name}-depth.npy",
        "log": f"{name}.csv",
        "camera": "camera.yaml",
        "outcome": "success" if film["success"] else "failure",
        "initial_state": 0,
        "offset": 100.0,
    } | more


class TrueMasks:
    """Finder that knows the films: the image most like the one it is asked about, and the mask of a body there."""

    def __init__(self, films: list[dict[str, Any]], bodies: Mapping[str, str]) -> None:
        self._views = [view for film in films for view in film["views"]]
        self._bodies = bodies
        self.n_calls = 0

    def find(self, image: np.ndarray, phrase: str) -> FinderResult | None:
        self.n_calls += 1
        away = [np.abs(view.image[::4, ::4].astype(int) - image[::4, ::4]).sum() for view in self._views]
        mask = self._views[int(np.argmin(away))].mask(self._bodies[phrase])
        return FinderResult(mask, 1.0) if mask.any() else None
