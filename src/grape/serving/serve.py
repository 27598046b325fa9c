"""The verb ``serve``: a policy behind a WebSocket until it is stopped."""

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grape
from grape.core.errors import PolicyError, SettingsError
from grape.core.events import SILENT, Reporter
from grape.core.hosts import is_loopback
from grape.core.packages import load_package
from grape.core.provenance import provenance_to_json
from grape.core.secrets import Secret
from grape.core.settings import check_ranges
from grape.policies.base import Policy, TrainablePolicy
from grape.policies.opening import opening_options
from grape.policies.registry import (
    check_policy_place,
    conventions_of,
    crop_caution,
    open_as,
    provenance_of,
    recognize_policy,
)
from grape.policies.remote.address import TOKEN, TOKEN_FILE, read_token
from grape.policies.remote.messages import PROTOCOL, ServerFacts
from grape.policies.remote.packing import EXTRA_NEED
from grape.serving.server import PolicyServer
from grape.serving.settings import ServeSettings

__all__ = ["bind", "open_served", "run_serve"]

_SHORTEST_TOKEN = 16
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MEGABYTE = 2**20


def run_serve(settings: ServeSettings, reporter: Reporter = SILENT) -> Mapping[str, Any]:
    """Serve a policy until SIGINT or SIGTERM; requests that are under way then are answered first.

    Host, token and port are settled before weights are read; nobody is let in before the policy is open.

    Args:
        settings: What to serve, where and to whom.
        reporter: Hears of events, one JSON object a message.

    Returns:
        Summary: ``url``, ``policy_hash``, ``requests`` (counts by how they ended), ``observations``, ``seconds``.

    Raises:
        SettingsError: There is no such policy, the port is taken, or another host than this machine's own is to be
            served without a token.
        DataError: The policy's files are damaged.
        CompatibilityError: The settings do not fit the policy.
    """
    check_ranges(settings)
    token = _token_for(settings.host)
    for package in ("msgpack", "websockets"):
        load_package(package, EXTRA_NEED, "serve")
    check_policy_place(settings.policy)
    with contextlib.closing(bind(settings.host, settings.port)) as listener:
        policy, facts = open_served(settings, reporter)
        return asyncio.run(_serve(policy, facts, settings, token, listener, reporter))


def open_served(settings: ServeSettings, reporter: Reporter) -> tuple[Policy, ServerFacts]:
    """Open the policy, and say what clients are told of it.

    Raises:
        SettingsError: There is no such policy, or it runs on a server itself.
        DataError: Its files are damaged.
        PolicyError: It states no hash.
    """
    policy_type, place = recognize_policy(settings.policy, settings.preset)
    if policy_type.is_remote:
        raise SettingsError(f"{settings.policy} is served already.", "Give clients its own address.")
    options = opening_options(settings)
    for sentence in policy_type.cautions(place, options):
        reporter.warn(sentence)
    policy = open_as(policy_type, place, options)
    if isinstance(policy, TrainablePolicy):
        policy.freeze()
    if caution := crop_caution(policy_type, place, settings, settings.policy):
        reporter.warn(caution)
    spec = policy.spec
    if not spec.policy_hash:
        raise PolicyError(
            f"{settings.policy} states no policy_hash, by which results of different policies are told apart.",
            "Its type must give its PolicySpec a hash of all that its decisions depend on.",
        )
    stated = dict(policy.facts()) if isinstance(policy, TrainablePolicy) else {}
    return policy, ServerFacts(
        protocol=PROTOCOL,
        release=grape.__version__,
        type=policy_type.name,
        spec=spec,
        conventions=dict(conventions_of(policy)),
        facts=stated,
        provenance=provenance_to_json(provenance_of(settings.policy)),
        message_bytes=int(settings.message_mb * _MEGABYTE),
    )


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet, so that early clients are refused and come again.

    Raises:
        SettingsError: The host is none of this machine, or the port is taken.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"Nothing can listen at {host}, port {port}: {reason}.",
            "Give another --port or --host; 0 takes a free port.",
        ) from error
    return listener


def _token_for(host: str) -> Secret:
    """The token of the environment.

    Raises:
        SettingsError: There is none, or a short one, and the host is not this machine alone.
    """
    token = read_token()
    if is_loopback(host):
        return token
    hint = f'Make one: export {TOKEN}="$(openssl rand -hex 24)", or name a file that holds one in {TOKEN_FILE}.'
    if not token:
        raise SettingsError(f"--host {host} lets other machines in, and there is no token.", hint)
    if len(token.reveal()) < _SHORTEST_TOKEN:
        raise SettingsError(
            f"--host {host} lets other machines in, and the token has fewer than {_SHORTEST_TOKEN} characters.", hint
        )
    return token


async def _serve(
    policy: Policy,
    facts: ServerFacts,
    settings: ServeSettings,
    token: Secret,
    listener: socket.socket,
    reporter: Reporter,
) -> dict[str, Any]:
    def log(event: str, more: Mapping[str, Any]) -> None:
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **more}
        reporter.info(token.cleanse(json.dumps(line, default=str)))

    server = PolicyServer(policy, facts, settings, token, log)
    host, port = listener.getsockname()[:2]
    url = f"ws://{f'[{host}]' if ':' in host else host}:{port}"
    listener.listen()
    start_time = time.monotonic()
    log("listening", {"url": url, "type": facts.type, "policy_hash": facts.spec.policy_hash, "chunk": facts.spec.chunk})
    with _stopped_by_signals(server):
        await server.run(listener)
    metrics = server.metrics
    summary = {
        "url": url,
        "policy_hash": facts.spec.policy_hash,
        "requests": dict(metrics.requests),
        "observations": metrics.observations,
        "seconds": round(time.monotonic() - start_time, 1),
    }
    log("stopped", {name: summary[name] for name in ("requests", "observations", "seconds")})
    return summary


@contextlib.contextmanager
def _stopped_by_signals(server: PolicyServer) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM stop the server, and leave the next one to who handled them before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, before = asyncio.get_running_loop(), {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number in list(before):
            loop.remove_signal_handler(number)
            signal.signal(number, before.pop(number))

    def stop() -> None:
        restore()
        server.stop()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        restore()
