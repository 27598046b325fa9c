"""What the programs of this folder share: the protocol, the choice of images, and what is said when something fails."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import traceback
from importlib import metadata
from typing import Any, NoReturn, TextIO

import numpy as np

_LONGEST_PROBLEM = 400


class CannotTellError(Exception):
    """Nothing can be said of this episode, and asking again would not help."""


class RefusalError(Exception):
    """Nothing can be said of any episode: an option does not fit them."""


class _Options(argparse.ArgumentParser):
    """Options whose error is an exception, so that it can be answered."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


class Episode:
    """An episode as a request describes it.

    Attributes:
        name: Its id.
        instruction: The task in words.
        images: Images of one camera where the policy looked, uint8 ``(N+1, H, W, 3)``, the last one after the last
            action.
        times: Number of control steps before each image, ``(N+1,)``.
        control_steps: Number of control steps.
    """

    def __init__(self, description: dict[str, Any], camera: str) -> None:
        self.name = description["episode_id"]
        self.instruction = description["instruction"]
        cameras = description["cameras"]
        if camera not in cameras:
            raise RefusalError(f"there is no camera {camera!r}, only {', '.join(cameras)}: give another --camera")
        if not self.instruction.strip():
            raise CannotTellError("the episode has no instruction, which the reward depends on")
        self.images = np.load(cameras[camera], mmap_mode="r", allow_pickle=False)
        self.control_steps = int(description["control_steps"])
        self.times = np.array([*description["decision_starts"], self.control_steps])
        self._arrays = description["arrays"]

    @property
    def last(self) -> int:
        """Index of the last image."""
        return len(self.images) - 1

    def clip(self, last: int, count: int) -> Any:
        """Images from the first to that of index ``last``, at most ``count``, evenly over time: ``(n, H, W, 3)``."""
        return np.array(self.images[evenly(last, count)])

    def images_at(self, steps: Any) -> Any:
        """The last image seen when each of some control steps begins: ``(n, H, W, 3)``."""
        return np.array(self.images[np.searchsorted(self.times, steps, side="right") - 1])

    def states(self) -> Any:
        """Robot state before each control step and after the last, float32 ``(T+1, P)``."""
        with np.load(self._arrays, allow_pickle=False) as arrays:
            return arrays["proprio"]


class LeRobotClips:
    """A reward of LeRobot that sees images up to one of an episode: how it is opened, and asked.

    Attributes:
        config: Its configuration.
    """

    def __init__(self, name: str, frames: int, **settings: Any) -> None:
        from lerobot.rewards import make_reward_model, make_reward_model_config, make_reward_pre_post_processors

        self.config = make_reward_model_config(name, max_frames=frames, **settings)
        self._frames = frames
        self._model = make_reward_model(self.config)
        self._preprocess, _ = make_reward_pre_post_processors(self.config)

    def value(self, episode: Episode, image: int) -> Any:
        """What it says at an image, seen with those before it."""
        clip = episode.clip(image, self._frames).transpose(0, 3, 1, 2)[None]
        batch = {self.config.image_key: clip, "task": episode.instruction}
        return self._model.compute_reward(self._preprocess(batch))


def evenly(last: int, count: int) -> Any:
    """At most ``count`` indices from 0 to ``last``, both of them where there are two, else ``last`` alone."""
    if count == 1:
        return np.array([last])
    return np.unique(np.linspace(0, last, count).round().astype(int))


def number(output: Any) -> float:
    """The one number of a model's output, which may be a tensor, an array or a list.

    Raises:
        RuntimeError: There are more or fewer.
        CannotTellError: It is not finite.
    """
    array = np.asarray(output.tolist() if hasattr(output, "tolist") else output, dtype=float)
    if array.size != 1:
        raise RuntimeError(f"the model answered numbers of shape {array.shape} where one was expected")
    value = float(array.ravel()[0])
    if not math.isfinite(value):
        raise CannotTellError(f"the model answered {value}")
    return value


def serve(kind: Any) -> None:
    """Answer the requests of standard input until it ends.

    Args:
        kind: A class with a docstring, ``task`` (``"scorer"`` or ``"judge"``), ``package`` (name of the distribution),
            ``needs`` (what to install), ``add_options(parser)`` and a constructor of the options, which loads the
            model; and with ``value(episode, image)``, what the model says at the image of that index, or
            ``prefer(a, b)``. ``about`` is what it adds to the greeting.
    """
    parser = _Options(description=kind.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camera", default="main", help="whose images the reward sees (default: main)")
    kind.add_options(parser)
    if kind.task == "scorer":
        parser.add_argument(
            "--points",
            type=int,
            default=1,
            help="at how many images, evenly over the episode, it is asked; with more than one there are values a "
            "control step, interpolated in between (default: 1, the last image)",
        )
    options = argparse.Namespace()
    problem = ""
    try:
        options = parser.parse_args()
        for name in ("frames", "points"):
            if getattr(options, name, 1) < 1:
                parser.error(f"--{name} must be 1 or more")
    except ValueError as error:
        problem = f"its options do not fit ({error}): see its --help"
    replies = _own_standard_output()
    reward, greeting = (None, {"problem": problem}) if problem else _load(kind, options)
    for line in sys.stdin:
        request = json.loads(line)
        if request["request"] == "hello" and request["kind"] != kind.task:
            reward, reply = None, {"problem": f"it is a {kind.task}, not a {request['kind']}"}
        elif request["request"] == "hello" or reward is None:
            reply = greeting
        else:
            reply = _answer(reward, request, options)
        print(json.dumps({"id": request["id"], **reply}), file=replies, flush=True)
        if reward is None:
            sys.exit(reply["problem"])


def _own_standard_output() -> TextIO:
    """The pipe that replies go to; whatever packages print from now on goes to standard error."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def _load(kind: Any, options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The loaded reward and what it says of itself; None and the problem where it cannot be loaded."""
    try:
        reward = kind(options)
    except ImportError as error:
        return None, {
            "problem": f"{sys.executable} lacks a package ({_words(error)}): install {kind.needs}, or name the "
            "interpreter that has it"
        }
    except Exception as error:
        traceback.print_exc()
        if _is_out_of_memory(error):
            return None, {"problem": f"{options.model} does not fit into the device's memory ({_words(error)})"}
        return None, {"problem": f"{options.model} cannot be loaded ({_words(error)}): check the options"}
    try:
        version = metadata.version(kind.package)
    except metadata.PackageNotFoundError:
        version = "unknown"
    return reward, {"package": kind.package, "version": version, "options": vars(options), **reward.about}


def _answer(reward: Any, request: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """A score or a judgment. What fails otherwise ends the program, for a new one to begin with a free memory."""
    names = "the episode"
    try:
        if request["request"] == "judge":
            a, b = (Episode(request[side], options.camera) for side in ("a", "b"))
            names = f"{a.name} and {b.name}"
            return {"p": number(reward.prefer(a, b))}
        episode = Episode(request["episode"], options.camera)
        names = episode.name
        return _score(reward, episode, options.points)
    except RefusalError as error:
        return {"refusal": str(error)}
    except CannotTellError as error:
        return {"p" if request["request"] == "judge" else "value": None, "problem": str(error)}
    except Exception as error:
        traceback.print_exc()
        if _is_out_of_memory(error):
            sys.exit(f"Out of memory at {names} ({_words(error)}): give a smaller --frames or another device.")
        sys.exit(f"Failed at {names}: {_words(error)}")


def _score(reward: Any, episode: Episode, points: int) -> dict[str, Any]:
    images = evenly(episode.last, points)
    values = [number(reward.value(episode, int(image))) for image in images]
    reply: dict[str, Any] = {"value": values[-1]}
    if len(images) > 1:
        after = np.arange(1, episode.control_steps + 1)
        reply["step_values"] = np.interp(after, episode.times[images], values).tolist()
    return reply


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _words(error: Exception) -> str:
    """Type and message on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_PROBLEM].rstrip(".")
