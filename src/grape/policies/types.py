"""What opens policies: the interface of a policy type, which other distributions register under ``grape.policies``."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grape.core.errors import SettingsError
from grape.core.provenance import Provenance, read_provenance
from grape.policies.base import ImitationPolicy, LoraTargets, Policy, TrainablePolicy
from grape.policies.exports import PolicyExport
from grape.policies.probes import Probe

__all__ = [
    "AS_STATED",
    "USER_OPTIONS",
    "AdapterInfo",
    "CheckpointInfo",
    "DataFacts",
    "NewPolicy",
    "OpeningOptions",
    "PolicyType",
]


@dataclass(frozen=True)
class OpeningOptions:
    """How a policy is opened.

    Attributes:
        unnorm_key: Normalization statistics to use; empty takes those that the checkpoint says are in use, or the only
            ones there are.
        center_crop: Whether images are cropped in the middle; None takes what the checkpoint says.
        norm_stats: Statistics of data that the checkpoint has not seen, by data set.
        device: Where to compute: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        dtype: What frozen weights are held and computed in: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
        attention: ``"sdpa"``, ``"flash-attention-2"`` or ``"eager"``.
        load_in_4bit: Whether the language model is held in 4 bits.
        merge: Whether an adapter is merged into the weights instead of kept beside them.
        preset: Named conventions to run the checkpoint with; empty takes what it states.
        convention: Single conventions to change, ``NAME=VALUE`` each.
        chunk: Actions a decision; None takes what the checkpoint states.
        cameras: Number of cameras; None takes what the checkpoint states.
        proprio_dim: Numbers of the robot's state that will be given, to be compared; None compares nothing.
        crop_by_preset: Whether a preset's crop counts where ``center_crop`` is None, as in an evaluation.
    """

    unnorm_key: str = ""
    center_crop: bool | None = None
    norm_stats: Mapping[str, Any] | None = None
    device: str = "cpu"
    dtype: Any = "auto"
    attention: Any = "sdpa"
    load_in_4bit: bool = False
    merge: bool = False
    preset: str = ""
    convention: tuple[str, ...] = ()
    chunk: int | None = None
    cameras: int | None = None
    proprio_dim: int | None = None
    crop_by_preset: bool = True


AS_STATED = OpeningOptions()
"""Everything as the checkpoint says, on the CPU."""


USER_OPTIONS = ("unnorm_key", "center_crop", "norm_stats", "load_in_4bit", "preset", "convention", "chunk")
"""Options that users give and not every type has a use for. Device, dtype and attention ask for no other policy."""


@dataclass(frozen=True)
class CheckpointInfo:
    """Facts from a checkpoint's configuration.

    Attributes:
        norm_keys: Names of its normalization statistics, sorted.
        center_crop: Whether it was trained with random crops; None where neither it nor a preset says so, as with
            checkpoints of other software. What was trained here says it in ``grape.center_crop``, or else learned from
            whole images.
    """

    norm_keys: tuple[str, ...] = ()
    center_crop: bool | None = None


@dataclass(frozen=True)
class AdapterInfo:
    """Facts from the folder of a low-rank adapter that lies apart from the policy it belongs to.

    Attributes:
        base: The policy it belongs to.
        rank: Its rank.
        alpha: Its scale times the rank.
        targets: Which linear layers it stands beside, as :meth:`~grape.policies.base.TrainablePolicy.lora_targets`
            names them; None where they are others.
        storage_dtype: Type that the base's weights are stored in.
    """

    base: Path
    rank: int
    alpha: float
    targets: LoraTargets | None
    storage_dtype: str


@dataclass(frozen=True)
class NewPolicy:
    """What a policy with random weights is made for.

    Attributes:
        seed: Decides the weights.
        norm_stats: Normalization statistics by data set; one entry.
        gripper: What the last action dimension means; empty if unknown.
        instructions: Instructions it will be given.
        action_dim: Dimensions of an action.
        chunk: Actions a decision.
        cameras: Names of the cameras; the first is the suite's main camera.
        proprio_dim: Numbers of the robot's state that it reads; 0 for none.
        convention: Single conventions that differ from the type's own, ``NAME=VALUE`` each.
    """

    seed: int
    norm_stats: Mapping[str, Any]
    gripper: str
    instructions: Sequence[str]
    action_dim: int
    chunk: int = 1
    cameras: tuple[str, ...] = ("agentview",)
    proprio_dim: int = 0
    convention: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """What a policy is fitted to before it learns from demonstrations.

    Attributes:
        unnorm_key: Name of the normalization statistics to use.
        statistics: Those statistics, where the policy holds none of that name; None where it does.
        gripper: What the last action dimension means in the demonstrations; empty if unknown.
        center_crop: Whether it learns from random crops, so that its images are cropped in the middle afterwards. Else
            it stays as it was.
    """

    unnorm_key: str
    statistics: Mapping[str, Any] | None = None
    gripper: str = ""
    center_crop: bool = False


class PolicyType(ABC):
    """One kind of policy: recognizes its checkpoints and opens them.

    A distribution registers a class or factory without arguments under the entry-point group ``grape.policies``; the
    entry point's name is the type's. ``NAME:PLACE`` as a policy asks for a type by name, whatever the place holds: a
    folder, or an address of a running policy.
    """

    name: str = ""
    """Set by the registry."""

    keeps_adapters: bool = False
    """Whether low-rank adapters are saved apart from their base; else the trained ones are merged into it."""

    takes: frozenset[str] = frozenset()
    """Further options that it takes, by field of :data:`USER_OPTIONS`; the others are refused where a user gives one,
    as they would be passed over in silence."""

    is_remote: bool = False
    """Whether its policies run on a server: they act, and cannot be trained or exported from here."""

    weights: tuple[str, ...] = ("*.safetensors",)
    """Files that are downloaded beside configuration and tokenizer, as patterns."""

    @abstractmethod
    def recognizes(self, config: Mapping[str, Any], names: Collection[str]) -> bool:
        """Whether a checkpoint is of this type.

        Args:
            config: Content of its ``config.json``, with ``grape.json`` under ``grape`` where that file is there.
            names: Names of its files.
        """

    @abstractmethod
    def open(self, path: Path | str, options: OpeningOptions) -> Policy:
        """Open a policy with its weights.

        Args:
            path: A folder; a name on the hub; or the place of ``NAME:PLACE``.
            options: How.

        Raises:
            SettingsError: There is no such policy, or the options do not fit it.
            CompatibilityError: Statistics, cameras or chunk are not the checkpoint's.
            DataError: A file is missing, truncated or does not fit the others.
        """

    def read(self, path: Path | str, options: OpeningOptions) -> TrainablePolicy | None:
        """Open a policy without its weights, for dry runs: prompts, images and shapes are there, but it cannot act.

        By default None: what needs it is left out of the plan.
        """
        return None

    def info(self, path: Path | str, options: OpeningOptions = AS_STATED) -> CheckpointInfo:
        """Facts from the configuration, as the options change them. By default nothing is known."""
        return CheckpointInfo()

    def provenance(self, path: Path | str) -> Provenance:
        """Initial states that a policy was trained or chosen on; by default what its folder says."""
        return read_provenance(Path(path))

    def cautions(self, path: Path | str, options: OpeningOptions) -> tuple[str, ...]:
        """What a user should know of a policy before it is opened, in whole sentences. By default nothing."""
        return ()

    def adapter(self, path: Path | str) -> AdapterInfo | None:
        """Facts of the adapter that lies there; None for a whole policy, and by default."""
        return None

    def folders(self, path: Path | str) -> tuple[Path, ...]:
        """Folders of this machine whose files say all that a policy is; none where that is unknown, and by default."""
        return ()

    def save_adapter(self, policy: TrainablePolicy, folder: Path, base: Path, place: Path) -> None:
        """Write a policy's adapter, if this type keeps adapters apart.

        Args:
            policy: The policy with its adapter.
            folder: Where to write; it exists and is empty.
            base: The policy it belongs to.
            place: Where the folder will lie in the end.
        """
        raise NotImplementedError(f"Policies of type {self.name!r} keep no adapters apart.")

    def create(self, facts: NewPolicy) -> ImitationPolicy:
        """A policy with random weights.

        Raises:
            SettingsError: This type makes none, as by default.
        """
        raise SettingsError(f"Policies of type {self.name!r} cannot be made anew.", "Give --policy.")

    def probe(self, path: Path | str, options: OpeningOptions, *, weights: bool) -> Probe:
        """A policy opened to find out under which conventions it was trained.

        Args:
            path: As for :meth:`open`.
            options: How; conventions are what is to be found out.
            weights: Whether to read weights; without, nothing can be scored.

        Raises:
            SettingsError: This type has no conventions to find out, as by default; or as :meth:`open`.
            CompatibilityError: The policy has none, or as :meth:`open`.
            DataError: As :meth:`open`.
        """
        raise SettingsError(f"Policies of type {self.name!r} have no conventions to probe.", "They run in one way.")

    def export_merged(self, path: Path | str, options: OpeningOptions, shard_bytes: int) -> PolicyExport:
        """A policy as a whole checkpoint, adapters merged; read and checked, but nothing is written yet.

        Args:
            path: As for :meth:`open`.
            options: How the checkpoint is meant.
            shard_bytes: Size from which on the weights are divided into several files.

        Raises:
            SettingsError: This type writes none, as by default; or as :meth:`open`.
            CompatibilityError: As :meth:`open`.
            DataError: As :meth:`open`.
        """
        raise SettingsError(f"Policies of type {self.name!r} cannot be exported.", "Copy the checkpoint's files.")

    def export_adapter(self, path: Path | str, base_name: str = "") -> PolicyExport:
        """A LoRA adapter in PEFT's layout; read and checked, but nothing is written yet.

        Args:
            path: As for :meth:`open`.
            base_name: What others call the adapter's base; empty takes the adapter's own word, a path made absolute.

        Raises:
            SettingsError: The policy is no adapter, or this type has none, as by default.
            DataError: The adapter's weights are truncated or fit no layer of the base.
        """
        raise SettingsError(f"Policies of type {self.name!r} have no adapters.", "There is nothing to export.")
