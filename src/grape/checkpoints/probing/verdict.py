"""What ``probe`` concludes: a row for each candidate and each variation, a verdict, and sentences."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grape.checkpoints.probing.likelihoods import Measured, Statistics
from grape.policies.probes import FOOTING, Candidate, Footing, Reading, Variation

__all__ = ["SMALLEST_DIFFERENCE", "Ranking", "conclude"]

SMALLEST_DIFFERENCE = 0.02
"""Nats a token; what differs by less is as good (about one nat for a chunk of 8 actions of 7 dimensions)."""
_NEAR_UNIFORM = 0.9
"""From this share of the uniform distribution's nats on, a head has learned nothing of the demonstrations."""
_WORSE_THAN_UNIFORM = 1.1
_MANY_OUTSIDE = 0.05


@dataclass(frozen=True, eq=False)
class Ranking:
    """What was measured, and what fits best.

    Attributes:
        statistics: Intervals.
        measured: Likelihoods by reading.
        candidates: All of them, also those that cannot be run.
        best: The candidate that fits best.
        reading: The reading that fits best: the candidate's, or one that variations led to.
    """

    statistics: Statistics
    measured: Mapping[Reading, Measured]
    candidates: Sequence[Candidate]
    best: Candidate
    reading: Reading

    @property
    def changes(self) -> dict[str, Any]:
        """Conventions in which the best reading differs from the best candidate's."""
        before = self.best.reading.facts
        return {name: value for name, value in self.reading.facts.items() if value != before[name]}

    @property
    def alike(self) -> list[Candidate]:
        """Candidates that give the network the same input as the best one, which is among them."""
        return [other for other in self.candidates if other.reading == self.best.reading and not other.problem]

    @property
    def rivals(self) -> list[tuple[Candidate, float, tuple[float, float]]]:
        """One candidate of each other reading, how much worse it is, nats a token, and the interval; nearest first."""
        others = {other.reading: other for other in self.candidates if not other.problem}
        others.pop(self.best.reading)
        rows = [(other, *self.difference(reading)) for reading, other in others.items()]
        return sorted(rows, key=lambda row: row[1])

    def difference(self, reading: Reading) -> tuple[float, tuple[float, float]]:
        """How much worse a reading is than the best candidate's, nats a token, with the interval."""
        return self.statistics.difference(self.measured[reading], self.measured[self.best.reading])

    def names(self, candidate: Candidate) -> str:
        """A candidate's name, with those that give the network the same input."""
        same = [other.name for other in self.candidates if other.reading == candidate.reading and not other.problem]
        names = list(map(_called, same))
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

    @property
    def title(self) -> str:
        """The best reading in words."""
        changes = ", ".join(f"{name}={_value(value)}" for name, value in self.changes.items())
        return f"{self.names(self.best)}{f' with {changes}' if changes else ''}"

    def candidate_rows(self) -> list[dict[str, Any]]:
        """JSON values of each candidate."""
        rows = []
        for candidate in self.candidates:
            row: dict[str, Any] = {"name": candidate.name, "stated": candidate.stated, **candidate.reading.facts}
            if candidate.problem:
                rows.append({**row, "problem": candidate.problem})
                continue
            values = self.measured[candidate.reading]
            difference, interval = self.difference(candidate.reading)
            own = values.footings.get(candidate.footing.name, values.nll_each)
            rows.append(
                {
                    **row,
                    "nll": values.nll,
                    "interval": self.statistics.interval(values.nll_each, values.tokens_each),
                    "accuracy": values.accuracy,
                    "first_nll": values.first.nll,
                    "first_accuracy": values.first.accuracy,
                    "own": {
                        "support": candidate.footing.support,
                        "temperature": candidate.footing.temperature,
                        "nll": float(own.sum() / values.tokens_each.sum()),
                    },
                    "difference": difference,
                    "difference_interval": interval,
                    "like": next(other.name for other in self.candidates if other.reading == candidate.reading),
                }
            )
        return rows

    def variation_rows(self, around: Sequence[Variation], footings: Mapping[str, Footing]) -> list[dict[str, Any]]:
        """JSON values of each change of one convention of the best reading, and of its softmax.

        Args:
            around: Variations of the reading.
            footings: Other supports and temperatures, by the convention.
        """
        base = self.measured[self.reading]
        rows = []
        for other in around:
            row = {"convention": other.convention, "from": self.reading.facts[other.convention], "to": other.value}
            if other.problem or other.reading == self.reading:
                rows.append({**row, "problem": other.problem or "gives this checkpoint the same input"})
                continue
            values = self.measured[other.reading]
            cost, interval = self.statistics.difference(values, base)
            rows.append({**row, "nll": values.nll, "cost": cost, "interval": interval, "accuracy": values.accuracy})
        for name, footing in footings.items():
            nll_each = base.footings[footing.name]
            cost, interval = self.statistics.excess(nll_each - base.nll_each, base.tokens_each)
            ends = getattr(FOOTING, name), getattr(footing, name)
            rows.append(
                {
                    "convention": name,
                    "from": ends[0],
                    "to": ends[1],
                    "nll": base.nll + cost,
                    "cost": cost,
                    "interval": interval,
                    "accuracy": base.accuracy,
                }
            )
        return rows


def conclude(ranking: Ranking, baselines: Mapping[str, float], opening: Sequence[str]) -> dict[str, Any]:
    """The verdict.

    Args:
        ranking: What was measured.
        baselines: ``uniform`` and ``frequencies``: nats a token without a policy.
        opening: Flags that open the checkpoint, for the command that comes next.

    Returns:
        ``verdict``, ``sentence``, ``next``, ``notes``, ``best`` (in words), ``preset``, ``changes``, ``nll``,
        ``interval``, ``accuracy``,
        ``by_action`` and ``outside``.
    """
    values, best = ranking.measured[ranking.reading], ranking.best
    interval = ranking.statistics.interval(values.nll_each, values.tokens_each)
    figures = f"{values.nll:.2f} nats a token ({interval[0]:.2f} to {interval[1]:.2f})"
    rivals, decisions = ranking.rivals, len(values.nll_each)
    undecided = [row for row in rivals if row[2][0] <= 0.0 or row[1] < SMALLEST_DIFFERENCE]
    apart = [row for row in rivals if row not in undecided]
    untrained = values.nll > _NEAR_UNIFORM * baselines["uniform"]
    if untrained:
        verdict, sentence, following = "untrained", _untrained(ranking, figures, values.nll, baselines), _UNTRAINED
    elif ranking.changes:
        worse, bounds = ranking.statistics.difference(ranking.measured[best.reading], values)
        verdict = "between"
        sentence = (
            f"No preset fits as it is: {ranking.title} gives {figures}; "
            f"without that change it is {_more(worse, bounds)}."
        )
        following = _following(ranking, opening)
    elif undecided:
        verdict = "undecided"
        second, worse, bounds = undecided[0]
        relation = "cannot be told apart" if bounds[0] <= 0.0 else "hardly differ"
        sentence = (
            f"{_capital(ranking.names(best))} on one side and {ranking.names(second)} on the other {relation} on "
            f"{decisions} decisions: {figures} on the first, {_signed(worse, bounds)} on the second"
        )
        sentence += f"; next {ranking.names(apart[0][0])}, {_more(*apart[0][1:])}." if apart else "."
        following = "More --samples may tell. Where the difference stays small, the choice matters little here."
    else:
        alike = [other.name for other in ranking.alike]
        verdict = "alike" if len(alike) > 1 else "fits"
        verb = "fit" if len(alike) > 1 else "fits"
        sentence = (
            f"{_capital(ranking.names(best))} {verb} best: {figures}, {100 * values.accuracy:.1f} % of tokens right"
        )
        sentence += f"; next {ranking.names(rivals[0][0])}, {_more(*rivals[0][1:])}." if rivals else "."
        if len(alike) > 1:
            sentence += f" {_difference_of(ranking.alike)}"
        following = _following(ranking, opening)
    return {
        "verdict": verdict,
        "sentence": sentence,
        "next": following,
        "notes": _notes(ranking, values, baselines, untrained=untrained),
        "best": ranking.title,
        "preset": None if untrained else best.name,
        "changes": ranking.changes,
        "nll": values.nll,
        "interval": interval,
        "accuracy": values.accuracy,
        "by_action": list(values.by_action),
        "outside": values.outside,
    }


_UNTRAINED = (
    "Either its language model was never trained to give action tokens (OpenVLA-OFT's default recipe trains an L1 head "
    "in its place), or the demonstrations, --unnorm-key, --chunk or --cameras are not those it was trained with."
)


def _untrained(ranking: Ranking, figures: str, nll: float, baselines: Mapping[str, float]) -> str:
    uniform = baselines["uniform"]
    relation = "is worse than" if nll > _WORSE_THAN_UNIFORM * uniform else "is hardly better than"
    if nll > uniform and nll <= _WORSE_THAN_UNIFORM * uniform:
        relation = "is no better than"
    return (
        f"The head is untrained, or trained for something else: the best that any convention gives is {figures}, which "
        f"{relation} all action tokens being equally likely ({uniform:.2f})."
    )


def _following(ranking: Ranking, opening: Sequence[str]) -> str:
    """What to do where something fits."""
    if not ranking.best.reading.is_chunked:
        crop = f" and with --center-crop {_value(ranking.changes['center_crop'])}" if ranking.changes else ""
        return f"Run it without --preset{crop}: it decides on one action, token by token."
    if not ranking.changes and any(other.stated for other in ranking.alike):
        return "The checkpoint states that already: run it without --preset."
    words = ["grape", "export", "merged", *opening]
    if ranking.best.name != "stated":
        words += ["--preset", ranking.best.name]
    if ranking.changes:
        words += ["--convention", *(f"{name}={_value(value)}" for name, value in ranking.changes.items())]
    advice = "Choose the preset of the software that trained it, and state" if len(ranking.alike) > 1 else "State"
    return f"{advice} it in a copy of the checkpoint: {shlex.join([*words, '--out', 'DIR'])}"


def _difference_of(alike: Sequence[Candidate]) -> str:
    first, *others = (candidate.conventions for candidate in alike)
    names = [name for name in first if any(other.get(name) != first[name] for other in others)]
    return (
        f"They give this network the same input: they differ in {' and '.join(names) or 'nothing'} only, which "
        "demonstrations do not decide."
    )


def _notes(ranking: Ranking, values: Measured, baselines: Mapping[str, float], *, untrained: bool) -> list[str]:
    notes = []
    if len({other.reading.is_chunked for other in ranking.candidates}) > 1:
        notes.append(
            "Plain OpenVLA has one action a decision: it is compared with the others on the first of each chunk."
        )
    if not untrained and values.nll >= baselines["frequencies"]:
        notes.append(
            f"Knowing only how often each token occurs gives {baselines['frequencies']:.2f} nats a token: images and "
            "instructions tell this policy little about these demonstrations."
        )
    weak = [place for place, nll in enumerate(values.by_action) if nll > _NEAR_UNIFORM * baselines["uniform"]]
    if not untrained and weak and weak == list(range(weak[0], len(values.by_action))) and weak[0]:
        notes.append(
            f"From action {weak[0]} of the chunk on, tokens are hardly better than equally likely: the checkpoint may "
            f"have been trained for --chunk {weak[0]}."
        )
    if not untrained and values.outside > _MANY_OUTSIDE:
        notes.append(
            f"In {100 * values.outside:.0f} % of places the likeliest id of the vocabulary is no action token: greedy "
            "decoding needs support=window."
        )
    stated = next((other for other in ranking.candidates if other.stated), None)
    if stated is not None and not untrained and stated.reading != ranking.reading and not stated.problem:
        worse, bounds = ranking.statistics.difference(
            ranking.measured[stated.reading], ranking.measured[ranking.reading]
        )
        if bounds[0] > SMALLEST_DIFFERENCE:
            notes.append(f"What the checkpoint states itself is {_more(worse, bounds)}.")
    return notes


def _called(name: str) -> str:
    return {"stated": "what the checkpoint states", "openvla": "plain OpenVLA"}.get(name, name)


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}" if text.startswith(("what", "plain")) else text


def _value(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _more(value: float, bounds: tuple[float, float]) -> str:
    return f"{value:.2f} nats worse ({bounds[0]:.2f} to {bounds[1]:.2f})"


def _signed(value: float, bounds: tuple[float, float]) -> str:
    return f"{value:+.3f} ({bounds[0]:+.3f} to {bounds[1]:+.3f})"
