"""Vision-language models behind one protocol: an endpoint, a local model, or recorded answers.

This package handles conversations, budgets and secrets; the content of requests and answers is that of other
packages.
"""

from grape.core.secrets import Secret
from grape.vlm.budget import Budget, Limits, Prices
from grape.vlm.conversation import Answer, ChatImage, ChatModel, Message, Request, Usage, request_key
from grape.vlm.credentials import Endpoint, endpoint_from_environment
from grape.vlm.endpoint import EndpointModel, Timeouts
from grape.vlm.opening import ModelSettings, check_model, open_model
from grape.vlm.recordings import AnswerFolder, Recorder, Replayer, ScriptedModel
from grape.vlm.retries import Retries

__all__ = [
    "Answer",
    "AnswerFolder",
    "Budget",
    "ChatImage",
    "ChatModel",
    "Endpoint",
    "EndpointModel",
    "Limits",
    "Message",
    "ModelSettings",
    "Prices",
    "Recorder",
    "Replayer",
    "Request",
    "Retries",
    "ScriptedModel",
    "Secret",
    "Timeouts",
    "Usage",
    "check_model",
    "endpoint_from_environment",
    "open_model",
    "request_key",
]
