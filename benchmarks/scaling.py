"""How the same work is done by 1, 2, 4 and 8 workers: rollouts, scores, trials of costs, exports.

    python benchmarks/scaling.py                                   # ten minutes; an idle machine
    python benchmarks/scaling.py --parts sleeping --workers 1 2    # a look

Rollouts are of scripted experts, so that no policy counts: of a simulator that waits (`sleeping_suite.py`: 0.05 s a
control step, no processor), which shows how episodes are shared out however few cores there are, and of Meta-World,
which computes and draws, so that it ends at the machine's cores. Both by the launchers `local` and `ray` (an instance
of its own on this machine). Workers play two short episodes each before the clock starts; how long that takes stands
apart (`seconds_to_start`). `grape score`, `grape costs validate` and `grape export rlds` are whole commands on one
store of Meta-World episodes: their seconds hold the start of their workers. All ways must give the same bytes, which is
checked. What is not measured stays in the file.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import importlib
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measured_on import HERE, commit, processor

from grape.collect import CollectSettings, run_collect
from grape.collect.launching import open_launcher
from grape.core.files import read_json, write_json, write_text
from grape.costs import CostsValidateSettings, run_costs_validate
from grape.exchange import RldsExportSettings, run_export_rlds
from grape.preferences import ScoreSettings, run_score
from grape.store import EpisodeStore

RESULTS = HERE.parent / "docs" / "results"
ROLLOUTS: dict[str, dict[str, Any]] = {
    "sleeping": {"suite": "sleeping", "initial_states": "0-31", "lanes": 2},
    "metaworld": {"suite": "metaworld", "tasks": "drawer-open", "initial_states": "0-47", "lanes": 2},
}
BEGIN, END = "<!-- table -->\n", "<!-- end -->"
WHO = ("here", "of_workers")
VERBS = ("score", "costs validate", "export rlds")
COPIES = {"score": 96, "costs validate": 24, "export rlds": 4}
"""How often each of 16 recorded episodes is taken, under other initial states."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    parser.add_argument("--page", type=Path, default=RESULTS / "scaling.md", help="whose table is written anew")
    parser.add_argument("--parts", nargs="+", default=[*ROLLOUTS, "verbs"], choices=[*ROLLOUTS, "verbs"])
    parser.add_argument("--launchers", nargs="+", default=["local", "ray"], choices=["local", "ray"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 8])
    options = parser.parse_args()
    result = read_json(options.out) if options.out.exists() else {"rows": []}
    result |= {
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    rows = {(row["work"], row["launcher"], row["workers"]): row for row in result["rows"]}
    with tempfile.TemporaryDirectory(prefix="scaling-") as name, registered(Path(name) / "site"):
        for row in measured(options, Path(name)):
            row["load_average"] = round(os.getloadavg()[0], 1)
            print(row, flush=True)
            rows[row["work"], row["launcher"], row["workers"]] = row
    order = [*ROLLOUTS, *VERBS]
    result["rows"] = [rows[key] for key in sorted(rows, key=lambda key: (order.index(key[0]), key[1:]))]
    write_json(options.out, result)
    if options.page.exists():
        write_text(options.page, with_table(options.page.read_text(encoding="utf-8"), result))


def with_table(page: str, result: dict[str, Any]) -> str:
    """The page with the figures of a record."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}{table(result)}{END}{rest.partition(END)[2]}"


def measured(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each way."""
    for part in options.parts:
        expected = ""
        for launcher in options.launchers:
            for workers in options.workers:
                if part == "verbs":
                    continue
                row, digest = rollouts(part, launcher, workers, folder / f"{part}-{launcher}-{workers}")
                assert digest == (expected := expected or digest), f"{row}: other bytes than one worker's"
                yield row
    if "verbs" in options.parts:
        yield from verbs(options, folder)


def rollouts(part: str, launcher: str, workers: int, folder: Path) -> tuple[dict[str, Any], str]:
    """Play the same episodes; the workers are there already."""
    given: dict[str, Any] = {**ROLLOUTS[part], "launcher": launcher, "workers": workers, "display": False}
    first = {**given, "max_steps": 2, "initial_states": f"40-{39 + 2 * workers}"}
    began = time.perf_counter()
    # Groups hold two episodes, so each worker has one to begin with.
    with open_launcher(CollectSettings(out=folder, **given)) as opened:
        run_collect(CollectSettings(out=folder / "first", **first), launcher=opened)
        ready = time.perf_counter()
        summary = run_collect(CollectSettings(out=folder / "rollouts", **given), launcher=opened)
        ended = time.perf_counter()
    row = {
        **{"work": part, "launcher": launcher, "workers": workers, "episodes": summary["episodes"]},
        **{"seconds": round(ended - ready, 2), "seconds_to_start": round(ready - began, 2)},
    }
    return row, EpisodeStore.open(folder / "rollouts").digest()


def verbs(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """The verbs that map over recorded episodes, each on one store."""
    few = folder / "few"
    recorded = ROLLOUTS["metaworld"] | {"initial_states": "0-15", "workers": min(2, os.cpu_count() or 1)}
    run_collect(CollectSettings(out=few, **recorded))
    for verb in VERBS:
        store = copied(EpisodeStore.open(few), folder / f"of {verb}", COPIES[verb], images=verb == "export rlds")
        expected = ""
        for launcher in options.launchers:
            for workers in options.workers:
                out = folder / f"{verb.replace(' ', '-')}-{launcher}-{workers}"
                began, before = time.perf_counter(), processor_seconds()
                digest = RUN[verb](store, out, {"launcher": launcher, "workers": workers})
                seconds, after = round(time.perf_counter() - began, 2), processor_seconds()
                assert digest == (expected := expected or digest), f"{out.name}: other bytes than one worker's"
                episodes = len(EpisodeStore.open(store))
                yield {
                    **{"work": verb, "launcher": launcher, "workers": workers},
                    **{"episodes": episodes, "seconds": seconds},
                    **(processor_of(before, after) if launcher == "local" else {}),  # Ray's processes are not ours
                }


def processor_seconds() -> tuple[float, float]:
    """Processor time of this process, and of workers that ended, so far."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own, workers = (part.ru_utime + part.ru_stime for part in usage)
    return own, workers


def processor_of(before: tuple[float, float], after: tuple[float, float]) -> dict[str, float]:
    return {
        f"processor_seconds_{who}": round(end - start, 2) for who, start, end in zip(WHO, before, after, strict=True)
    }


def score(store: Path, out: Path, given: dict[str, Any]) -> str:
    run_score(ScoreSettings(store=store, out=out, **given))
    return digest_of(out)


def validate(store: Path, out: Path, given: dict[str, Any]) -> str:
    settings = CostsValidateSettings(target="metaworld/drawer-open", store=(store,), draws=2, **given)
    return repr(run_costs_validate(settings))


def export(store: Path, out: Path, given: dict[str, Any]) -> str:
    run_export_rlds(RldsExportSettings(out=out, collection=store, **given))
    return digest_of(out)


RUN: dict[str, Callable[[Path, Path, dict[str, Any]], str]] = {
    "score": score,
    "costs validate": validate,
    "export rlds": export,
}


def digest_of(folder: Path) -> str:
    """Hash of what a verb wrote, without the settings, which name workers, and the log."""
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name not in ("settings.yaml", "log.jsonl")
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def copied(store: EpisodeStore, folder: Path, copies: int, *, images: bool) -> Path:
    """A store with each episode several times, under other initial states; every third copy is called a failure.

    Without ``images`` these are tiny, where they are not read.
    """
    many = EpisodeStore.create(folder / "store", store.suite, store.contract)
    for name in store.ids():
        trajectory = store.read(name)
        if not images:
            trajectory = dataclasses.replace(trajectory, frames=np.ascontiguousarray(trajectory.frames[:, ::64, ::64]))
        for copy in range(copies):
            state = trajectory.meta.initial_state + 1000 * copy
            facts = {"episode_id": f"{trajectory.meta.task}-{state:06d}", "initial_state": state}
            meta = dataclasses.replace(trajectory.meta, success=copy % 3 > 0, **facts)
            many.write(dataclasses.replace(trajectory, meta=meta))
    return many.path


@contextlib.contextmanager
def registered(site: Path) -> Iterator[None]:
    """Register the suite that waits, for this process and those that it starts."""
    info = site / "sleeping_suite-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeping-suite\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[grape.suites]\nsleeping = sleeping_suite:SleepingSuite\n")
    sys.path.insert(0, str(site))
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), str(HERE), before]))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        os.environ["PYTHONPATH"] = before


def table(result: dict[str, Any]) -> str:
    """The tables of the page."""
    counts = sorted({row["workers"] for row in result["rows"]})
    lines = [
        f"{result['processor']}, {result['cores']} cores, Python {result['python']}; commit `{result['commit'][:12]}`.",
        "",
        "| work | launcher | episodes | " + " | ".join(f"{n} worker{'s' * (n > 1)}" for n in counts) + " | to start |",
        "|---|---|---|" + "---|" * (len(counts) + 1),
    ]
    ways = dict.fromkeys((row["work"], row["launcher"]) for row in result["rows"])
    for work, launcher in ways:
        rows = {row["workers"]: row for row in result["rows"] if (row["work"], row["launcher"]) == (work, launcher)}
        one = rows.get(1, {}).get("seconds")
        cells = []
        for count in counts:
            row = rows.get(count)
            faster = f" ({one / row['seconds']:.1f}x)" if row and one and count > 1 else ""
            cells.append(f"{row['seconds']:.1f} s{faster}" if row else "")
        starts = [row["seconds_to_start"] for row in rows.values() if "seconds_to_start" in row]
        start = f"{min(starts):.1f} to {max(starts):.1f} s" if starts else "included"
        episodes = next(iter(rows.values()))["episodes"]
        lines.append(f"| {work} | {launcher} | {episodes} | {' | '.join(cells)} | {start} |")
    lines += [
        "",
        "| work | " + " | ".join(f"{n} worker{'s' * (n > 1)}" for n in counts) + " | at most |",
        "|---|" + "---|" * (len(counts) + 1),
    ]
    for verb in VERBS:
        rows = {row["workers"]: row for row in result["rows"] if (row["work"], row["launcher"]) == (verb, "local")}
        parts = {count: [row[f"processor_seconds_{who}"] for who in WHO] for count, row in rows.items()}
        cells = [f"{parts[n][0]:.1f} + {parts[n][1]:.1f} s" if n in parts else "" for n in counts]
        shared = [here for count, (here, _) in parts.items() if count > 1]
        bound = f"{parts[1][0] / min(shared):.0f}x" if 1 in parts and shared else ""
        lines.append(f"| {verb} | {' | '.join(cells)} | {bound} |")
    loads = [row["load_average"] for row in result["rows"]]
    lines += ["", f"Load average of the machine meanwhile: {min(loads):.0f} to {max(loads):.0f}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
