"""How far keypoints from images are from the truth, with images, depth and masks of simulators.

    python benchmarks/perception_accuracy.py --suites metaworld libero_spatial libero_goal --out accuracy.json

An expert solves a task and is filmed. In the first image points are chosen in the true mask of every object (its
middle and others at random); the truth is where the body that they lie on takes them. Three ways are measured: lifting
alone (the truth is where a ray meets the scene), following points with the tracker of patches, and finding an object's
middle in every state by its true mask, in place of a detector and segmenter. A point counts as seen where the truth
projects into the image and the depth there is its own within 1.5 cm.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from grape.core.cameras import Camera
from grape.envs.ground_truth import SceneView
from grape.perception import FollowSettings, PatchTracker, aligning_shift, lift_tracks, mask_point, seen_points

SEEN_WITHIN = 0.015  # meters
MOVED_BY = 0.02  # meters
LEAST_PIXELS = 40
OTHER_POINTS = 4  # of each object, at random
ROBOT = ("robot0", "gripper0", "mount0", "right_", "hand", "rightclaw", "leftclaw", "rightpad", "leftpad", "pedestal")
ROOM = ("world", "table", "tablelink", "RetainingWall", "floor")


@dataclasses.dataclass
class Film:
    """A filmed episode.

    Attributes:
        name: Suite and task.
        views: Every image with its truth.
        states: Which of them are states, between which decisions lie.
        hz: Images a second.
        world: ``(model, data)`` of the first image, to cast rays; None where it is not at hand.
    """

    name: str
    views: list[SceneView]
    states: list[int]
    hz: float
    world: Any = None

    @property
    def camera(self) -> Camera:
        return self.views[0].camera

    def stack(self, what: str) -> np.ndarray:
        return np.stack([getattr(view, what) for view in self.views])


def film_metaworld(task_name: str, state: int = 0, size: int = 256, every: int = 2, operator: str = "clean") -> Film:
    """Meta-World's expert, filmed at 80 / ``every`` images a second."""
    from grape.envs.metaworld.suite import MetaWorldSuite

    suite = MetaWorldSuite()
    task = next(task for task in suite.tasks if task.name == task_name)
    environment, expert = suite.make_environment(task), suite.make_expert(task, operator, seed=0)
    snapshot = environment.reset(state)
    world = environment._world
    views, states = [environment.scene_view(size)], [0]
    import copy

    start = copy.copy(environment._episode.data)
    for _ in range(task.max_steps):
        action = np.clip(np.asarray(expert.act(snapshot)[0], np.float32)[[0, 1, 2, 6]], -1.0, 1.0)
        success, data = False, environment._episode.data
        world.swap_in(environment._episode)
        for substep in range(8):
            world.advance(data, action)
            success |= world.solved(data)
            if (substep + 1) % every == 0:
                views.append(environment.scene_view(size))
        states.append(len(views) - 1)
        snapshot = environment._snapshot(data, success)
        if success:
            break
    return Film(f"metaworld/{task_name}", views, states, 80.0 / every, (world.model, start))


def film_libero(suite_name: str, index: int = 0, state: int = 0, steps: int = 400, unfilmed: int = 0) -> Film:
    """LIBERO's expert, filmed at its 20 decisions a second; ``unfilmed`` decisions after the first image are not."""
    from grape.envs.libero.suite import LiberoSuite

    suite = LiberoSuite(suite_name)
    task = suite.tasks[index]
    environment, expert = suite.make_environment(task), suite.make_expert(task, suite.operators[0], seed=0)
    snapshot = environment.reset(state)
    views, world = [environment.scene_view()], environment._world
    for step in range(steps):
        world.images = False  # what is drawn for a policy is not needed here, and takes most of the time
        try:
            snapshot = environment.step(expert.act(snapshot)[0])
        finally:
            world.images = True
        if step >= unfilmed:
            views.append(environment.scene_view())
        if snapshot.success:
            break
    return Film(task.id, views, list(range(len(views))), 20.0)


def objects(film: Film) -> list[str]:
    """Bodies that are neither robot nor room and large enough in the first image."""
    view = film.views[0]
    counts = np.bincount(view.bodies[view.bodies >= 0], minlength=len(view.names))
    aside = (*ROBOT, *ROOM)
    return [
        name
        for name, count in zip(view.names, counts, strict=True)
        if count >= LEAST_PIXELS and not name.startswith(aside)
    ]


def carried(film: Film, body: str, point: np.ndarray) -> np.ndarray:
    """Where a body takes a point that is on it in the first image, ``(T+1, 3)``."""
    first = np.linalg.inv(film.views[0].poses[body])
    local = first[:3, :3] @ point + first[:3, 3]
    return np.stack([view.poses[body][:3, :3] @ local + view.poses[body][:3, 3] for view in film.views])


def seen(film: Film, truth: np.ndarray) -> np.ndarray:
    """Whether a point is seen in each image, ``(T+1,)``."""
    pixels, depth = film.camera.project(truth)
    inside = film.camera.sees(pixels, margin=1.0)
    column, row = np.floor(np.where(inside[:, None], pixels, 0)).astype(int).T
    shown = np.array([view.depth[r, c] for view, r, c in zip(film.views, row, column, strict=True)])
    return inside & (np.abs(shown - depth) <= SEEN_WITHIN)


def moved(truth: np.ndarray) -> np.ndarray:
    """Whether a point has left its place in the first image, ``(T+1,)``."""
    return np.linalg.norm(truth - truth[0], axis=1) > MOVED_BY


def start_points(film: Film) -> list[tuple[str, np.ndarray]]:
    """Object and pixel of each chosen point; the first of an object is its middle."""
    rng, view, chosen = np.random.default_rng(0), film.views[0], []
    for name in objects(film):
        mask = view.mask(name)
        middle = mask_point(mask, view.depth, film.camera)
        rows, columns = np.nonzero(mask)
        others = rng.choice(len(rows), OTHER_POINTS, replace=False)
        chosen += [(name, middle)] + [(name, np.array([columns[i] + 0.5, rows[i] + 0.5])) for i in others]
    return chosen


def measure_lifting(film: Film, points: int = 300) -> dict[str, float]:
    """Distance of lifted pixels from where a ray through them meets the scene, meters."""
    import mujoco

    model, data = film.world
    view, camera = film.views[0], film.camera
    pixels = np.random.default_rng(0).uniform(8, np.array(camera.size[::-1]) - 8, (points, 2)).round() + 0.5
    lifted = camera.lift(pixels, [view.depth[int(row), int(column)] for column, row in pixels])
    groups, errors = np.array([1, 1, 1, 0, 0, 0], np.uint8), []
    mujoco.mj_forward(model, data)
    for pixel, point in zip(pixels, lifted, strict=True):
        if view.bodies[int(pixel[1]), int(pixel[0])] < 0:
            continue
        ray = (point - camera.position) / np.linalg.norm(point - camera.position)
        distance = mujoco.mj_ray(model, data, camera.position, ray, groups, 1, -1, np.zeros(1, np.int32))
        if distance > 0:
            errors.append(np.linalg.norm(camera.position + ray * distance - point))
    return {"points": len(errors), "median": float(np.median(errors)), "p90": float(np.quantile(errors, 0.9))}


def measure_tracking(film: Film) -> dict[str, float]:
    """Errors of tracked and lifted points in the states after the first, meters."""
    chosen = start_points(film)
    images, depth = film.stack("image"), film.stack("depth")
    began = time.process_time()
    tracks = PatchTracker().track(images, np.array([pixel for _, pixel in chosen]), depth)
    spent = time.process_time() - began
    lifted = lift_tracks(tracks, depth, film.camera).points.astype(np.float64)
    errors, known, visible, moving = [], [], [], []
    later = film.states[1:]
    for index, (name, _) in enumerate(chosen):
        truth = carried(film, name, lifted[0, index])
        errors.append(np.linalg.norm(lifted[later, index] - truth[later], axis=1))
        known.append(np.isfinite(errors[-1]))
        visible.append(seen(film, truth)[later])
        moving.append(moved(truth)[later])
    return _figures(*map(np.concatenate, (errors, known, visible, moving))) | {
        "points": len(chosen),
        "ms_per_point_and_picture": 1000 * spent / (len(chosen) * (len(images) - 1)),
    }


def measure_finding(film: Film) -> dict[str, float]:
    """Errors of objects' middles, found anew in every state by their true masks, meters.

    The truth is where the body takes the middle of the first image.
    """
    errors, known, visible, moving = [], [], [], []
    first = film.views[0]
    for name in objects(film):
        middle = mask_point(first.mask(name), first.depth, film.camera)
        start = film.camera.lift(middle, first.depth[int(middle[1]), int(middle[0])])
        before, truth = seen_points(first.mask(name), first.depth, film.camera), carried(film, name, start)
        away = moved(truth)
        for step in film.states[1:]:
            view = film.views[step]
            after = seen_points(view.mask(name), view.depth, film.camera)
            shift, left = aligning_shift(before, after) if len(after) else (np.full(3, np.nan), np.inf)
            errors.append(np.linalg.norm(start + shift - truth[step]))
            known.append(left <= FollowSettings().fit)
            visible.append(bool(view.mask(name).sum() >= LEAST_PIXELS))
            moving.append(away[step])
    return _figures(*map(np.array, (errors, known, visible, moving)))


def _figures(errors: np.ndarray, known: np.ndarray, visible: np.ndarray, moving: np.ndarray) -> dict[str, float]:
    """Of all states, and under ``moving_`` of those in which the thing is away from where it was at first."""
    figures = {"known_where_seen": float(known[visible].mean()), "known_where_hidden": None}
    if (~visible).any():
        figures["known_where_hidden"] = float(known[~visible].mean())
    if (visible & moving).any():
        figures["moving_known_where_seen"] = float(known[visible & moving].mean())
    for label, chosen in (("", known), ("moving_", known & moving)):
        if chosen.any():
            figures[f"{label}median"] = float(np.median(errors[chosen]))
            figures[f"{label}p90"] = float(np.quantile(errors[chosen], 0.9))
            figures[f"{label}over_5_cm"] = float((errors[chosen] > 0.05).mean())
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suites", nargs="+", default=["metaworld", "libero_spatial", "libero_goal"])
    parser.add_argument("--tasks", nargs="+", default=["push", "pick-place", "drawer-open", "door-open", "faucet-open"])
    parser.add_argument("--libero-tasks", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for suite in options.suites:
        films = (
            [lambda name=name: film_metaworld(name) for name in options.tasks]
            if suite == "metaworld"
            else [lambda suite=suite, index=index: film_libero(suite, index) for index in options.libero_tasks]
        )
        for make in films:
            film = make()
            row = {"task": film.name, "pictures": len(film.views), "size": film.camera.size, "hz": film.hz}
            row["objects"] = objects(film)
            if film.world is not None:
                row["lifting"] = measure_lifting(film)
            row |= {"tracking": measure_tracking(film), "finding": measure_finding(film)}
            rows.append(row)
            print(json.dumps(row), flush=True)
    from measured_on import commit  # not at the top: tests import this module from another folder

    record = {"command": "python benchmarks/perception_accuracy.py --out accuracy.json", "commit": commit()}
    options.out.write_text(json.dumps(record | {"episodes": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
