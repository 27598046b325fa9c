"""The policy that supervised fine-tuning begins with: a new one, or a checkpoint fitted to the demonstrations.

Fitting changes no weight. It settles which normalization statistics are in use, what the gripper's numbers mean, and
whether images will be cropped in the middle after a training with random crops; all of it stands in the configuration
that the result is saved with.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.events import Reporter
from grape.policies.openvla import OpenVLAPolicy, compute_norm_stats, create_nano, read_policy_config
from grape.policies.openvla.config import OpenVLAConfig
from grape.store import EpisodeSource
from grape.store.rlds.demonstrations import RldsDemonstrations
from grape.store.rlds.statistics import dataset_statistics
from grape.training.dataset import check_proprio_widths
from grape.training.settings import SftSettings

if TYPE_CHECKING:
    from grape.training.dataset import StepDataset

__all__ = ["check_norm_key", "check_proprio", "fit_policy", "key_to_open_with", "new_policy"]


def new_policy(settings: SftSettings, stores: Sequence[EpisodeSource], steps: "StepDataset") -> OpenVLAPolicy:
    """A policy with random weights that fits the demonstrations."""
    statistics = _statistics(stores, steps)
    policy = create_nano(
        seed=settings.seed,
        norm_stats={_data_name(settings, stores): statistics},
        gripper=settings.gripper or _gripper(stores),
        instructions=tuple(sorted(set(steps.instructions))),
        proprio_dim=0 if steps.proprio_NP is None else steps.proprio_NP.shape[1],
    )
    return _cropped(policy, settings)


def key_to_open_with(path: Path, settings: SftSettings, stores: Sequence[EpisodeSource]) -> str:
    """Statistics of the checkpoint to continue with which it can be opened; :func:`fit_policy` comes next."""
    if settings.unnorm_key:
        return settings.unnorm_key
    held = read_policy_config(path).norm_stats
    name = _data_name(settings, stores)
    return name if name in held else next(iter(held), "")


def fit_policy(
    policy: OpenVLAPolicy,
    settings: SftSettings,
    stores: Sequence[EpisodeSource],
    steps: "StepDataset",
    reporter: Reporter,
) -> OpenVLAPolicy:
    """The checkpoint with the statistics, gripper and crop that the demonstrations and settings ask for.

    Statistics that the checkpoint holds under the data's name are kept: its weights know them. Under a new name the
    demonstrations' own are added and put to use. None is ever replaced.

    Raises:
        DataError: The demonstrations' actions have another number of dimensions.
        CompatibilityError: The statistics in use belong to another convention of the gripper.
    """
    if policy.norm.dim != steps.labels_ND.shape[1]:
        raise DataError(
            f"The demonstrations' actions have {steps.labels_ND.shape[1]} dimensions, the policy decides "
            f"{policy.norm.dim}.",
            "Use demonstrations of the same robot.",
        )
    config, gripper = policy.config, _gripper(stores)
    name = settings.unnorm_key or _data_name(settings, stores)
    if name in config.norm_stats:
        if gripper and config.gripper and gripper != config.gripper:
            raise CompatibilityError(
                f"In the demonstrations the last action dimension means {gripper!r}, to the policy {config.gripper!r}.",
                "Give --norm-key a new name: then the policy takes the demonstrations' statistics and convention.",
            )
        if len(config.norm_stats) > 1 and config.unnorm_key != name:
            config = config.with_facts(unnorm_key=name)
        reporter.info(f"Actions are normalized by the checkpoint's statistics {name!r}.")
    else:
        config = config.with_norm_stats({**config.norm_stats, name: _statistics(stores, steps)})
        config = config.with_facts(unnorm_key=name, gripper=gripper or config.gripper)
        reporter.info(f"Actions are normalized by the demonstrations' own statistics, kept as {name!r}.")
    if config is not policy.config:
        policy = _with_config(policy, config, name)
    return _cropped(policy, settings)


def _data_name(settings: SftSettings, stores: Sequence[EpisodeSource]) -> str:
    """Under which name the demonstrations' statistics stand: their suite's, or that of the RLDS data set.

    Raises:
        SettingsError: The stores are of several suites or data sets, and no name was given.
    """
    names = sorted({store.name if isinstance(store, RldsDemonstrations) else store.suite for store in stores})
    if not settings.norm_key and len(names) > 1:
        raise SettingsError(
            f"The demonstrations come from several suites: {', '.join(names)}.",
            "Name their common statistics with --norm-key, or choose those of the checkpoint with --unnorm-key.",
        )
    return settings.norm_key or names[0]


def check_norm_key(settings: SftSettings, stores: Sequence[EpisodeSource]) -> None:
    """Refuse names of statistics that cannot be meant, and data that disagrees, before any policy is opened.

    Raises:
        SettingsError: Both kinds of names are given, or a name is needed and missing.
        CompatibilityError: The last action dimension means one thing here and another there.
    """
    grippers = {gripper for store in stores if (gripper := _gripper([store]))}
    if len(grippers) > 1:
        meanings = " and ".join(map(repr, sorted(grippers)))
        raise CompatibilityError(
            f"In the demonstrations the last action dimension means several things: {meanings}.",
            "Export the episode stores with 'grape export rlds' and train on RLDS data sets only: they agree.",
        )
    if settings.unnorm_key and settings.norm_key:
        raise SettingsError(
            "--unnorm-key chooses statistics that the checkpoint holds, --norm-key names the demonstrations' own.",
            "Give one of them.",
        )
    if settings.unnorm_key and settings.policy is None:
        raise SettingsError("--unnorm-key needs --policy: a new policy holds no statistics.", "Use --norm-key.")
    if not settings.unnorm_key:
        _data_name(settings, stores)


def check_proprio(settings: SftSettings, stores: Sequence[EpisodeSource]) -> bool:
    """Whether the policy reads the robot's state; data that has none is refused before any policy is opened.

    The first episode of each store speaks for the others here; all are compared when they are read.

    Raises:
        SettingsError: ``--proprio`` is given for a checkpoint that reads images alone.
        CompatibilityError: Stores are of several suites, whose states mean different things, or of another dimension
            than the checkpoint reads.
        DataError: An episode has no robot state, or two have states of different dimensions.
    """
    needed = 0
    if settings.policy is not None:
        needed = read_policy_config(settings.policy).proprio_dim
        if settings.proprio and not needed:
            raise SettingsError(
                f"--proprio is for new policies: {settings.policy} reads images alone.",
                "Leave --proprio out, or leave --policy out to train a nano policy from nothing.",
            )
    if not (settings.proprio or needed):
        return False
    suites = sorted({store.suite for store in stores})
    if len(suites) > 1:
        raise CompatibilityError(
            f"The demonstrations come from several suites ({', '.join(suites)}), whose robot states mean different "
            "things.",
            "Train a policy that reads the robot's state on one suite.",
        )
    widths = {
        f"{meta.episode_id} of {store.path}": store.decisions(meta.episode_id).proprio.shape[1]
        for store in stores
        for meta in store.metas()[:1]
    }
    if not widths:
        return True  # stores without episodes are refused next
    check_proprio_widths(widths)
    width = next(iter(widths.values()))
    if needed and width != needed:
        raise CompatibilityError(
            f"{settings.policy} reads {needed} numbers of the robot's state, the demonstrations have {width}.",
            "Use demonstrations of the same robot.",
        )
    return True


def _action_names(store: EpisodeSource, dim: int) -> tuple[str, ...]:
    """Name of each dimension of an action; the last one is the gripper where the store does not say."""
    space: Any = store.contract.get("action_space") or {}
    return tuple(space.get("names") or (*(f"action_{i}" for i in range(dim - 1)), "gripper"))


def _statistics(stores: Sequence[EpisodeSource], steps: "StepDataset") -> dict[str, Any]:
    foreign = [store for store in stores if isinstance(store, RldsDemonstrations)]
    if len(foreign) == len(stores):  # as the published loader has them: over all splits, in float32
        return dataset_statistics([(store.dataset, store.rule) for store in foreign])
    labels_ND = np.asarray(steps.labels_ND)
    names = _action_names(stores[0], labels_ND.shape[1])
    return compute_norm_stats(labels_ND, names, len(steps.spans), steps.proprio_NP)


def _gripper(stores: Sequence[EpisodeSource]) -> str:
    space: Any = stores[0].contract.get("action_space") or {}
    return str(space.get("gripper", ""))


def _cropped(policy: OpenVLAPolicy, settings: SftSettings) -> OpenVLAPolicy:
    config = policy.config.with_center_crop(policy.config.center_crop or settings.augment == "openvla")
    if config is policy.config:
        return policy
    return _with_config(policy, config, policy.unnorm_key)


def _with_config(policy: OpenVLAPolicy, config: OpenVLAConfig, unnorm_key: str) -> OpenVLAPolicy:
    """The same network, with an adapter beside it where it has one."""
    fitted = OpenVLAPolicy(policy.model, policy.files.with_config(config), unnorm_key)
    fitted.adapter = policy.adapter
    return fitted
