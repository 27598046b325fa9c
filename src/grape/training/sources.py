"""What ``grape train`` learns from: pairs or single episodes, of the policy in training and of earlier ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from grape.core.errors import CompatibilityError, DataError, NoPairsError
from grape.core.events import SILENT, Reporter
from grape.core.files import file_hash
from grape.core.preferences import Score
from grape.core.repositories import local_folder
from grape.core.runs import load_summary
from grape.core.tasks import same_instruction
from grape.core.trajectories import EpisodeMeta
from grape.policies.base import PolicySpec, TrainablePolicy
from grape.preferences import read_pairs, read_scores, recorded_stores
from grape.preferences.pairing import states_of
from grape.preferences.records import PAIRS_FILE, SCORES_FILE
from grape.preferences.score import warn_of_old_scores
from grape.store import EpisodeStore, open_stores
from grape.training.data_checks import check_decisions, check_preprocessing
from grape.training.dataset import StepDataset, load_steps
from grape.training.items import Sample
from grape.training.settings import TrainSettings
from grape.training.unpaired import Reward, WeightedEpisode, weigh_episodes

__all__ = ["TrainingData", "read_data"]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Samples, and the episodes that they speak of.

    Ids are unique within a store only. So an episode's name is its id where it lies in the first store, and the number
    of its store and its id otherwise.

    Attributes:
        samples: Pairs, or weighted episodes, of all folders, which call episodes by their names.
        stores: Every episode store once, that of the policy in training first.
        episodes: Store and id of each episode that is needed, by name, in the order of the stores and ids.
        replayed: Names of those that an earlier policy collected.
        inputs: Hashes of what was read, for the run's identity.
    """

    samples: tuple[Sample, ...]
    stores: tuple[EpisodeStore, ...]
    episodes: Mapping[str, tuple[int, str]]
    replayed: frozenset[str]
    inputs: Mapping[str, str | list[str]]

    def metas(self) -> list[EpisodeMeta]:
        """Facts of the episodes, in their order."""
        return [self.stores[number].meta(episode_id) for number, episode_id in self.episodes.values()]

    def load(
        self, reporter: Reporter, image_bytes: float, spec: PolicySpec | None = None, *, scattered: bool = False
    ) -> StepDataset:
        """The decisions as a policy of a contract reads them, ``spans`` by the episodes' names.

        Without a contract there are neither the robot's state nor further cameras. Arguments and errors as for
        :func:`grape.training.dataset.load_steps`.
        """
        ids: list[list[str]] = [[] for _ in self.stores]
        for number, episode_id in self.episodes.values():
            ids[number].append(episode_id)
        steps = load_steps(
            self.stores,
            ids,
            reporter,
            image_bytes,
            scattered=scattered,
            proprio=spec is not None and bool(spec.proprio_dim),
            cameras=() if spec is None else spec.cameras[1:],
            spec=spec,
        )
        return replace(steps, spans=dict(zip(self.episodes, steps.spans.values(), strict=True)))

    def own_spans(self, steps: StepDataset) -> list[tuple[int, int]]:
        """Rows of the steps that the policy in training collected itself, as ranges [start, stop)."""
        return [span for name, span in steps.spans.items() if name not in self.replayed]

    def check_policy(self, policy: TrainablePolicy) -> PolicySpec:
        """Compare how the episodes were decided and recorded with how the policy decides and would read them.

        Args:
            policy: The policy to train; it need not have its weights.

        Returns:
            Its contract.

        Raises:
            CompatibilityError: They do not fit, see :func:`grape.training.data_checks.check_decisions` and
                :func:`grape.training.data_checks.check_preprocessing`; or the policy has no log-probabilities.
        """
        spec = policy.spec
        if not spec.support:
            raise CompatibilityError(
                "The policy to train has no action tokens, so nothing says how likely an action is to it.",
                "Preferences need a policy with log-probabilities, for example OpenVLA-OFT's with action tokens.",
            )
        check_decisions(self.stores, spec)
        for number, store in enumerate(self.stores):
            metas = [store.meta(episode_id) for owner, episode_id in self.episodes.values() if owner == number]
            check_preprocessing(spec.preprocessing_hash, policy.prompt, metas, store.path)
        return spec

    def check_references(self, settings: TrainSettings, spec: PolicySpec) -> None:
        """Compare who collected the episodes with the policy of that contract, which is to train on them.

        Raises:
            CompatibilityError: Another policy recorded an episode that is not replayed, so that the recorded
                log-probabilities, which are to be the reference's, are not this policy's.
        """
        if settings.method == "filtered-bc" or settings.reference == "recomputed":
            return
        for name, meta in zip(self.episodes, self.metas(), strict=True):
            if name not in self.replayed and meta.policy_hash != spec.policy_hash:
                raise CompatibilityError(
                    f"Episode {meta.episode_id} was recorded by another policy ({meta.policy_hash[:12]}) than "
                    f"{settings.policy} ({spec.policy_hash[:12]}), so its log-probabilities are not the "
                    "reference's.",
                    "Give the policy that collected the episodes and the --dtype of that collection, --reference "
                    "recomputed to train another one on them, or their folder as --replay beside one of this policy's.",
                )


@dataclass(frozen=True, eq=False)
class _Folder:
    """A folder of pairs or scores, and its episode store with the store's number."""

    path: Path
    number: int
    store: EpisodeStore

    def name(self, episode_id: str) -> str:
        return f"{self.number}/{episode_id}" if self.number else episode_id

    def place(self, name: str) -> tuple[int, str]:
        return self.number, name.removeprefix(f"{self.number}/") if self.number else name


def read_data(settings: TrainSettings, reporter: Reporter = SILENT) -> TrainingData:
    """Read the folders that a run names, and what their stores say of the episodes; warn of scores of release 0.1.

    Raises:
        DataError: A folder, its store or an episode is missing or damaged, there are no pairs, a pair joins two
            instructions, or nothing is left that the method can use.
        CompatibilityError: Decisions of different episodes are of different kinds.
        NoPairsError: The scores show no difference that an unpaired method could learn from.
    """
    verb, file = ("score", SCORES_FILE) if settings.unpaired else ("pair", PAIRS_FILE)
    numbers: dict[tuple[Path, ...], int] = {}
    folders = []
    for path in map(local_folder, settings.data):
        places_of_stores = recorded_stores(path, verb)
        number = numbers.setdefault(places_of_stores, len(numbers))
        folders.append(_Folder(path, number, open_stores(places_of_stores)))
        if settings.unpaired:
            warn_of_old_scores(path, load_summary(path, verb), reporter)
    check_decisions(folder.store for folder in folders)
    samples = _weighted(settings, folders) if settings.unpaired else _pairs(settings, folders)
    places: dict[str, tuple[int, str]] = {}
    own: set[str] = set()
    for folder, part in zip(folders, samples, strict=True):
        names = {name for sample in part for name in _names(settings.method, sample)}
        places |= {name: folder.place(name) for name in names}
        own |= names if folder is folders[0] else set()
    hashes = [file_hash(folder.path / file) for folder in folders]
    return TrainingData(
        samples=tuple(sample for part in samples for sample in part),
        stores=tuple({folder.number: folder.store for folder in folders}.values()),
        episodes=dict(sorted(places.items(), key=lambda item: item[1])),
        replayed=frozenset(places) - own,
        inputs={f"{verb}s": hashes[0]} | ({"replay": hashes[1:]} if settings.replay else {}),
    )


def _names(method: str, sample: Sample) -> tuple[str, ...]:
    """Episodes of a sample that a method needs."""
    if isinstance(sample, WeightedEpisode):
        return (sample.episode,)
    return (sample.chosen,) if method == "filtered-bc" else (sample.chosen, sample.rejected)


def _pairs(settings: TrainSettings, folders: Sequence[_Folder]) -> list[list[Sample]]:
    """Pairs of each folder that a method can use; for filtered BC those whose chosen side it may imitate."""
    samples: list[list[Sample]] = []
    for folder in folders:
        pairs = read_pairs(folder.path)
        if not pairs:
            raise DataError(
                f"{folder.path} holds no pairs.",
                "Collect more samples from each initial state, or lower the margin of 'grape pair'.",
            )
        for pair in pairs:
            chosen, rejected = folder.store.meta(pair.chosen), folder.store.meta(pair.rejected)
            if not same_instruction(chosen.instruction, rejected.instruction):
                raise DataError(
                    f"Pair {pair.pair_id} compares episodes of two instructions: {chosen.instruction!r} and "
                    f"{rejected.instruction!r}.",
                    "Make the pairs again with 'grape pair', which joins equal instructions only.",
                )
        if settings.method == "filtered-bc" and settings.imitate == "successes":
            pairs = tuple(pair for pair in pairs if folder.store.meta(pair.chosen).success)
        samples.append(
            [replace(pair, chosen=folder.name(pair.chosen), rejected=folder.name(pair.rejected)) for pair in pairs]
        )
    if not any(samples):
        raise DataError(
            "No chosen trajectory is known to have succeeded, so there is nothing to imitate.",
            "Use --method tpo, which also learns from the better of two failures, or --imitate chosen.",
        )
    return samples


def _weighted(settings: TrainSettings, folders: Sequence[_Folder]) -> list[list[Sample]]:
    """Episodes of each folder that take part, with their weights.

    Desirable and undesirable episodes of KTO are balanced over all folders. Advantages are scaled folder by folder, the
    root of each one's mean square being 1: every ``grape score`` may have calibrated R_GCPG in units of its own, and
    one number for all would make the folder of the largest units the loudest.
    """
    states: list[list[list[Score]]] = []
    for folder in folders:
        scores = read_scores(folder.path)
        instructions = {name: folder.store.meta(name).instruction for name in scores}
        members = states_of(scores.values(), instructions).values()
        states.append(
            [[replace(score, episode_id=folder.name(score.episode_id)) for score in state] for state in members]
        )
    reward: Reward = "success" if settings.method == "kto" else "gcpg"
    if settings.reward != "auto":
        reward = settings.reward
    samples: list[list[Sample]] = [[] for _ in folders]
    if settings.method == "kto":
        owners: dict[str, int] = {}
        for number, part in enumerate(states):
            owners = {score.episode_id: number for state in part for score in state} | owners
        everything = [state for part in states for state in part]
        for episode in weigh_episodes("kto", everything, reward, settings.desirable_weight):
            samples[owners[episode.episode]].append(episode)
    else:
        samples = [[*weigh_episodes("rloo", part, reward)] for part in states]
    if not samples[0]:  # what is replayed alone would say nothing of the policy in training
        own = states[0] if any(samples) else [state for part in states for state in part]
        raise _nothing_to_learn(settings.method, reward, own)
    return samples


def _nothing_to_learn(method: str, reward: Reward, states: Sequence[Sequence[Score]]) -> NoPairsError:
    """Error that says what the outcomes were and what to try."""
    outcomes = [score.success for state in states for score in state]
    numbers = (outcomes.count(True), outcomes.count(False), outcomes.count(None))
    shown = ", ".join(
        f"{count} {word}" for count, word in zip(numbers, ("succeeded", "failed", "unknown"), strict=True)
    )
    if method == "kto" and reward == "success":
        lack = "either all or none are desirable"
    else:
        lack = "no initial state has two episodes of different reward"
    hint = "Collect more --samples of each initial state, at a higher --temperature or from tasks of middling success."
    return NoPairsError(
        f"Of {len(outcomes)} episodes of {len(states)} initial states ({shown}) {lack}.",
        hint
        if reward == "gcpg"
        else f"Use --reward gcpg, by which equal outcomes differ. Or: {hint[0].lower()}{hint[1:]}",
    )
