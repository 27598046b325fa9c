"""One episode as a recording of Rerun: its chunks of data, the file, and the layout of the viewer.

A chunk is a table of one entity: columns of times (``step``, ``time``) and of values, or values that hold throughout.
The file is written by Rerun and read back: what was lost on the way is an error, not a recording with a gap.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from grape.core.cameras import Camera
from grape.core.errors import DataError, GrapeError
from grape.core.packages import load_package
from grape.core.preferences import ConstraintScore, Score, StageScore
from grape.core.trajectories import Trajectory
from grape.store.rlds.images import encode_image

__all__ = ["RecordedEpisode", "load_rerun", "write_layout", "write_recording"]

APPLICATION = "grape"
_POINT_RADIUS = 0.008  # meters
_CAMERA_PLANE = 0.15  # meters from the camera at which its image is drawn
_HAND = "gripper"  # the keypoint of the end effector, in every suite
_WORLD, _CAMERAS, _DISPLAY = "/world", "/world/cameras", "/display"

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class RecordedEpisode:
    """What a recording shows.

    Attributes:
        trajectory: The episode, with its images.
        identity: Name of the recording, which tells it from those of other policies.
        display: The images for people as they are stored, one JPEG each; empty where none were recorded.
        score: Its score; None where it was not scored.
        camera: Where the main camera stands; None where that was not recorded.
        action_names: Names of the action's dimensions.
        hz: Control steps a second; 0 where nobody knows, and there are no seconds.
    """

    trajectory: Trajectory
    identity: str
    display: tuple[bytes, ...]
    score: Score | None
    camera: Camera | None
    action_names: tuple[str, ...]
    hz: float


def load_rerun() -> ModuleType:
    """Rerun's package.

    Raises:
        SettingsError: It is not installed.
    """
    load_package("rerun.chunk", "Recordings for Rerun need rerun-sdk", "rerun")
    return load_package("rerun", "Recordings for Rerun need rerun-sdk", "rerun")


def write_recording(path: Path, episode: RecordedEpisode) -> dict[str, int]:
    """Write the recording of an episode, and read it back.

    Returns:
        Bytes of the file, and numbers of ``images`` and ``curves`` in it.

    Raises:
        GrapeError: The disk is full or the file cannot be written.
        DataError: The file does not hold what was written.
    """
    rr = load_rerun()
    with _strict(rr):
        chunks = list(_Recording(rr, episode).chunks())
        stream = rr.chunk.LazyChunkStream.from_iter(chunks)
        try:
            stream.write_rrd(path, application_id=APPLICATION, recording_id=episode.identity)
        except RuntimeError as error:
            raise GrapeError(
                f"Could not write {path}: {error}.", "Free space or fix the permissions, then run the command again."
            ) from error
        _compare(rr, path, chunks, episode.identity)
    paths = [chunk.entity_path for chunk in chunks if not chunk.is_static]
    return {
        "bytes": path.stat().st_size,
        "images": sum(
            chunk.num_rows
            for chunk in chunks
            if not chunk.is_static and chunk.entity_path.startswith((_CAMERAS, _DISPLAY))
        ),
        "curves": sum(entity.startswith("/costs/") for entity in paths),
    }


def write_layout(path: Path, episode: RecordedEpisode) -> None:
    """Write how the viewer arranges recordings like that of ``episode``: a blueprint, Rerun's ``.rbl`` file."""
    rr = load_rerun()
    views = load_package("rerun.blueprint", "Recordings for Rerun need rerun-sdk", "rerun")
    trajectory = episode.trajectory
    flat = [*trajectory.cameras] + (["main"] if episode.camera is None else [])
    images = [views.Spatial2DView(origin=f"{_CAMERAS}/{_part(rr, name)}", name=name) for name in _camera_names(episode)]
    if episode.display:
        images.insert(0, views.Spatial2DView(origin=_DISPLAY, name="display"))
    world = views.Spatial3DView(
        origin=_WORLD,
        contents=["$origin/**", *(f"- {_CAMERAS}/{_part(rr, name)}/**" for name in flat)],
        name="world",
    )
    curves = [views.TimeSeriesView(origin="/costs", name="costs")] if episode.score and episode.score.stages else []
    curves.append(views.TimeSeriesView(origin="/signals", name="signals"))
    curves.append(views.TimeSeriesView(origin="/robot", name="robot"))
    if np.isfinite(trajectory.token_logps).all() and trajectory.token_logps.size:
        curves.append(views.TimeSeriesView(origin="/policy", name="policy"))
    top = [*([world] if trajectory.keypoints else []), *images, views.TextDocumentView(origin="/episode", name="facts")]
    stages = views.StateTimelineView(origin="/", contents=["/stages", "/success"], name="stages and success")
    with _strict(rr):
        views.Blueprint(
            views.Vertical(
                views.Horizontal(*top), stages, views.Horizontal(*curves), row_shares=[5, 2, 3], name="episode"
            )
        ).save(APPLICATION, path)


def _camera_names(episode: RecordedEpisode) -> tuple[str, ...]:
    return "main", *sorted(episode.trajectory.cameras)


@contextlib.contextmanager
def _strict(rr: ModuleType) -> Iterator[None]:
    """Let mistakes raise: by default Rerun warns of them, and leaves the values out."""
    before = rr.strict_mode()
    rr.set_strict_mode(True)
    try:
        yield
    finally:
        rr.set_strict_mode(before)


def _part(rr: ModuleType, name: str) -> str:
    return str(rr.escape_entity_path_part(name))


def _compare(rr: ModuleType, path: Path, chunks: Sequence[Any], identity: str) -> None:
    """Refuse a file that does not hold the chunks, bit for bit."""
    try:
        reader = rr.chunk.RrdReader(path)
        stored = {chunk.id: chunk.to_record_batch() for chunk in reader.stream()}
        names = [entry.recording_id for entry in reader.recordings()]
    except (RuntimeError, ValueError) as error:
        raise DataError(f"The recording {path.name} cannot be read back: {error}.", "Run the command again.") from error
    written = {chunk.id: chunk.to_record_batch() for chunk in chunks}
    if (
        names != [identity]
        or stored.keys() != written.keys()
        or not all(stored[key].equals(written[key]) for key in written)
    ):
        raise DataError(f"The recording {path.name} came back altered.", "Run the command again.")


class _Recording:
    """Makes the chunks of one episode."""

    def __init__(self, rr: ModuleType, episode: RecordedEpisode) -> None:
        self._rr = rr
        self._episode = episode
        self._trajectory = episode.trajectory

    def chunks(self) -> Iterator[Any]:
        """All of them."""
        yield from self._facts()
        yield from self._images()
        yield from self._points()
        yield from self._numbers()
        yield from self._success()
        if self._episode.score is not None:
            yield from self._stages(self._episode.score)
            yield from self._costs(self._episode.score)

    def _times(self, states: Sequence[int] | Array) -> list[Any]:
        steps = np.asarray(states, dtype=np.int64)
        times = [self._rr.TimeColumn("step", sequence=steps)]
        if self._episode.hz:
            times.append(self._rr.TimeColumn("time", duration=steps / self._episode.hz))
        return times

    def _chunk(self, entity: str, states: Sequence[int] | Array, columns: Any) -> Any:
        return self._rr.chunk.Chunk.from_columns(entity, self._times(states), columns)

    def _static(self, entity: str, archetype: Any) -> Any:
        """Values that hold throughout."""
        columns = self._rr.ComponentColumnList(
            [
                self._rr.ComponentColumn(batch.component_descriptor(), batch, lengths=[len(batch.as_arrow_array())])
                for batch in archetype.as_component_batches()
            ]
        )
        return self._rr.chunk.Chunk.from_columns(entity, [], columns)

    def _facts(self) -> Iterator[Any]:
        rr, meta, score = self._rr, self._trajectory.meta, self._episode.score
        outcome = {True: "success", False: "failure", None: "outcome unknown"}[meta.success]
        facts: dict[str, Any] = {
            "suite": meta.suite,
            "task": meta.task,
            "instruction": meta.instruction,
            "initial_state": meta.initial_state,
            "sample": meta.sample,
            "outcome": outcome,
            "steps": meta.steps,
            "decisions": self._trajectory.decisions,
            "actor": meta.actor,
            "policy": meta.policy_hash,
            "temperature": meta.temperature,
        }
        if score is not None:
            facts |= {"cost": score.cost, "r_self": score.r_self, "r_ext": score.r_ext, "gcpg": score.gcpg}
            facts |= {f"term_{name}": value for name, value in score.terms.items()}
        given = {name: value for name, value in facts.items() if value not in (None, "")}
        rows = [f"| {name} | {_markdown(value)} |" for name, value in given.items()]
        text = "\n".join([f"# {_markdown(meta.instruction)}", "", "| | |", "|---|---|", *rows])
        yield self._static("/episode", rr.TextDocument(text, media_type=rr.MediaType.MARKDOWN))
        yield rr.chunk.Chunk.from_property("episode", rr.AnyValues(**given))
        name = f"{meta.task}, state {meta.initial_state}, sample {meta.sample}: {outcome}"
        yield self._static(rr.RECORDING_PROPERTIES_PATH, rr.archetypes.RecordingInfo(name=name))

    def _images(self) -> Iterator[Any]:
        looks = [*self._trajectory.decision_starts.tolist(), self._trajectory.steps]
        views = {"main": self._trajectory.frames, **dict(sorted(self._trajectory.cameras.items()))}
        for name, images in views.items():
            blobs = [encode_image(image, "png") for image in images]
            yield self._encoded(f"{_CAMERAS}/{_part(self._rr, name)}", looks, blobs, "image/png")
        if self._episode.display:
            yield self._encoded(_DISPLAY, looks, self._episode.display, "image/jpeg")
        if self._episode.camera is not None:
            yield from self._pinhole(self._episode.camera)

    def _encoded(self, entity: str, looks: Sequence[int], blobs: Sequence[bytes], media_type: str) -> Any:
        arrays = [np.frombuffer(blob, dtype=np.uint8) for blob in blobs]
        columns = self._rr.EncodedImage.columns(blob=arrays, media_type=[media_type] * len(arrays))
        return self._chunk(entity, looks, columns)

    def _pinhole(self, camera: Camera) -> Iterator[Any]:
        """The main camera in the world. A negative focal length is a mirrored axis of its frame, as Rerun has none."""
        height, width = self._trajectory.frames.shape[1:3]
        scaled = camera.resized(height, width)
        intrinsic = scaled.intrinsic.copy()
        mirrored = np.sign([intrinsic[0, 0], intrinsic[1, 1], 1.0])
        intrinsic[:2, :2] *= mirrored[:2]
        entity = f"{_CAMERAS}/main"
        yield self._static(
            entity, self._rr.Transform3D(translation=scaled.position, mat3x3=scaled.pose[:3, :3] * mirrored)
        )
        yield self._static(
            entity,
            self._rr.Pinhole(
                image_from_camera=intrinsic,
                resolution=[width, height],
                camera_xyz=self._rr.ViewCoordinates.RDF,
                image_plane_distance=_CAMERA_PLANE,
            ),
        )

    def _points(self) -> Iterator[Any]:
        if not self._trajectory.keypoints:
            return
        rr = self._rr
        yield self._static(_WORLD, rr.ViewCoordinates.RIGHT_HAND_Z_UP)
        colors = _colors(sorted(self._trajectory.keypoints))
        for name, positions in sorted(self._trajectory.keypoints.items()):
            entity = f"{_WORLD}/keypoints/{_part(rr, name)}"
            known = np.isfinite(positions).all(axis=1)
            columns = rr.Points3D.columns(positions=positions[known]).partition(known.astype(np.int64))
            yield self._chunk(entity, np.arange(len(positions)), columns)
            look = rr.Points3D.from_fields(labels=[name], radii=[_POINT_RADIUS], colors=[colors[name]])
            yield self._static(entity, look)
        hand = self._trajectory.keypoints.get(_HAND)
        if hand is not None and np.isfinite(hand).all():
            line = rr.LineStrips3D([hand], colors=[colors[_HAND]], radii=[_POINT_RADIUS / 4])
            yield self._static(f"{_WORLD}/path/{_HAND}", line)

    def _numbers(self) -> Iterator[Any]:
        trajectory = self._trajectory
        for name, values in sorted(trajectory.signals.items()):
            if name != "success":
                yield from self._lines(f"/signals/{_part(self._rr, name)}", values[:, None], [name])
        state_names = [f"state {index}" for index in range(trajectory.proprio.shape[1])]
        yield from self._lines("/robot/state", trajectory.proprio, state_names)
        yield from self._lines("/robot/action", trajectory.actions, self._episode.action_names)
        if trajectory.steps and np.isfinite(trajectory.token_logps).all() and trajectory.token_logps.size:
            sums = trajectory.token_logps.astype(np.float64).sum(axis=1)
            yield from self._lines("/policy/logp", sums[:, None], ["log-probability of the action"])

    def _lines(self, entity: str, values: Array, names: Sequence[str], states: Sequence[int] | None = None) -> Any:
        """A curve a column of ``values``, at states from 0 if not given; rows with a value that is missing are not."""
        known = np.isfinite(values).all(axis=1)
        if not values.shape[1] or not known.any():
            return
        at = np.arange(len(values)) if states is None else np.asarray(states)
        width = values.shape[1]
        columns = self._rr.Scalars.columns(scalars=values[known].reshape(-1).astype(np.float64))
        yield self._chunk(entity, at[known], columns.partition(np.full(int(known.sum()), width)))
        yield self._static(entity, self._rr.SeriesLines(names=list(names)))

    def _success(self) -> Iterator[Any]:
        values = self._trajectory.signals["success"]
        if np.isfinite(values).all():
            solved = values > 0.5
            changes = [0, *(np.flatnonzero(solved[1:] != solved[:-1]) + 1).tolist()]
            texts = ["solved" if solved[state] else "not solved" for state in changes]
            yield self._chunk("/success", changes, self._rr.StateChange.columns(state=texts))

    def _stages(self, score: Score) -> Iterator[Any]:
        """One lane with the stage under way; empty where none is."""
        entered = sorted(
            (stage for stage in score.stages if stage.reached and stage.end >= stage.start),
            key=lambda stage: stage.start,
        )
        changes: dict[int, str] = {}
        for stage in entered:
            if changes.get(stage.start, "") == "":
                changes[stage.start] = stage.name
            changes.setdefault(stage.end + 1, "")
        within = {state: text for state, text in sorted(changes.items()) if state <= self._trajectory.steps}
        if within:
            yield self._chunk("/stages", list(within), self._rr.StateChange.columns(state=list(within.values())))

    def _costs(self, score: Score) -> Iterator[Any]:
        for stage in score.stages:
            for constraint in stage.constraints if stage.reached and stage.end >= stage.start else ():
                states, values = _curve(stage, constraint, self._trajectory.steps)
                unit = f" ({constraint.unit})" if constraint.unit else ""
                both = np.column_stack([values, np.full(len(values), constraint.threshold)])
                entity = f"/costs/{_part(self._rr, stage.name)}/{_part(self._rr, constraint.name)}"
                yield from self._lines(entity, both, [f"{constraint.name}{unit}", "threshold"], states)


def _curve(stage: StageScore, constraint: ConstraintScore, steps: int) -> tuple[list[int], Array]:
    """States and values of a constraint's curve, each state once."""
    rounded = {
        min(steps, int(np.floor(state + 0.5))): value
        for state, value in zip(stage.curve_states(constraint), constraint.curve, strict=True)
    }
    return list(rounded), np.array(list(rounded.values()), dtype=np.float64)


def _markdown(value: Any) -> str:
    """Text from outside as text of a table's cell, not as markup."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return "".join(f"\\{char}" if char in r"\`*_{}[]<>#|!" else " " if char in "\r\n" else char for char in text)


def _colors(names: Sequence[str]) -> Mapping[str, list[int]]:
    """Colors that differ from name to name, the same in every episode."""
    turns = np.linspace(0, 2 * np.pi, max(1, len(names)), endpoint=False)
    shades = 140 + 100 * np.cos(turns[:, None] - np.array([0, 2, 4]) * np.pi / 3)
    return {name: shade.astype(int).tolist() for name, shade in zip(names, shades, strict=True)}
