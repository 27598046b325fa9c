"""The alarm for likelihood displacement: chosen trajectories become less likely while margins grow.

A preference loss sees only the difference of the two sides, so it is content to lower both. Long trajectories do so in
a few updates, through the rejected side's tail: images that no success has (for language models see arXiv 2402.13228).
"""

from collections.abc import Mapping, Sequence

__all__ = ["displacement_alarm"]

HIGH_MARGIN = 5.0
"""Margins above it saturate the sigmoid loss: it pulls at less than 1 % of its strength."""
LOST = 0.05
"""Nats a token that chosen sides may lose on average: each token 5 % less likely than under the reference."""
UPDATES = 5
"""Over how many of the last updates the loss of likelihood is averaged: each update sees other pairs."""


_ADVICE = {
    "kto": "Give a higher --anchor, use --length-normalised, or lower --lr.",
    "rloo": "Lower --lr, or use --reward success.",
}
_ADVICE_FOR_PAIRS = (
    "Give a higher --anchor or a --chosen-floor, use --length-normalised, or cut the pairs (grape pair --cut)."
)


def displacement_alarm(rows: Sequence[Mapping[str, float]], method: str = "tpo") -> str:
    """What to say about the rows of metrics of a run so far; empty where all is well.

    Args:
        rows: Metrics by update, as in ``metrics.jsonl``; those without ``displacement`` or a margin say nothing.
        method: Method of the run, for the advice.

    Returns:
        One sentence with what was seen at which update and one with what to do, if chosen sides fall below the
        reference while the margin exceeds 5, or if they fell by more than 0.05 nats a token over the last five
        updates while margins were positive.
    """
    last = [row for row in rows[-UPDATES:] if {"displacement", "rewards/margins"} <= row.keys()]
    if not last:
        return ""
    lost, margin = last[-1]["displacement"], last[-1]["rewards/margins"]
    if not (margin > HIGH_MARGIN and lost < 0):
        lost = sum(row["displacement"] for row in last) / len(last)
        margin = sum(row["rewards/margins"] for row in last) / len(last)
        if len(last) < UPDATES or margin <= 0 or lost >= -LOST:
            return ""
    return (
        f"Update {rows[-1]['update']:.0f}: chosen trajectories have become {-lost:.3f} nats a token less likely than "
        f"under the reference while the margin grew to {margin:.1f}, so training lowers both sides. "
        f"{_ADVICE.get(method, _ADVICE_FOR_PAIRS)}"
    )
