"""A scorer of one's own: how much the last image of an episode differs from the first, in levels of 0 to 255.

    grape score --store runs/rollouts --out runs/scores --scorer 'python examples/judges/image_change.py'

A robot that moved something changes the scene, one that stood still does not. Whether that says who did better is what
``grape agree`` finds out. It needs NumPy alone, and no GRAPE.
"""

import json
import sys

import numpy as np

for line in sys.stdin:
    request = json.loads(line)
    reply = {"id": request["id"]}
    if request["request"] == "hello":
        reply["name"] = "difference of the last image from the first"
    else:
        images = np.load(request["episode"]["cameras"]["main"])
        reply["value"] = float(np.abs(images[-1].astype(float) - images[0]).mean())
    print(json.dumps(reply), flush=True)
