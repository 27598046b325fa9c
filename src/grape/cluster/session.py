"""Opening a Ray cluster: one of our own on this machine, or one whose address was given; never any other."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grape.core.errors import GrapeError, SettingsError
from grape.core.files import content_hash

__all__ = ["Cluster", "Node", "node_address", "open_cluster", "refuse_unused_address"]

_ANSWER_SECONDS = 10.0
_LOOPBACK = "127.0.0.1"
_OBJECT_STORE = 80 * 2**20  # the least that Ray takes: nothing of ours lies in it
_PREFIX = "grape-ray-"
_LONGEST_REASON = 1000
_TRIES = 3
_LEAST_RELEASE = (2, 52)  # tokens
_INSTALL = "pip install 'grape-vla[ray]'"

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # GPUs are reserved for replicas; simulators that draw on them see all.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_GIVEN = {
    # Each try at an address takes half a minute; there is something that answers, and if it is no Ray it will never be.
    "RAY_NUM_REDIS_GET_RETRIES": "2",
}
_OWN = {
    # Ray takes the address of the network card for a local instance, unless its clusters are said to be unsupported.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # other users of this machine can reach its loopback, too
}


@dataclass(frozen=True)
class Node:
    """A machine of a cluster.

    Attributes:
        node_id: Ray's name of it.
        address: Its address within the cluster.
        resources: Amounts by name, e.g. ``CPU`` and ``GPU``.
    """

    node_id: str
    address: str
    resources: Mapping[str, float]


@dataclass
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        address: As it was given; empty for an instance of our own on this machine.
        host: Address of this machine within it.
        checked: What was found on its nodes already, by what was asked.
    """

    address: str
    host: str
    checked: dict[Any, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether it is an instance of our own on this machine."""
        return not self.address

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive."""
        import ray

        return tuple(
            Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]
        )

    def total(self, resource: str, where: str = "") -> float:
        """How much of a resource all nodes have together; with ``where``, those that also have this one."""
        nodes = [node for node in self.nodes() if not where or node.resources.get(where, 0.0) > 0]
        return sum(node.resources.get(resource, 0.0) for node in nodes)


def node_address() -> str:
    """Address of this machine within the cluster that this process belongs to."""
    import ray

    return str(ray.util.get_node_ip_address())


_open: Cluster | None = None
"""A process is connected to one cluster at a time; verbs within a verb share it."""


@contextlib.contextmanager
def open_cluster(address: str = "") -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine; within another call with this address, the same one.

    Args:
        address: ``host:port`` of the cluster's head; empty starts an instance on the loopback interface, in a temporary
            directory of its own, which ends with this call.

    Raises:
        SettingsError: Ray is missing, nothing answers there, this machine is no node of that cluster, or Ray is in use
            in this process.
    """
    global _open
    _check_address(address)
    if _open is None:
        with _connected(address) as cluster:
            _open = cluster
            try:
                yield cluster
            finally:
                _open = None
        return
    if _open.address != address:
        raise SettingsError(f"This process is connected to {_open.address or 'a Ray of its own'} already.")
    yield _open


def refuse_unused_address(address: str) -> None:
    """Refuse the address of a cluster where the local launcher does the work.

    Raises:
        SettingsError: There is an address.
    """
    if address:
        raise SettingsError(f"--ray-address {address} has no effect with --launcher local.", "Give --launcher ray.")


def _check_address(address: str) -> None:
    if not address:
        return
    host, colon, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise SettingsError(
            f"--ray-address {address}: replicas connect to this process, which must run on a node of the cluster.",
            "Run the command on a node and give host:port, e.g. 10.0.0.1:6379.",
        )
    if not (host and colon and port.isdecimal()):
        raise SettingsError(
            f"--ray-address {address!r} is no host:port.",
            "Give what 'ray start --head' printed, e.g. 10.0.0.1:6379; leave it out for this machine alone.",
        )


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Cluster]:
    if address:
        _check_answer(address)
    with _environment({**_QUIET, **(_GIVEN if address else _OWN)}):
        ray = _import_ray()
        if ray.is_initialized():
            raise SettingsError(
                "Ray is in use in this process already.", "Call ray.shutdown() first: GRAPE keeps to a Ray of its own."
            )
        options: dict[str, Any] = {"namespace": f"grape-{uuid.uuid4().hex}", "log_to_driver": False}
        options |= {"logging_level": logging.ERROR, "include_dashboard": None if address else False}
        with contextlib.ExitStack() as stack:
            if not address:
                options |= {"_temp_dir": str(stack.enter_context(_folder())), "object_store_memory": _OBJECT_STORE}
            stack.callback(ray.shutdown)
            _start(ray, address, options)
            host = node_address()
            if not address and host != _LOOPBACK:
                raise SettingsError(
                    f"Ray would listen on {host} and not on the loopback interface: it was imported before.",
                    "Set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 where this process is started.",
                )
            yield Cluster(address, host)


def _start(ray: Any, address: str, options: Mapping[str, Any]) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            ray.init(address=address or "local", **options)
            return
        except Exception as error:  # Ray raises bare exceptions, too
            ray.shutdown()
            reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
            # Ray gives a machine half a minute, which a busy one may need twice.
            if address or not tries_left or "timed out" not in reason:
                raise _refusal(address, reason) from error
            _end_processes(options["_temp_dir"])


def _end_processes(folder: str) -> None:
    """End what a failed start in a temporary directory left running, where the system tells; else it ends with us."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            with contextlib.suppress(OSError):
                if folder.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(child, signal.SIGKILL)


def _refusal(address: str, reason: str) -> GrapeError:
    if not address:
        return GrapeError(
            f"Ray does not start on this machine: {reason}", "Is it very busy, or is its temporary directory full?"
        )
    return SettingsError(
        f"--ray-address {address}: Ray refuses. {reason}",
        "This machine must be a node of that cluster, with the same releases of Python and Ray: "
        f"ray start --address={address}",
    )


def _check_answer(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"--ray-address {address} does not answer: {getattr(error, 'strerror', None) or error}.",
            "Start a cluster with 'ray start --head', or leave --ray-address out for this machine alone.",
        ) from error


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise SettingsError("--launcher ray needs Ray, which is not installed.", _INSTALL) from error
    if tuple(map(int, ray.__version__.split(".")[:2])) < _LEAST_RELEASE:
        raise SettingsError(
            f"Ray {ray.__version__} is installed, which knows no tokens: whoever reaches it could run programs in it.",
            _INSTALL,
        )
    return ray


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for Ray and the processes that it starts; those that the user set stay as they are."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A temporary directory for Ray, with the process in its name; those of processes that were killed are removed.

    Its path is short, since the paths of sockets in it may have 107 characters.
    """
    root = Path(tempfile.gettempdir())
    if len(str(root)) > 30 and sys.platform != "win32":
        root = Path("/tmp")
    prefix = f"{_PREFIX}{os.getuid()}-{content_hash(socket.gethostname())[:4]}-"  # a container has processes of its own
    for left in root.glob(f"{prefix}*"):
        process = left.name.split("-")[-2]
        if process.isdecimal() and not Path(f"/proc/{process}").exists() and Path("/proc/self").exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
