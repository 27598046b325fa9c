"""A policy that runs on a server, and its type: ``--policy ws://host:port``."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.provenance import Provenance, provenance_from_json
from grape.core.trajectories import Observation
from grape.policies.base import ActionBatch, PolicySpec
from grape.policies.exports import PolicyExport
from grape.policies.remote.address import parse_address, read_token
from grape.policies.remote.connection import PolicyConnection
from grape.policies.remote.messages import decide_message, prompt_message, read_decision
from grape.policies.types import AS_STATED, CheckpointInfo, OpeningOptions, PolicyType

__all__ = ["RemotePolicy", "RemotePolicyType"]


class RemotePolicy:
    """A policy on a server; what it decides is what the policy there decides on the same batch and seeds.

    Args:
        connection: To the server; opened by the first use.
    """

    def __init__(self, connection: PolicyConnection) -> None:
        self._connection = connection
        self._prompts: dict[str, str] = {}

    @property
    def spec(self) -> PolicySpec:
        """The policy's contract, as the server states it."""
        return self._connection.facts().spec

    @property
    def evaluation_conventions(self) -> Mapping[str, Any]:
        """What a suite shall do, by name, as the server states it."""
        return self._connection.facts().conventions

    def facts(self) -> Mapping[str, Any]:
        """How it is run, as the server states it."""
        return self._connection.facts().facts

    def provenance(self) -> Provenance:
        """Initial states that it was trained or chosen on, as the server states them.

        Raises:
            DataError: They are not understood.
        """
        return provenance_from_json(
            self._connection.facts().provenance, f"What the server at {self._connection.url} was trained on"
        )

    def prompt(self, instruction: str) -> str:
        """The text the network reads for an instruction; asked for once.

        Raises:
            DataError: The server answers with none.
        """
        if instruction not in self._prompts:
            prompt = self._connection.ask(prompt_message(instruction)).get("prompt")
            if not isinstance(prompt, str):
                raise DataError(f"The server at {self._connection.url} answered with no prompt.", "Update it.")
            self._prompts[instruction] = prompt
        return self._prompts[instruction]

    def act(
        self, observations: Sequence[Observation], *, temperature: float = 0.0, seeds: Sequence[int] | None = None
    ) -> ActionBatch:
        """Compute a decision for each observation, see :meth:`grape.policies.base.Policy.act`.

        Raises:
            PolicyError: The server was lost and did not come back, or cannot decide.
            CompatibilityError: It came back with another policy.
            DataError: A message is too large, or cannot be read.
        """
        answer = self._connection.ask(decide_message(observations, temperature, seeds))
        return read_decision(answer, self._connection.url)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class RemotePolicyType(PolicyType):
    """Connects to policy servers; the type's name is the scheme of their addresses, ``ws`` or ``wss``."""

    takes = frozenset({"unnorm_key", "center_crop"})
    is_remote = True

    def recognizes(self, config: Mapping[str, Any], names: Collection[str]) -> bool:
        """No: a server has no files."""
        return False

    def open(self, path: Path | str, options: OpeningOptions) -> RemotePolicy:
        """Connect to a server.

        Raises:
            SettingsError: Nobody answers there, the token is wrong, or an option is the server's to decide.
            CompatibilityError: It speaks another protocol, or runs its policy otherwise than asked for.
            DataError: What it says cannot be read.
        """
        policy = RemotePolicy(self._connection(path))
        for name in ("dtype", "attention"):
            if (value := getattr(options, name)) != getattr(AS_STATED, name):
                raise SettingsError(f"--{name} {value} is for the server to decide.", f"Give 'grape serve' --{name}.")
        spec, crops = policy.spec, policy.facts().get("center_crop") is True
        if options.unnorm_key not in ("", spec.unnorm_key):
            raise CompatibilityError(
                f"The server un-normalizes with {spec.unnorm_key or 'no statistics'}, not {options.unnorm_key}.",
                f"Start it with --unnorm-key {options.unnorm_key}.",
            )
        if options.center_crop not in (None, crops):
            raise CompatibilityError(
                f"The server {'crops images' if crops else 'does not crop images'}, which is not what is asked for.",
                f"Start it with --center-crop {'yes' if options.center_crop else 'no'}.",
            )
        return policy

    def info(self, path: Path | str, options: OpeningOptions = AS_STATED) -> CheckpointInfo:
        """The statistics in use, and whether images are cropped. Errors as :meth:`open`."""
        with contextlib.closing(RemotePolicy(self._connection(path))) as policy:
            keys = (policy.spec.unnorm_key,) if policy.spec.unnorm_key else ()
            return CheckpointInfo(keys, policy.facts().get("center_crop") is True)

    def provenance(self, path: Path | str) -> Provenance:
        """Initial states that it was trained or chosen on, as the server states them; errors as :meth:`open`."""
        with contextlib.closing(RemotePolicy(self._connection(path))) as policy:
            return policy.provenance()

    def cautions(self, path: Path | str, options: OpeningOptions) -> tuple[str, ...]:
        """That a token travels unencrypted, where it does."""
        address = parse_address(f"{self.name}:{path}")
        if address.is_encrypted or address.is_local or not read_token():
            return ()
        return (
            f"The token and all images travel unencrypted to {address.url}. In a network with others, put TLS before "
            "the server (wss://), or use an SSH tunnel.",
        )

    def export_merged(self, path: Path | str, options: OpeningOptions, shard_bytes: int) -> PolicyExport:
        """Refused: the checkpoint lies with the server."""
        raise self._not_here(path, "exported")

    def export_adapter(self, path: Path | str, base_name: str = "") -> PolicyExport:
        """Refused: the checkpoint lies with the server."""
        raise self._not_here(path, "exported")

    def _not_here(self, path: Path | str, done: str) -> SettingsError:
        return SettingsError(
            f"{self.name}:{path} is a policy on a server, which cannot be {done} from here.",
            "Give the folder of its checkpoint, where that lies.",
        )

    def _connection(self, path: Path | str) -> PolicyConnection:
        return PolicyConnection(parse_address(f"{self.name}:{path}"), read_token())
