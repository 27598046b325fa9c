"""What a rater has done, and whether couples that came again were decided alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grape.judges.votes import Vote, load_votes

__all__ = ["RaterSummary", "summaries_of_raters", "summary_of"]


@dataclass(frozen=True)
class RaterSummary:
    """The votes of one rater in numbers.

    Attributes:
        votes: Votes that stand, skipped couples included.
        couples: Different couples that were decided.
        skipped: Votes that skip a couple.
        marked: Votes that mark where an episode went wrong.
        left: Votes for the episode on the left.
        right: Votes for the other.
        repeated: Couples that were decided twice.
        alike: Of these, those that were decided alike.
    """

    votes: int
    couples: int
    skipped: int
    marked: int
    left: int
    right: int
    repeated: int
    alike: int


def summary_of(votes: Sequence[Vote]) -> RaterSummary:
    """Count a rater's votes that stand.

    Args:
        votes: In the order in which they were cast.
    """
    decisions: dict[tuple[str, ...], list[str]] = {}
    for vote in votes:
        if vote.choice != "skip":
            # Both bad is a tie: neither is the better one.
            better = {"a": vote.a, "b": vote.b}.get(vote.choice, "")
            decisions.setdefault(tuple(sorted((vote.a, vote.b))), []).append(better)
    twice = [choices for choices in decisions.values() if len(choices) > 1]
    return RaterSummary(
        votes=len(votes),
        couples=len(decisions),
        skipped=sum(vote.choice == "skip" for vote in votes),
        marked=sum(bool(vote.marks) for vote in votes),
        left=sum(vote.choice == "a" for vote in votes),
        right=sum(vote.choice == "b" for vote in votes),
        repeated=len(twice),
        alike=sum(len(set(choices)) == 1 for choices in twice),
    )


def summaries_of_raters(folder: Path, checksums: Mapping[str, str]) -> dict[str, RaterSummary]:
    """Count every rater's votes on episodes as they are now.

    Args:
        folder: Folder of the raters' files.
        checksums: Of the episodes as they are now.

    Raises:
        DataError: There are no votes, or they are damaged.
    """
    return {
        rater: summary_of(
            [
                vote
                for vote in votes
                if vote.checksums.keys() == {vote.a, vote.b}
                and all(checksums.get(name) == mark for name, mark in vote.checksums.items())
            ]
        )
        for rater, votes in load_votes(folder, lambda message: None).items()
    }
