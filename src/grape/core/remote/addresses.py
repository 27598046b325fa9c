"""Addresses of folders on other machines, such as ``s3://bucket/run``: what fsspec can open, but for the hub's names.

The protocol's package knows where the service is and who we are from the environment (for S3 ``AWS_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID`` and so on, or its own files); nothing of that stands in an address, a setting or a log.
"""

import errno
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import GrapeError, SettingsError, did_you_mean

__all__ = ["RemoteAddress", "open_filesystem", "path_text", "refuse_unknown_protocol", "remote_address", "remote_error"]

_HERE = ("file", "local")
_PROTOCOLS = (
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "hdfs", "webhdfs", "sftp", "ssh", "smb", "memory"),
    *_HERE,
)
"""Protocols of fsspec that hold folders; ``hf``, ``ws``, ``rlds`` and others before a colon mean other things here."""
_HOSTS = ("az", "abfs", "abfss", "hdfs", "webhdfs", "sftp", "ssh", "smb")
"""Protocols whose addresses begin with a host, perhaps with a user or a port; others begin with a bucket."""
_PATTERN = re.compile(rf"^(?P<protocol>{'|'.join(_PROTOCOLS)}):/{{1,3}}(?P<rest>[^/].*)?$", re.IGNORECASE)
_ANY_PROTOCOL = re.compile(r"^(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+):/")
_ONE_SLASH = re.compile(rf"^(?P<protocol>hf|{'|'.join(_PROTOCOLS)}):/(?=[^/])")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL", "STORAGE_EMULATOR_HOST")
"""Environment variables that say where a service is: equal addresses of two services are different folders."""


@dataclass(frozen=True)
class RemoteAddress:
    """A folder behind an fsspec protocol.

    Attributes:
        protocol: E.g. ``"s3"``.
        path: Bucket and folder, without slashes at the ends.
    """

    protocol: str
    path: str

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"

    def __truediv__(self, name: str) -> "RemoteAddress":
        return RemoteAddress(self.protocol, f"{self.path}/{name}")

    @property
    def slug(self) -> str:
        """A file name of its own for the address and the service that the environment names."""
        service = [os.environ.get(name, "") for name in _ENDPOINTS]
        digest = hashlib.sha256("\0".join([str(self), *service]).encode()).hexdigest()[:12]
        readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{self.protocol}-{self.path}")[-60:]
        return f"{readable}-{digest}"


def remote_address(text: Path | str) -> RemoteAddress | None:
    """The address that a text is; None where it names anything else.

    ``s3:/bucket`` is the same as ``s3://bucket``: paths hold no double slash.

    Raises:
        SettingsError: It holds a password, or no bucket, or leads out of its folder.
    """
    match = _PATTERN.match(str(text))
    if match is None:
        return None
    protocol = match["protocol"].lower()
    if protocol in _HERE:
        raise SettingsError(f"{text} is a folder of this machine.", "Write its path, without the protocol.")
    path = (match["rest"] or "").strip("/")
    if _has_secret(protocol, path.partition("/")[0]):
        raise SettingsError(
            f"The {protocol}:// address has a user or password before its bucket.",
            "Leave it out: secrets come from the environment alone, e.g. AWS_ACCESS_KEY_ID.",
        )
    if not path or any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path:
        raise SettingsError(f"{text} names no folder.", f"Write {protocol}://BUCKET/FOLDER.")
    return RemoteAddress(protocol, path)


def _has_secret(protocol: str, place: str) -> bool:
    """Whether a password, or part of one, may stand where an address names its bucket or host."""
    user, _, host = place.rpartition("@")
    if protocol not in _HOSTS:
        return bool(user) or ":" in host
    port = host.partition(":")[2]
    return ":" in user or not (port.isdigit() or ":" not in host)


def refuse_unknown_protocol(path: Path) -> None:
    """Refuse a path that is the address of something nothing here can write to.

    Raises:
        SettingsError: It begins as an address of an unknown protocol.
    """
    match = _ANY_PROTOCOL.match(str(path))
    if match is not None and remote_address(path) is None:
        raise SettingsError(
            f"--out {path_text(path)}: results cannot be written to {match['protocol']}://.",
            did_you_mean(match["protocol"].lower(), ["s3", "gs"]) or "Write to a folder, or to s3://BUCKET/FOLDER.",
        )


def path_text(path: Path) -> str:
    """A path as text, with the two slashes of an address, of which paths hold one."""
    return _ONE_SLASH.sub(r"\g<protocol>://", str(path))


def open_filesystem(address: RemoteAddress) -> Any:
    """The fsspec file system of an address.

    Raises:
        SettingsError: The protocol is unknown, or its package is missing.
    """
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise SettingsError(f"{address} needs fsspec.", _install(address)) from error
    if address.protocol not in fsspec.available_protocols():
        known = [name for name in ("s3", "gs", "hf", "memory") if name != address.protocol]
        raise SettingsError(
            f"{address}: the protocol {address.protocol!r} is unknown.", did_you_mean(address.protocol, known)
        )
    options: dict[str, Any] = {"use_listings_cache": False}
    if address.protocol in ("s3", "s3a"):  # the library's own patience is minutes where nobody answers
        options["config_kwargs"] = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}
    try:
        return fsspec.core.url_to_fs(str(address), **options)[0]
    except ImportError as error:
        raise SettingsError(
            f"{address}: {str(error).splitlines()[0]}.".replace("..", "."), _install(address)
        ) from error
    except Exception as error:  # every protocol's package has errors of its own
        raise remote_error(address, error) from error


def _install(address: RemoteAddress) -> str:
    extra = _EXTRAS.get(address.protocol)
    return f"pip install 'grape-vla[{extra}]'" if extra else f"Install fsspec's package for {address.protocol}://."


def remote_error(address: RemoteAddress, error: Exception, kept: str = "") -> GrapeError:
    """An error of a protocol's package as a message.

    Args:
        address: What was read or written.
        error: What the package raised.
        kept: What was not lost, for the hint.
    """
    if isinstance(error, GrapeError):
        return error
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return GrapeError(f"{address} does not fit here: the disk is full.", f"Free space, then retry. {kept}".strip())
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = f"{type(error).__name__}: {lines[0]:.200}" if lines else type(error).__name__
    if isinstance(error, TimeoutError):
        reason = "it did not answer in time"
    hints: Mapping[type[Exception], str] = {
        FileNotFoundError: "Check bucket and folder; a bucket must exist before.",
        PermissionError: "Check the credentials in the environment and the bucket's permissions.",
    }
    hint = next((text for kind, text in hints.items() if isinstance(error, kind)), "")
    hint = hint or "Check the address, the network and the credentials in the environment."
    return GrapeError(f"{address} cannot be reached: {reason}".rstrip(".") + ".", f"{hint} {kept}".strip())
