"""Programs that run learned rewards of other projects as scorers and judges; each is a script, started by its path.

A script runs in the interpreter where the reward's package lives, Python 3.10 or later. So it imports nothing of GRAPE,
and no package but numpy and the reward's own. What the scripts share is ``reward_protocol``, which lies beside them and
which they import when they are started.
"""
