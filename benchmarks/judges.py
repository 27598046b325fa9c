"""What judges do to the pairs of the same rollouts: ``python benchmarks/judges.py --store RUN --work runs/judges``.

Costs, success, chance, two external scorers (``examples/judges``) and two scripted persons order the rollouts of one
store. A *scripted person* is no person: votes that this script writes, on couples of a success and a failure right with
the accuracy in its name, on couples of one outcome a tie as often, else for a random side. ``grape pair --judge`` makes
pairs by each of them and ``grape agree`` says who orders as whom. The record is a JSON file, the page's table is made
from it.
"""

import argparse
import itertools
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measured_on import commit, processor

from grape.core.files import read_json, write_json, write_text
from grape.core.seeds import derive_rng
from grape.judges.votes import Vote, append_vote
from grape.preferences import PairSettings, ScoreSettings, read_pairs, run_pair, run_score
from grape.report.agreement_page import AgreeSettings, run_agree
from grape.store import EpisodeStore

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "judges.md"
EXAMPLES = ROOT / "examples" / "judges"
PROGRAMS = ("haste", "image_change")
PERSONS = (0.95, 0.75)

_TABLE = re.compile(r"(<!-- table -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="rollouts: a folder that grape collect wrote")
    parser.add_argument("--work", type=Path, help="folder for scores, votes and pairs; finished parts are taken over")
    parser.add_argument("--out", type=Path, default=PAGE.with_suffix(".json"))
    parser.add_argument("--note", default="", help="where the rollouts are from, in plain words")
    parser.add_argument("--check", action="store_true", help="measure nothing; fail where page and record differ")
    options = parser.parse_args()
    if options.check:
        if with_table(PAGE.read_text(encoding="utf-8")) != PAGE.read_text(encoding="utf-8"):
            sys.exit(f"{PAGE.name} does not tell what {PAGE.stem}.json does. Run this script.")
        return
    record = measure(options.store, options.work) | {"rollouts_from": options.note}
    write_json(options.out, record)
    if options.out == PAGE.with_suffix(".json") and PAGE.exists():
        write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8")))
    print("\n".join(table(record)))


def measure(store: Path, work: Path) -> dict[str, Any]:
    """Score, vote, pair and compare."""
    scores = work / "scores"
    programs = tuple(f"{name}={sys.executable} {EXAMPLES / name}.py" for name in PROGRAMS)
    run_score(ScoreSettings(store=store, out=scores, scorer=("costs", "success", *programs)))
    episodes = EpisodeStore.open(store)
    outcomes = {meta.episode_id: meta.success for meta in episodes.metas()}
    judges = {"R_GCPG": "score", "costs": "score:costs", "success": "success"}
    judges |= {name: f"score:{name}" for name in PROGRAMS}
    for accuracy in PERSONS:
        folder = work / f"votes-{accuracy:g}"
        if not folder.exists():
            write_votes(folder, episodes, accuracy)
        judges[f"scripted person, {accuracy:.0%}"] = f"votes:{folder}"
    judges["random"] = "random"
    rows, pairs = [], {}
    for number, (label, judge) in enumerate(judges.items()):
        # One folder for all, beside the scores, where grape agree looks for them.
        out = work / f"pairs-{number}"
        summary = run_pair(PairSettings(scores=scores, out=out, judge=judge))
        pairs[label] = {(pair.chosen, pair.rejected) for pair in read_pairs(out)}
        rows.append({"judge": label, **_of_pairs(pairs[label], outcomes, pairs["R_GCPG"]), **_rates(summary)})
    agreement = run_agree(AgreeSettings(run=work, page=False, out=work / "agreement"))
    return {
        "commit": commit(),
        "processor": processor(),
        "episodes": len(outcomes),
        "successes": sum(outcome is True for outcome in outcomes.values()),
        "states": agreement["states"],
        "judges": rows,
        "couples": agreement["couples"],
        "agreement": agreement["matrix"],
        "calibration": agreement["calibration"],
    }


def write_votes(folder: Path, episodes: EpisodeStore, accuracy: float) -> None:
    """Votes of a scripted person on all couples of each initial state; the folder is there once it has all of them."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    states: dict[tuple[str, int], list[str]] = {}
    outcomes = {}
    for meta in sorted(episodes.metas(), key=lambda meta: meta.episode_id):
        states.setdefault((meta.task, meta.initial_state), []).append(meta.episode_id)
        outcomes[meta.episode_id] = meta.success
    couples = [couple for members in states.values() for couple in itertools.combinations(members, 2)]
    checksums = episodes.checksums()
    rng = derive_rng(0, "scripted person", str(accuracy))
    for number, (a, b) in enumerate(couples, start=1):
        right = "tie" if outcomes[a] == outcomes[b] else "a" if outcomes[a] else "b"
        wrong = "b" if right == "a" or (right == "tie" and rng.random() < 0.5) else "a"
        choice = right if rng.random() < accuracy else wrong
        vote = Vote("scripted-person", number, a, b, choice, {name: checksums[name] for name in (a, b)})
        append_vote(unfinished, vote)
    unfinished.rename(folder)


def _of_pairs(
    pairs: set[tuple[str, str]], outcomes: Mapping[str, bool | None], of_score: set[tuple[str, str]]
) -> dict[str, Any]:
    """What the pairs are like, also beside those of R_GCPG."""
    mixed = [outcomes[chosen] is True for chosen, rejected in pairs if outcomes[chosen] != outcomes[rejected]]
    return {
        "pairs": len(pairs),
        "of_both_outcomes": len(mixed),
        "of_these_chosen_succeeded": sum(mixed),
        "as_of_r_gcpg": len(pairs & of_score),
        "reversed_of_r_gcpg": len({(rejected, chosen) for chosen, rejected in pairs} & of_score),
        "chosen": len({chosen for chosen, _ in pairs}),
    }


def _rates(summary: Mapping[str, Any]) -> dict[str, Any]:
    rates = {name: summary[name] for name in ("chosen_success_rate", "rejected_success_rate")}
    return rates | {"asked": summary["judge"]}


def with_table(page: str) -> str:
    """The page with the table of the record."""
    record = read_json(PAGE.with_suffix(".json"))
    lines = "\n".join(table(record))
    return _TABLE.sub(lambda block: f"{block[1]}{lines}\n{block[3]}", page)


def table(record: Mapping[str, Any]) -> list[str]:
    """The record as Markdown."""
    lines = [
        "| judge | pairs | of both outcomes | of these, success chosen | chosen succeeded | rejected succeeded "
        "| as R_GCPG pairs them | the other way round |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["judges"]:
        right = row["of_these_chosen_succeeded"] / row["of_both_outcomes"] if row["of_both_outcomes"] else None
        cells = [
            row["judge"],
            str(row["pairs"]),
            str(row["of_both_outcomes"]),
            _share(right),
            _share(row["chosen_success_rate"]),
            _share(row["rejected_success_rate"]),
            str(row["as_of_r_gcpg"]),
            str(row["reversed_of_r_gcpg"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Of the couples that the column orders (how many), the share that the row orders alike; its ties count half:",
        "",
    ]
    return [*lines, *_matrix(record["agreement"])]


def _matrix(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    by_name = {(row["source"], row["reference"]): row for row in rows}
    # What a judge of a stored scorer says, the scorer says already.
    sources = dict.fromkeys(row["source"] for row in rows if not row["source"].startswith("score-"))
    lines = ["| | success | costs |", "|---|---|---|"]
    for source in sources:
        cells = [_concordance(by_name.get((source, reference))) for reference in ("success", "costs")]
        # The label of a folder of votes ends in the accuracy.
        name = f"scripted person, {float(source.rpartition('-')[2]):.0%}" if source.startswith("votes-") else source
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _concordance(row: Mapping[str, Any] | None) -> str:
    if row is None or row["concordance"] is None:
        return ""
    low, high = row["interval"]
    return f"{row['concordance']:.0%} ({low:.0%} to {high:.0%}; {row['couples']})"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


if __name__ == "__main__":
    main()
