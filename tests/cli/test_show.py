"""What people see at the end of a verb."""

import io

from rich.console import Console

from grape.cli.show import show_loop, show_training


def shown(show, summary) -> str:
    output = io.StringIO()
    show(summary, Console(file=output, width=110))
    return output.getvalue()


def side(rate: float) -> dict:
    return {"success_rate": rate, "interval": [rate - 0.1, rate + 0.1]}


def comparison(a: float, b: float, **more) -> dict:
    return {"a": side(a), "b": side(b), "pairs": 100, "sentence": f"B is better than A: {a} to {b}.", **more}


def loop_summary() -> dict:
    entry = {"accepted": True, "verdict": "starting point"}
    return {
        "policies": [{"label": "SFT", **side(0.4), **entry}, {"label": "iteration 1", **side(0.6), **entry}],
        "test": {"labels": ["SFT", "iteration 1"], "states": "100000-100049"},
        "comparison": comparison(0.41, 0.63, tasks={"drawer-open": comparison(0.3, 0.7) | {"pairs": 50}}),
        "arms": [
            {
                "label": "filtered BC",
                "test": [
                    {"label": "TPO, iteration 1", "episodes": 100, **side(0.63)},
                    {"label": "filtered BC, rollouts of iteration 1", "episodes": 100, **side(0.52)},
                ],
                "comparison": comparison(0.52, 0.63),
            }
        ],
        "policy": "iteration-1/train/policy",
        "report": "runs/demo/report.html",
    }


def test_a_loop_ends_with_the_test_table_filtered_bc_and_the_report() -> None:
    text = shown(show_loop, loop_summary())
    assert "test states 100000-100049" in text
    assert text.index("test states") < text.index("validation states")
    lines = {line.replace("│", " ").split()[0]: line for line in text.splitlines() if "%" in line and "│" in line}
    assert all(part in lines["drawer-open"] for part in ("50", "30.0 %", "70.0 %", "60.0 - 80.0 %"))
    assert all(part in lines["all"] for part in ("100", "41.0 %", "63.0 %"))
    assert all(part in lines["filtered"] for part in ("100", "52.0 %"))
    assert text.rstrip().endswith("runs/demo/report.html")


def test_a_run_without_the_newer_facts_is_shown_too() -> None:
    summary = loop_summary()
    del summary["arms"]
    summary["test"] = {"before": "test/sft", "after": "test/iteration-1"}
    assert "last policy" in shown(show_loop, summary)


def test_training_ends_with_its_last_metrics_and_the_path() -> None:
    summary = {
        "episodes": 130,
        "updates": 625,
        "loss": 0.5571,
        "metrics": {"loss": 0.5571, "token_accuracy": 0.75, "update": 625},
        "holdout": {"loss": 0.6, "token_accuracy": 0.7},
        "policy": "runs/sft/policy",
        "policy_hash": "abc",
    }
    lines = [line.split() for line in shown(show_training, summary).splitlines()]
    assert ["loss", "0.5571"] in lines
    assert ["token", "accuracy", "0.75"] in lines
    assert ["held-out", "loss", "0.6"] in lines
    assert lines[-1] == ["policy", "runs/sft/policy"]
