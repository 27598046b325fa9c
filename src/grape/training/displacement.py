"""The alarm for likelihood displacement: chosen trajectories become less likely while margins grow.

A preference loss sees only the difference of the two sides, so it is content to lower both. Long trajectories do so in
a few updates, through the rejected side's tail: images that no success has (for language models see arXiv 2402.13228).
"""

from collections.abc import Mapping, Sequence
from itertools import islice

__all__ = ["displacement_alarm"]

HIGH_MARGIN = 5.0
"""Margins above it saturate the sigmoid loss: it pulls at less than 1 % of its strength."""
LOST = 0.1
"""Nats a token that chosen sides may lose on average: each token about 10 % less likely than under the reference.

With defaults the demo ends an iteration 0.03 to 0.07 below the reference; on the way it may pass 0.1 for some updates.
"""
UPDATES = 5
"""Over how many of the last updates the loss of likelihood is averaged: each update sees other pairs."""
FAR = 0.5
"""Nats a token beyond any clipping range in use: with ``rloo`` a loss so large in one update is told at once."""


def displacement_alarm(
    rows: Sequence[Mapping[str, float]],
    method: str = "tpo",
    *,
    chosen_floor: float = 0.0,
    length_normalised: bool = False,
) -> str:
    """What to say about the rows of metrics of a run so far; empty where all is well.

    Args:
        rows: Metrics by update, as in ``metrics.jsonl``; those that lack what a rule needs are passed over (an update
            of single episodes need not hold a desirable one).
        method: Method of the run: it decides on the rule and the advice.
        chosen_floor: As the run has it, 0 or more; above 0 the advice leaves it out.
        length_normalised: Whether the run has it; then the advice leaves it out.

    Returns:
        One sentence with what was seen up to which update and one with what to do, if chosen sides fall below the
        reference while the margin exceeds 5, or if they fell by more than 0.1 nats a token over the last five
        updates while margins were positive. Margins of ``rloo`` are nats a token, which neither saturate its loss nor
        come near 5, and it has nothing to hold the chosen side: a mean loss of 0.1 over five updates is told whatever
        the margin, one of 0.5 at once.
    """
    grouped = method == "rloo"
    needed = {"displacement"} if grouped else {"displacement", "rewards/margins"}
    latest = list(islice((row for row in reversed(rows) if needed <= row.keys()), UPDATES))
    if not latest:
        return ""
    lost = latest[0]["displacement"]
    margin = latest[0].get("rewards/margins", 0.0)
    if not (lost < -FAR if grouped else margin > HIGH_MARGIN and lost < 0):
        lost = sum(row["displacement"] for row in latest) / len(latest)
        margin = sum(row.get("rewards/margins", 0.0) for row in latest) / len(latest)
        if len(latest) < UPDATES or lost >= -LOST or not (grouped or margin > 0):
            return ""
    seen = (
        "though their advantages are positive."
        if grouped
        else (f"while the margin grew to {margin:.1f}, so training lowers both sides.")
    )
    return (
        f"Update {latest[0]['update']:.0f}: chosen trajectories have become {-lost:.3f} nats a token less likely than "
        f"under the reference {seen} {_advice(method, chosen_floor > 0, length_normalised)}"
    )


def _advice(method: str, chosen_floor: bool, length_normalised: bool) -> str:
    """What to change, without what the run has already."""
    if method == "rloo":
        return "Lower --lr, or use --reward success."
    normalized = "" if length_normalised else ", use --length-normalised"
    if method == "kto":
        return f"Give a higher --anchor{normalized}, or lower --lr."
    floor = "" if chosen_floor else " or a --chosen-floor"
    return f"Give a higher --anchor{floor}{normalized}, or cut the pairs (grape pair --cut)."
