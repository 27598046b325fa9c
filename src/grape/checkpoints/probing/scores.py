"""Scores of decisions under several readings of a checkpoint: computed batch by batch, kept in a file, resumed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from grape.checkpoints.probing.sampling import Sampler
from grape.core.errors import DataError
from grape.core.events import Reporter, append_line
from grape.core.files import write_jsonl
from grape.core.reading import decode, parse_json, read_file, record
from grape.policies.probes import Footing, Probe, Reading

__all__ = ["SCORES_NAME", "ScoredDecision", "Scorer"]

SCORES_NAME = "scores.jsonl"


@record
@dataclass(frozen=True)
class ScoredDecision:
    """A line of the file: one decision under one reading; see :class:`~grape.policies.probes.ProbeScore`.

    Attributes:
        reading: Name of the reading.
        decision: Its place in the sample.
        episode_id: Its episode.
        step: Its control step there.
        nll: Negative log-likelihood of each action, nats.
        hits: Likeliest tokens of each action.
        footings: Negative log-likelihood of all actions on other footings, nats.
        outside: Places in which the likeliest id is no action token.
    """

    reading: str
    decision: int
    episode_id: str
    step: int
    nll: tuple[float, ...]
    hits: tuple[int, ...]
    footings: Mapping[str, float]
    outside: int


class Scorer:
    """Scores a sample under readings, each one once.

    Args:
        probe: The checkpoint, with weights.
        sampler: The sample.
        batch: Decisions that go through the network at once. What a batch holds does not depend on what was scored
            before, so that a resumed run gives the same bytes.
        footings: Supports and temperatures beside the usual ones.
        folder: Where the scores are kept; None for nowhere.
    """

    def __init__(
        self, probe: Probe, sampler: Sampler, batch: int, footings: Sequence[Footing], folder: Path | None
    ) -> None:
        self._probe = probe
        self._sampler = sampler
        self._batch = batch
        self._footings = footings
        self._names = {footing.name for footing in probe.footings(footings)}
        self._path = None if folder is None else folder / SCORES_NAME
        self._rows = {} if self._path is None else self._read(self._path)

    def score(self, readings: Sequence[Reading], reporter: Reporter) -> None:
        """Score the sample under readings; those that are scored already cost nothing.

        Raises:
            CompatibilityError: The demonstrations are not what the checkpoint reads.
            DataError: An episode is damaged.
            PolicyError: The network's output is not finite.
            GrapeError: The scores cannot be written.
        """
        places = range(0, len(self._sampler.decisions), self._batch)
        pending = {start: [reading for reading in readings if not self._has(reading, start)] for start in places}
        total = len(readings) * len(places)
        done = total - sum(map(len, pending.values()))
        if done == total:
            return
        with reporter.progress("probe", total, done) as progress:
            for start, missing in pending.items():
                if not missing:
                    continue
                decisions = self._sampler.decisions[start : start + self._batch]
                batch = self._sampler.read(decisions)
                for reading in missing:
                    scores = self._probe.score(reading, batch, self._footings)
                    for place, (decision, score) in enumerate(zip(decisions, scores, strict=True), start=start):
                        values = asdict(score)
                        self._add(ScoredDecision(reading.key, place, decision.episode_id, decision.step, **values))
                    progress.advance(note=reading.key)

    def rows(self, reading: Reading) -> list[ScoredDecision]:
        """Scores of the whole sample under a reading that was scored."""
        return [self._rows[reading.key, place] for place in range(len(self._sampler.decisions))]

    def finish(self) -> None:
        """Write the file anew in its final order."""
        if self._path is not None:
            write_jsonl(self._path, [asdict(row) for _, row in sorted(self._rows.items())])

    def _has(self, reading: Reading, start: int) -> bool:
        stop = min(start + self._batch, len(self._sampler.decisions))
        return all((reading.key, place) in self._rows for place in range(start, stop))

    def _add(self, row: ScoredDecision) -> None:
        self._rows[row.reading, row.decision] = row
        if self._path is not None:
            append_line(self._path, json.dumps(asdict(row)))

    def _read(self, path: Path) -> dict[tuple[str, int], ScoredDecision]:
        """Lines that are whole and of this sample; one truncated by a kill is scored again."""
        if not path.exists():
            return {}
        rows = {}
        for number, line in enumerate(read_file(path, max_bytes=2**30, within=path.parent).splitlines(), start=1):
            try:
                row = decode(ScoredDecision, parse_json(line, str(path)), f"{path}, line {number}")
            except DataError:
                continue
            if self._fits(row):
                rows[row.reading, row.decision] = row
        return rows

    def _fits(self, row: ScoredDecision) -> bool:
        if not 0 <= row.decision < len(self._sampler.decisions):
            return False
        decision = self._sampler.decisions[row.decision]
        same = (row.episode_id, row.step) == (decision.episode_id, decision.step)
        return same and 1 <= len(row.nll) == len(row.hits) and self._names <= set(row.footings)
