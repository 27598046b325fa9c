"""The policy that supervised fine-tuning begins with: a new one, or a checkpoint fitted to the demonstrations.

Fitting changes no weight. It settles which normalization statistics are in use, what the gripper's numbers mean, and
whether images will be cropped in the middle after a training with random crops; all of it stands in the configuration
that the result is saved with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grape.core.errors import CompatibilityError, DataError, SettingsError
from grape.core.events import Reporter
from grape.core.trajectories import EpisodeMeta
from grape.policies.base import ImitationPolicy, PolicySpec, TrainablePolicy
from grape.policies.registry import get_policy_type, read_checkpoint_info, read_policy
from grape.policies.statistics import compute_norm_stats
from grape.policies.types import DataFacts, NewPolicy, OpeningOptions
from grape.store import Decisions, EpisodeSource
from grape.store.demonstrations import data_name
from grape.store.rlds.demonstrations import RldsDemonstrations
from grape.store.rlds.statistics import dataset_statistics
from grape.training.data_checks import check_proprio_widths
from grape.training.lora import open_for_training
from grape.training.settings import SftSettings

if TYPE_CHECKING:
    from grape.training.dataset import StepDataset

__all__ = [
    "PolicyInputs",
    "check_inputs",
    "check_norm_key",
    "fit_policy",
    "new_policy",
    "norm_name",
    "open_start",
    "preview_policy",
    "read_start",
]

_MAIN_CAMERA = ("agentview",)


def new_policy(settings: SftSettings, stores: Sequence[EpisodeSource], steps: "StepDataset") -> ImitationPolicy:
    """A policy with random weights that fits the demonstrations."""
    proprio_dim = 0 if steps.proprio_NP is None else steps.proprio_NP.shape[1]
    return _create(settings, stores, _statistics(stores, steps), sorted(set(steps.instructions)), proprio_dim)


def preview_policy(
    settings: SftSettings, stores: Sequence[EpisodeSource], metas: Sequence[Sequence[EpisodeMeta]]
) -> ImitationPolicy:
    """A new policy as :func:`new_policy` will make it, but with the statistics of one episode.

    Raises:
        SettingsError: A convention is unknown.
    """
    episode = stores[0].decisions(metas[0][0].episode_id)
    proprio = episode.proprio if settings.proprio else None
    statistics = compute_norm_stats(episode.labels, _action_names(stores[0], episode.labels.shape[1]), proprio=proprio)
    instructions = sorted({meta.instruction for some in metas for meta in some})
    return _create(settings, stores, statistics, instructions, 0 if proprio is None else proprio.shape[1])


def _create(
    settings: SftSettings,
    stores: Sequence[EpisodeSource],
    statistics: Mapping[str, Any],
    instructions: Sequence[str],
    proprio_dim: int,
) -> ImitationPolicy:
    """A policy with random weights: the nano policy, or OpenVLA-OFT's kind of it for chunks or several cameras.

    Args:
        settings: What the verb was told.
        stores: Demonstrations.
        statistics: Normalization statistics of them.
        instructions: Instructions of them.
        proprio_dim: Numbers of the robot's state that it reads; 0 for none.
    """
    name, cameras = _data_name(settings, stores), settings.camera_names or _MAIN_CAMERA
    chunks = settings.chunk > 1 or len(cameras) > 1
    policy = get_policy_type("openvla-oft" if chunks else "openvla").create(
        NewPolicy(
            seed=settings.seed,
            norm_stats={name: statistics},
            gripper=settings.gripper or _gripper(stores),
            instructions=tuple(instructions),
            action_dim=len(statistics["action"]["mean"]),
            chunk=max(1, settings.chunk),
            cameras=cameras,
            proprio_dim=proprio_dim,
            convention=settings.convention,
        )
    )
    return policy.fitted(DataFacts(name, center_crop=settings.augment == "openvla"))


def _opening_options(settings: SftSettings, stores: Sequence[EpisodeSource]) -> OpeningOptions:
    """How the checkpoint to continue is opened; :func:`fit_policy` comes next."""
    key = settings.unnorm_key
    if not key and settings.policy is not None:
        held, name = read_checkpoint_info(settings.policy).norm_keys, _data_name(settings, stores)
        key = name if name in held else next(iter(held), "")
    return OpeningOptions(
        unnorm_key=key,
        preset="" if settings.preset in (None, "nano") else settings.preset,
        convention=settings.convention,
        chunk=settings.chunk or None,
        cameras=len(settings.camera_names) or None,
    )


def read_start(settings: SftSettings, stores: Sequence[EpisodeSource]) -> ImitationPolicy | None:
    """The checkpoint to continue without its weights; None for a new policy, and where its type cannot be read so.

    Raises:
        SettingsError: There is no such policy, or it cannot learn from demonstrations.
    """
    if settings.policy is None:
        return None
    policy = read_policy(settings.policy, _opening_options(settings, stores))
    return None if policy is None else _imitating(policy, settings)


def open_start(settings: SftSettings, stores: Sequence[EpisodeSource], device: str) -> ImitationPolicy | None:
    """The checkpoint to continue, with its weights; None for a new policy. Errors as :func:`read_start`."""
    if settings.policy is None:
        return None
    options = _opening_options(settings, stores)
    return _imitating(open_for_training(settings.policy, settings, options, device), settings)


def _imitating(policy: TrainablePolicy, settings: SftSettings) -> ImitationPolicy:
    if not isinstance(policy, ImitationPolicy):
        raise SettingsError(
            f"{settings.policy} is of a type that does not learn from demonstrations.",
            "Its package must derive it from grape.policies.base.ImitationPolicy.",
        )
    policy.check_imitation()
    return policy


def fit_policy(
    policy: ImitationPolicy,
    spec: PolicySpec,
    settings: SftSettings,
    stores: Sequence[EpisodeSource],
    steps: "StepDataset",
    reporter: Reporter,
) -> ImitationPolicy:
    """The checkpoint with the statistics, gripper and crop that the demonstrations and settings ask for.

    Statistics that the checkpoint holds under the data's name are kept: its weights know them. Under a new name the
    demonstrations' own are added and put to use. None is ever replaced.

    Args:
        policy: The checkpoint.
        spec: Its contract.
        settings: What the verb was told.
        stores: Demonstrations.
        steps: What was read of them.
        reporter: Says which statistics are in use.

    Raises:
        CompatibilityError: The statistics in use belong to another convention of the gripper, or are of another
            dimension than the policy's actions or robot state.
    """
    name = norm_name(settings, stores, spec)
    statistics = None
    if settings.policy is None or name not in read_checkpoint_info(settings.policy).norm_keys:
        statistics = _statistics(stores, steps)
    fitted = policy.fitted(DataFacts(name, statistics, _gripper(stores), settings.augment == "openvla"))
    if statistics is None:
        reporter.info(f"Actions are normalized by the checkpoint's statistics {name!r}.")
    else:
        reporter.info(f"Actions are normalized by the demonstrations' own statistics, kept as {name!r}.")
    return fitted


def norm_name(settings: SftSettings, stores: Sequence[EpisodeSource], spec: PolicySpec | None) -> str:
    """Name of the statistics that actions are normalized by; ``spec`` is the contract of the checkpoint as opened."""
    return spec.unnorm_key if settings.unnorm_key and spec is not None else _data_name(settings, stores)


def _data_name(settings: SftSettings, stores: Sequence[EpisodeSource]) -> str:
    """Under which name the demonstrations' statistics stand: their suite's, or that of the data set.

    Raises:
        SettingsError: The stores are of several suites or data sets, and no name was given.
    """
    names = sorted({data_name(store) for store in stores})
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


@dataclass(frozen=True)
class PolicyInputs:
    """What a policy learns from.

    Attributes:
        chunk: Actions a decision.
        cameras: Names of the cameras it reads, main camera first.
        proprio: Whether it reads the robot's state.
    """

    chunk: int
    cameras: tuple[str, ...]
    proprio: bool


def check_inputs(settings: SftSettings, stores: Sequence[EpisodeSource], spec: PolicySpec | None) -> PolicyInputs:
    """What the policy learns from; data that lacks it is refused before anything is written.

    The first episode of each store speaks for the others here; all are compared when they are read.

    Args:
        settings: What the verb was told.
        stores: Demonstrations.
        spec: Contract of the checkpoint to continue; None for a new policy.

    Raises:
        SettingsError: Cameras are named that are not the checkpoint's, or ``--proprio`` is given for a checkpoint that
            reads no robot state.
        CompatibilityError: Stores are of several suites, whose states mean different things, or of another dimension
            than the checkpoint reads; or they lack a camera.
        DataError: Actions are of another dimension than the checkpoint's, an episode has no robot state, or two have
            states of different dimensions.
    """
    names = settings.camera_names
    if spec is not None and names not in ((), spec.cameras):
        raise SettingsError(
            f"--cameras {settings.cameras}: {settings.policy} reads {', '.join(spec.cameras)}.",
            "Leave --cameras out: a checkpoint goes on as it was made.",
        )
    cameras = spec.cameras if spec is not None else names or _MAIN_CAMERA
    firsts = [(store, store.decisions(meta.episode_id)) for store in stores for meta in store.metas()[:1]]
    for store, first in firsts:
        _check_cameras(cameras, first.camera_shapes, store)
        dim = first.labels.shape[1]
        if spec is not None and dim != spec.action_dim:
            raise DataError(
                f"The demonstrations' actions have {dim} dimensions, the policy decides {spec.action_dim}.",
                "Use demonstrations of the same robot.",
            )
    if spec is not None and settings.proprio and not spec.proprio_dim:
        raise SettingsError(
            f"--proprio is for new policies: {settings.policy} reads no robot state.",
            "Leave --proprio out, or leave --policy out to train a nano policy from nothing.",
        )
    needed = 0 if spec is None else spec.proprio_dim
    if settings.proprio or needed:
        _check_proprio(settings, firsts, needed)
    chunk = max(1, settings.chunk) if spec is None else spec.chunk
    return PolicyInputs(chunk, cameras, bool(settings.proprio or needed))


def _check_cameras(cameras: Sequence[str], held: Mapping[str, Any], store: EpisodeSource) -> None:
    if cameras[0] in held:
        raise CompatibilityError(
            f"The policy's first camera is {cameras[0]!r}, which is a further camera in {store.path}.",
            "Name the main camera first, e.g. --cameras agentview,wrist.",
        )
    if missing := [name for name in cameras[1:] if name not in held]:
        raise CompatibilityError(
            f"The policy reads images of {', '.join(cameras)}; {store.path} has none of {', '.join(missing)}, but of "
            f"{', '.join(['the main camera', *held])}.",
            "Collect demonstrations with a suite that has these cameras, or train a policy on the main camera alone.",
        )


def _check_proprio(settings: SftSettings, firsts: Sequence[tuple[EpisodeSource, Decisions]], needed: int) -> None:
    suites = sorted({store.suite for store, _ in firsts})
    if len(suites) > 1:
        raise CompatibilityError(
            f"The demonstrations come from several suites ({', '.join(suites)}), whose robot states mean different "
            "things.",
            "Train a policy that reads the robot's state on one suite.",
        )
    widths = {f"{store.metas()[0].episode_id} of {store.path}": first.proprio.shape[1] for store, first in firsts}
    if not widths:
        return  # stores without episodes are refused next
    check_proprio_widths(widths)
    width = next(iter(widths.values()))
    if needed and width != needed:
        raise CompatibilityError(
            f"{settings.policy} reads {needed} numbers of the robot's state, the demonstrations have {width}.",
            "Use demonstrations of the same robot.",
        )


def _action_names(store: EpisodeSource, dim: int) -> tuple[str, ...]:
    """Name of each dimension of an action; the last one is the gripper where the store does not say."""
    space: Any = store.contract.get("action_space") or {}
    return tuple(space.get("names") or (*(f"action_{i}" for i in range(dim - 1)), "gripper"))


def _statistics(stores: Sequence[EpisodeSource], steps: "StepDataset") -> dict[str, Any]:
    foreign = [store for store in stores if isinstance(store, RldsDemonstrations)]
    if len(foreign) == len(stores):  # as the published loader has them: over all splits, in float32
        return dataset_statistics([(store.dataset, store.rule) for store in foreign])
    names = _action_names(stores[0], steps.labels_TD.shape[1])
    proprio = None if steps.proprio_NP is None else steps.proprio_NP[:]
    return compute_norm_stats(steps.labels_TD[:], names, len(steps.spans), proprio)


def _gripper(stores: Sequence[EpisodeSource]) -> str:
    space: Any = stores[0].contract.get("action_space") or {}
    return str(space.get("gripper", ""))
