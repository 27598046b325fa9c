"""The verb ``serve``: a policy behind a WebSocket, for robots and for rollouts on other machines.

``settings`` says what is served and to whom, ``observations`` how a robot's observation is read, ``batching`` puts
requests together, ``metrics`` counts, ``server`` speaks with clients, ``serve`` is the verb. What travels is defined in
``grape.policies.remote``, where the client is.
"""

from grape.serving.serve import run_serve
from grape.serving.settings import ServeSettings

__all__ = ["ServeSettings", "run_serve"]
