"""Settings of ``grape serve``. Torch is not imported, so ``--help`` is fast."""

from dataclasses import dataclass

from grape.core.settings import Range, setting
from grape.policies.opening import PolicySettings

__all__ = ["ServeSettings"]

_SERVER, _OBSERVATIONS = "Server", "Observations of robots"


@dataclass(frozen=True)
class ServeSettings(PolicySettings):
    """Serve a policy over a WebSocket: to robots that use openpi's client, and to grape collect and evaluate.

    It listens until Ctrl-C. GET /healthz and /metrics answer on the same port. See docs/serving.md.

    Attributes:
        policy: Checkpoint folder, or a name on the Hugging Face hub, e.g. openvla/openvla-7b.
        host: Address to listen at. Another one than this machine's own (127.0.0.1) needs a token, in the environment
            variable GRAPE_SERVE_TOKEN or in the file that GRAPE_SERVE_TOKEN_FILE names; clients send it.
        port: Port to listen at; 0 takes a free one, which is printed.
        batch: Observations of different robots that are decided on together at most. Batches of grape collect and
            evaluate are never joined, so that their results are those of the policy opened there.
        window_ms: How long a robot's request waits for others to share its batch, milliseconds; 0 waits for none.
        clients: Connections at most.
        message_mb: Size of the largest message that is taken, megabytes.
        log_requests: Also log every request; connections and errors always are.
        image_keys: Key of each camera's image in a robot's observation, in the order of the policy's cameras; a/b is
            the entry a/b, or b in the map a. Not given: observation/image, observation/wrist_image.
        state_keys: Keys of the robot's state, joined in this order. Not given: observation/state.
        prompt_key: Key of the instruction.
        instruction: Instruction for observations that hold none; empty refuses them.
    """

    policy: str = setting(common=True, kw_only=True)
    host: str = setting("127.0.0.1", group=_SERVER, common=True)
    port: int = setting(8000, group=_SERVER, range=Range(0, 65535), common=True)
    batch: int = setting(16, group=_SERVER, range=Range(1), common=True)
    window_ms: float = setting(5.0, group=_SERVER, range=Range(0, 10_000))
    clients: int = setting(64, group=_SERVER, range=Range(1, 10_000))
    message_mb: float = setting(64.0, group=_SERVER, range=Range(0, 1024, open_low=True))
    log_requests: bool = setting(False, group=_SERVER)
    image_keys: tuple[str, ...] = setting((), group=_OBSERVATIONS)
    state_keys: tuple[str, ...] = setting((), group=_OBSERVATIONS)
    prompt_key: str = setting("prompt", group=_OBSERVATIONS)
    instruction: str = setting("", group=_OBSERVATIONS)
