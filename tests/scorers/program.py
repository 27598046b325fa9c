"""An external scorer and judge of the standard library alone, which misbehaves as its arguments say.

Usage: program.py BEHAVIOR [EPISODE...]: the behavior shows at these episodes, or at all where none is named. With
``once:`` in front of it, at the first request only: a file beside the episode's own tells a restarted program.
"""

import json
import os
import sys
import time
import zipfile

BEHAVIOR, ONLY = sys.argv[1], sys.argv[2:]


def value_of(episode: dict) -> float:
    """Something that tells that the files are there and whole: fewer control steps are better."""
    for path in (episode["arrays"], *episode["cameras"].values()):
        if not os.path.getsize(path):
            raise SystemExit("an empty file")
    with zipfile.ZipFile(episode["arrays"]) as arrays:
        if "signal/success.npy" in arrays.namelist() or "keypoint/gripper.npy" not in arrays.namelist():
            raise SystemExit("the verdict is to be seen, or keypoints are missing")
    return -float(episode["control_steps"])


def misbehaves(episode: dict) -> bool:
    if ONLY and episode["episode_id"] not in ONLY:
        return False
    if not BEHAVIOR.startswith("once:"):
        return True
    mark = os.path.join(os.path.dirname(os.path.dirname(episode["arrays"])), "seen-" + episode["episode_id"])
    if os.path.exists(mark):
        return False
    with open(mark, "w"):
        return True


for line in sys.stdin:
    request = json.loads(line)
    reply = {"id": request["id"]}
    episode = request.get("episode") or request.get("a")
    if request["request"] == "hello":
        reply |= {"name": "stand-in", "noise": 0.5}
    elif request["request"] == "score":
        reply |= {"value": value_of(episode), "step_values": list(range(episode["control_steps"]))}
    else:
        lead = value_of(request["a"]) - value_of(request["b"])
        reply |= {"p": 0.5 if not lead else 0.9 if lead > 0 else 0.1, "reason": "fewer <b>steps</b>"}
    if episode and misbehaves(episode):
        kind = BEHAVIOR.removeprefix("once:")
        if kind == "crash":
            print("out of memory", file=sys.stderr)
            os._exit(3)
        if kind == "loud":
            print("x" * 2**22, "and out of memory", file=sys.stderr)
            os._exit(3)
        if kind == "hang":
            time.sleep(600)
        if kind == "nan":
            reply |= {"value": float("nan"), "p": float("nan")}
        if kind == "nonsense":
            print("loading model ...")
            continue
        if kind == "first":
            reply |= {"p": 0.8}
        if kind == "unknown":
            reply |= {"value": None, "p": None, "problem": "too dark"}
    print(json.dumps(reply))
