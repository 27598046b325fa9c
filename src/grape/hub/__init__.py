"""The verb ``push``: policies, adapters, stores, pairs and reports as repositories of the Hugging Face hub.

``parcel`` says which files belong to a thing, ``evidence`` finds what was measured of it, ``repository_card`` writes
its card, ``upload`` gives a folder to the hub; ``push`` is the verb.
"""

from grape.hub.push import run_push
from grape.hub.settings import PushSettings

__all__ = ["PushSettings", "run_push"]
