"""The README tells of the Meta-World study what its record holds."""

import json
import re
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).parents[2]
ARMS = ("tpo", "filtered_bc", "random_pairs")


def test_means_and_gains_of_the_readme_are_those_of_the_record() -> None:
    record = json.loads((ROOT / "docs/results/metaworld-nano.json").read_text())
    text = " ".join((ROOT / "README.md").read_text().split())
    percent = {arm: 100 * fmean(record[arm]) for arm in ("sft", *ARMS, "success_pairs", "step_dpo")}
    means = " | ".join(f"{percent[arm]:.0f} %" for arm in ("sft", *ARMS))
    assert f"| mean of 5 seeds | {means} |" in text
    gains = re.findall(r"([+-]\d+) points \(([+-]\d+) to ([+-]\d+)\), p = ", text)
    for arm, figures in zip(ARMS, gains[:3], strict=True):
        gain = record["against_sft"][arm]
        assert figures == tuple(f"{100 * value:+.0f}" for value in (gain["difference"], *gain["interval"]))
    assert f"TPO: {percent['sft']:.1f} to {percent['tpo']:.1f} %" in text
    others = f"ended at {percent['success_pairs']:.0f} % (TPO on random pairs of a success and a failure) and "
    assert others + f"{percent['step_dpo']:.0f} % (step-wise DPO)" in text
