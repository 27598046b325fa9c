"""The policy types that come with the project: OpenVLA and OpenVLA-OFT. PyTorch is imported when one is opened."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from grape.core.errors import CompatibilityError, SettingsError
from grape.core.provenance import read_provenance
from grape.core.settings import flag_of
from grape.policies.base import ImitationPolicy, LoraTargets, TrainablePolicy
from grape.policies.exports import PolicyExport
from grape.policies.kinds import PART_PATTERNS, recognize_checkpoint
from grape.policies.opening import read_checkpoint_kind, resolve_policy
from grape.policies.probes import Probe
from grape.policies.types import (
    AS_STATED,
    USER_OPTIONS,
    AdapterInfo,
    CheckpointInfo,
    NewPolicy,
    OpeningOptions,
    PolicyType,
)

__all__ = ["OpenVLAOFTType", "OpenVLAType"]


class _OpenVLAFamily(PolicyType):
    """Policies whose adapters lie apart, in PEFT's layout with a pointer to their base."""

    keeps_adapters = True
    takes = frozenset(USER_OPTIONS) - {"norm_stats"}

    def adapter(self, path: Path | str) -> AdapterInfo | None:
        """Facts of an adapter in PEFT's layout."""
        from grape.policies.openvla.adapter_config import read_adapter_config
        from grape.policies.openvla.adapter_pointer import adapter_base

        base = adapter_base(path)
        if base is None:
            return None
        adapter = read_adapter_config(resolve_policy(path))
        policy: Any = self.read(path, OpeningOptions(unnorm_key=next(iter(self.info(path).norm_keys), "")))
        layers = frozenset(adapter.layers(policy.module))
        kinds: tuple[LoraTargets, ...] = ("language", "language+projector", "all")
        targets = next((kind for kind in kinds if frozenset(policy.lora_targets(kind)) == layers), None)
        return AdapterInfo(base, adapter.rank, adapter.alpha, targets, policy.config.storage_dtype)

    def folders(self, path: Path | str) -> tuple[Path, ...]:
        """The checkpoint's folder and that of an adapter's base; none where either is a name on the hub."""
        from grape.policies.openvla.adapter_pointer import read_pointer

        if not Path(path).is_dir():
            return ()
        pointer = read_pointer(path)
        if pointer is None:
            return (Path(path),)
        return () if pointer.hub is not None else (Path(path), pointer.base)

    def save_adapter(self, policy: TrainablePolicy, folder: Path, base: Path, place: Path) -> None:
        """See :func:`grape.policies.openvla.adapter_saving.save_adapter`."""
        from grape.policies.openvla.adapter_saving import save_adapter

        save_adapter(policy, folder, base, place)

    def probe(self, path: Path | str, options: OpeningOptions, *, weights: bool) -> Probe:
        """See :func:`grape.policies.openvla_oft.probing.open_probe`; what says nothing may be either type's."""
        from grape.policies.openvla_oft.probing import open_probe

        return open_probe(path, options, weights=weights)


class OpenVLAType(_OpenVLAFamily):
    """OpenVLA: one action a decision, token by token."""

    takes = frozenset(USER_OPTIONS)  # those of chunks are refused with the advice to name a preset

    def recognizes(self, config: Mapping[str, Any], names: Collection[str]) -> bool:
        """Whether nothing says that the checkpoint is more than plain OpenVLA."""
        return config.get("model_type") == "openvla" and recognize_checkpoint(config, names).name == "openvla"

    def open(self, path: Path | str, options: OpeningOptions) -> ImitationPolicy:
        """See :func:`grape.policies.openvla.load_policy`."""
        from grape.policies.openvla import load_policy

        _refuse_chunks(options)
        _compare_proprio(path, options)
        return load_policy(
            path,
            unnorm_key=options.unnorm_key or None,
            device=options.device,
            dtype=options.dtype,
            merge=options.merge,
            attention=options.attention,
            load_in_4bit=options.load_in_4bit,
            center_crop=options.center_crop,
            norm_stats=options.norm_stats,
        )

    def read(self, path: Path | str, options: OpeningOptions) -> ImitationPolicy:
        """See :func:`grape.policies.openvla.read_policy`."""
        from grape.policies.openvla import read_policy

        _refuse_chunks(options)
        return read_policy(
            path,
            unnorm_key=options.unnorm_key or None,
            center_crop=options.center_crop,
            norm_stats=options.norm_stats,
        )

    def info(self, path: Path | str, options: OpeningOptions = AS_STATED) -> CheckpointInfo:
        """Facts from the configuration."""
        from grape.policies.openvla import read_policy_config

        config = read_policy_config(path)
        center_crop = config.recorded_center_crop
        if center_crop is None and (config.preset or read_provenance(resolve_policy(path, weights=False)).collected):
            center_crop = config.center_crop
        return CheckpointInfo(tuple(sorted(config.norm_stats)), center_crop)

    def create(self, facts: NewPolicy) -> ImitationPolicy:
        """The nano policy, see :func:`grape.policies.openvla.create_nano`."""
        from grape.policies.openvla import create_nano

        return create_nano(
            seed=facts.seed,
            norm_stats=facts.norm_stats,
            gripper=facts.gripper,
            instructions=facts.instructions,
            proprio_dim=facts.proprio_dim,
        )

    def export_merged(self, path: Path | str, options: OpeningOptions, shard_bytes: int) -> PolicyExport:
        """See :func:`grape.policies.openvla.exporting.export_merged`."""
        from grape.policies.openvla.exporting import export_merged

        _refuse_chunks(options, "cameras", "unnorm_key")
        return export_merged(path, shard_bytes)

    def export_adapter(self, path: Path | str, base_name: str = "") -> PolicyExport:
        """See :func:`grape.policies.openvla.exporting.export_adapter`."""
        from grape.policies.openvla.exporting import export_adapter

        return export_adapter(path, base_name)


class OpenVLAOFTType(_OpenVLAFamily):
    """OpenVLA-OFT: a chunk of actions a decision, in one forward pass."""

    weights = ("*.safetensors", *PART_PATTERNS)

    def recognizes(self, config: Mapping[str, Any], names: Collection[str]) -> bool:
        """Whether parts beside the weights or the configuration say so."""
        return config.get("model_type") == "openvla" and recognize_checkpoint(config, names).name == "openvla-oft"

    def open(self, path: Path | str, options: OpeningOptions) -> ImitationPolicy:
        """See :func:`grape.policies.openvla_oft.loading.load_oft_policy`."""
        from grape.policies.openvla_oft.loading import load_oft_policy

        return load_oft_policy(
            path,
            _choices(path, options),
            device=options.device,
            dtype=options.dtype,
            attention=options.attention,
            load_in_4bit=options.load_in_4bit,
            merge=options.merge,
        )

    def read(self, path: Path | str, options: OpeningOptions) -> ImitationPolicy:
        """See :func:`grape.policies.openvla_oft.loading.read_oft_policy`."""
        from grape.policies.openvla_oft.loading import read_oft_policy

        return read_oft_policy(path, _choices(path, options))

    def info(self, path: Path | str, options: OpeningOptions = AS_STATED) -> CheckpointInfo:
        """Facts from the configuration."""
        from grape.policies.openvla_oft.conventions import choose_conventions, override_conventions
        from grape.policies.openvla_oft.loading import read_oft_config

        config, conventions = read_oft_config(path)
        if options.preset or conventions is not None:
            conventions = override_conventions(choose_conventions(options.preset, conventions), options.convention)
        center_crop = None if conventions is None else conventions.center_crop
        return CheckpointInfo(tuple(sorted(config.norm_stats)), center_crop)

    def cautions(self, path: Path | str, options: OpeningOptions) -> tuple[str, ...]:
        """What a preset says otherwise than the checkpoint, and that its crop is left out."""
        from grape.policies.openvla_oft.conventions import PRESETS
        from grape.policies.openvla_oft.loading import read_oft_config

        sentences = []
        if options.preset and read_checkpoint_kind(path).name == "openvla":
            sentences.append(
                "Nothing in the checkpoint says that it is OpenVLA-OFT's: it is run as one because of --preset."
            )
        preset = PRESETS.get(options.preset)
        stated = read_oft_config(path)[1] if options.preset else None
        if preset is not None and stated not in (None, preset):
            sentences.append(f"The checkpoint states other conventions than --preset {options.preset}, which is used.")
        if not options.crop_by_preset and options.center_crop is None and preset is not None and preset.center_crop:
            sentences.append(f"An evaluation with {options.preset} crops images; --center-crop yes does it here, too.")
        return tuple(sentences)

    def create(self, facts: NewPolicy) -> ImitationPolicy:
        """The nano policy that decides in chunks, see :func:`grape.policies.openvla_oft.nano.create_nano_oft`."""
        from grape.policies.openvla_oft.conventions import Layout, override_conventions
        from grape.policies.openvla_oft.nano import NANO_CONVENTIONS, create_nano_oft

        return create_nano_oft(
            seed=facts.seed,
            norm_stats=facts.norm_stats,
            gripper=facts.gripper,
            layout=Layout(
                chunk=facts.chunk,
                action_dim=facts.action_dim,
                cameras=facts.cameras,
                proprio_dim=facts.proprio_dim,
                placeholders="per-action",
            ),
            instructions=facts.instructions,
            conventions=override_conventions(NANO_CONVENTIONS, facts.convention),
        )

    def export_merged(self, path: Path | str, options: OpeningOptions, shard_bytes: int) -> PolicyExport:
        """See :func:`grape.policies.openvla_oft.exporting.export_merged`."""
        from grape.policies.openvla_oft.exporting import export_merged

        return export_merged(path, _choices(path, options), shard_bytes)

    def export_adapter(self, path: Path | str, base_name: str = "") -> PolicyExport:
        """See :func:`grape.policies.openvla_oft.exporting.export_adapter`."""
        from grape.policies.openvla_oft.exporting import export_adapter

        return export_adapter(path, base_name)


def _choices(path: Path | str, options: OpeningOptions) -> Any:
    from grape.policies.openvla_oft.loading import OFTChoices

    crop = options.center_crop
    if crop is None and not options.crop_by_preset and (options.preset or not read_checkpoint_kind(path).stated):
        crop = False
    return OFTChoices(
        options.preset,
        options.convention,
        chunk=options.chunk,
        cameras=options.cameras,
        unnorm_key=options.unnorm_key or None,
        center_crop=crop,
        proprio_dim=options.proprio_dim,
    )


def _refuse_chunks(options: OpeningOptions, *further: str) -> None:
    """Refuse options that plain OpenVLA has no use for; they would be passed over in silence."""
    given = ["further cameras (--wrist)"] if (options.cameras or 1) > 1 and "cameras" not in further else []
    names = (*further, "chunk", "convention")
    given += [flag_of(name) for name in names if getattr(options, name) not in ((), None, "")]
    if given:
        raise SettingsError(
            "The policy is taken for plain OpenVLA, which reads one image and gives one action: "
            f"{', '.join(given)} cannot be used.",
            "If it is a checkpoint of OpenVLA-OFT, say how it is run: --preset openvla-oft, simplevla-rl or rlinf.",
        )


def _compare_proprio(path: Path | str, options: OpeningOptions) -> None:
    from grape.policies.openvla import read_policy_config

    if options.proprio_dim is None:
        return
    needed = read_policy_config(path).proprio_dim
    if options.proprio_dim != needed:
        raise CompatibilityError(
            f"The policy reads {needed or 'no'} numbers of the robot's state, {options.proprio_dim or 'none'} are "
            "given.",
            "Give them with --proprio, as the suite records them."
            if needed
            else "Leave --proprio out; if it is a checkpoint of OpenVLA-OFT, say how it is run: --preset.",
        )
