"""Vision-language models behind one protocol: an endpoint, a model on this machine, or recorded answers.

The room knows conversations, budgets and secrets; what is asked, and what an answer means, is the business of others.
"""

from grape.vlm.budget import Budget, Limits, Prices
from grape.vlm.conversation import Answer, ChatModel, Message, Picture, Request, Usage, request_key
from grape.vlm.credentials import Endpoint, Secret, endpoint_from_environment
from grape.vlm.endpoint import EndpointModel, Patience
from grape.vlm.recordings import AnswerFolder, Recorder, Replayer, ScriptedModel
from grape.vlm.retries import Retries

__all__ = [
    "Answer",
    "AnswerFolder",
    "Budget",
    "ChatModel",
    "Endpoint",
    "EndpointModel",
    "Limits",
    "Message",
    "Patience",
    "Picture",
    "Prices",
    "Recorder",
    "Replayer",
    "Request",
    "Retries",
    "ScriptedModel",
    "Secret",
    "Usage",
    "endpoint_from_environment",
    "request_key",
]
