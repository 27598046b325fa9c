"""Whether recorded episodes can be learned from together, and by the policy to train."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grape.core.chunks import PLAIN
from grape.core.errors import CompatibilityError, DataError
from grape.core.trajectories import EpisodeMeta
from grape.store import EpisodeSource

if TYPE_CHECKING:
    from grape.policies.base import PolicySpec

__all__ = ["check_decisions", "check_preprocessing", "check_proprio_widths", "other_decisions"]


def check_decisions(stores: Iterable[EpisodeSource], spec: "PolicySpec | None" = None) -> None:
    """Refuse sampled episodes whose decisions are not all of one kind, or not of the kind of the policy to train.

    Log-probabilities of chunks of another length, over another support or at another temperature are of other events:
    none of them can be the reference of the others.

    Args:
        stores: Where the episodes are.
        spec: Contract of the policy to train; None compares the stores with each other alone.

    Raises:
        CompatibilityError: Chunk length, support or temperature differ, or the episodes have no tokens.
        DataError: What a store says of its decisions is no mapping.
    """
    expected: tuple[str, tuple[object, ...]] | None = None
    if spec is not None:
        expected = "The policy to train", (spec.chunk, spec.support, spec.logp_temperature)
    for store in stores:
        chunks = store.contract.get("chunks")
        if chunks is not None and not isinstance(chunks, Mapping):
            raise DataError(f"{store.path}: 'chunks' of the contract is {chunks!r:.60}.", "Collect it again.")
        names = ("length", "support", "temperature")
        facts: tuple[object, ...] = PLAIN if chunks is None else tuple(chunks.get(name) for name in names)
        who = f"The policy of the episodes of {store.path}"
        if not facts[1]:
            raise CompatibilityError(
                f"{who} has no action tokens, so nothing says how likely its actions were.",
                "Use its episodes as demonstrations ('grape sft'), or collect with a policy that has tokens.",
            )
        if expected is None:
            expected = who, facts
        elif facts != expected[1]:
            raise other_decisions(who, facts, *expected)


def other_decisions(
    who: str, facts: tuple[object, ...], other: str, expected: tuple[object, ...]
) -> CompatibilityError:
    """Error that decisions are of two kinds.

    Args:
        who: Whose decisions the one kind are, as the beginning of a sentence.
        facts: Chunk length, support and temperature of the one kind.
        other: Whose the other kind are.
        expected: The facts of the other kind.
    """
    return CompatibilityError(
        f"{who} {_described(facts)}. {other} {_described(expected)}. Log-probabilities of the one are not comparable "
        "with the other's.",
        "Train the policy that collected these episodes, with the conventions of that collection, or collect again "
        "with this one. As demonstrations ('grape sft') both serve.",
    )


def _described(facts: tuple[object, ...]) -> str:
    length, support, temperature = facts
    sampled = f"log-probabilities over the {support} at temperature {temperature:g}" if support else "no tokens"
    return f"decides on {length} action{'s' * (length != 1)} at once, with {sampled}"


def check_proprio_widths(widths: Mapping[str, int]) -> None:
    """Refuse robot states that one policy cannot read.

    Args:
        widths: Numbers of the robot's state by episode.

    Raises:
        DataError: An episode has none, or two have different ones.
    """
    first, width = next(iter(widths.items()))
    for name, other in widths.items():
        if not other:
            raise DataError(
                f"Episode {name} has no robot state, which the policy shall read.",
                "Use episodes that 'grape collect' recorded, or train a policy that reads images alone.",
            )
        if other != width:
            raise DataError(
                f"The robot's state has {width} numbers in episode {first}, {other} in episode {name}.",
                "Train on one kind of robot, or on images alone.",
            )


def check_preprocessing(expected: str, prompt: Callable[[str], str], metas: Sequence[EpisodeMeta], where: Path) -> None:
    """Compare how episodes were recorded with how the policy would read them.

    Args:
        expected: The policy's hash of preprocessing, from its contract.
        prompt: The text the policy reads for an instruction.
        metas: Facts of the episodes.
        where: Where they lie, for messages.

    Raises:
        CompatibilityError: Nothing was sampled in an episode, or tokenizer, prompt, image preprocessing or
            normalization differ: then the recorded tokens do not mean the same.
    """
    for meta in metas:
        if meta.actor != "policy":
            raise CompatibilityError(
                f"Episode {meta.episode_id} of {where} was played by an expert: it has no sampled tokens.",
                "Pairs for training come from 'grape collect --policy FOLDER'. Demonstrations are for 'grape sft'.",
            )
        if meta.preprocessing_hash != expected:
            raise CompatibilityError(
                f"Episode {meta.episode_id} of {where} was recorded with other preprocessing (prompt, images, "
                f"tokenizer, action bins or normalization): {meta.preprocessing_hash[:12]}, the policy's is "
                f"{expected[:12]}.",
                "Train the policy that collected these episodes, or collect again with this one. For imported pairs "
                "give the import's --norm-stats and --unnorm-key.",
            )
        if meta.prompt != prompt(meta.instruction):
            raise CompatibilityError(
                f"Episode {meta.episode_id} of {where} was recorded with the prompt {meta.prompt!r}, the policy reads "
                f"{prompt(meta.instruction)!r}.",
                "Collect again with this version.",
            )
