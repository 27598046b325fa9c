"""A scorer of one's own: minus the number of control steps, since who succeeds is done earlier than who fails.

    grape score --store runs/rollouts --out runs/scores --scorer 'python examples/judges/haste.py'

It never looks at an image, and says so.
"""

import json
import sys

for line in sys.stdin:
    request = json.loads(line)
    reply = {"id": request["id"]}
    if request["request"] == "hello":
        reply |= {"name": "minus the number of control steps", "needs_images": False}
    else:
        reply["value"] = -float(request["episode"]["control_steps"])
    print(json.dumps(reply), flush=True)
