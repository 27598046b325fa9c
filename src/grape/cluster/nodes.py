"""What the nodes of a cluster must have in common: GRAPE's release, and the simulator where workers may run."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grape.cluster.actors import change_folder
from grape.cluster.releases import differences, releases, suite_releases
from grape.cluster.session import Cluster, Node
from grape.core.errors import CompatibilityError, GrapeError, SettingsError
from grape.envs.external_python import suite_of

__all__ = ["check_nodes", "refuse_differences"]

_PROBE_SECONDS = 600.0  # importing a simulator on a node with a cold disk


def check_nodes(cluster: Cluster, suite_name: str, python: Path | None, resource: str = "") -> None:
    """Look at every node that may play episodes, before the first one is played.

    Args:
        cluster: The cluster.
        suite_name: Registered name of the suite.
        python: Another interpreter for workers.
        resource: A resource that nodes must have for workers; empty for all nodes with CPUs.

    Raises:
        CompatibilityError: Nodes have other releases than this process; all of them are listed.
        SettingsError: A node lacks GRAPE or the simulator, or no node may have workers.
    """
    key = (suite_name, python, resource)
    if cluster.is_local or key in cluster.checked:
        return
    nodes = [node for node in cluster.nodes() if node.resources.get("CPU", 0.0) > 0]
    simulating = [node for node in nodes if not resource or node.resources.get(resource, 0.0) > 0]
    if not simulating:
        needed = f"the resource {resource!r}" if resource else "CPUs"
        raise SettingsError(
            f"No node of {cluster.address} has {needed}, so workers can run nowhere.",
            "Start nodes with it, e.g. ray start --resources '{\"simulator\": 1}'." if resource else "Start nodes.",
        )
    answers = _ask(nodes, {node.node_id for node in simulating}, suite_name, python)
    refuse_differences(_facts(suite_name, python), answers)
    cluster.checked[key] = True


def refuse_differences(
    own: Mapping[str, str], answers: Sequence[tuple[str, Mapping[str, str] | str]], most: int = 20
) -> None:
    """Refuse nodes that lack something or have other releases; all are listed.

    Args:
        own: Releases by package here.
        answers: Of each node its address, and its releases or what is wrong with it.
        most: Nodes that are listed.

    Raises:
        SettingsError: A node cannot play episodes.
        CompatibilityError: A node has other releases.
    """
    broken = [f"{address}: {answer}" for address, answer in answers if isinstance(answer, str)]
    if broken:
        raise SettingsError(
            f"{len(broken)} of {len(answers)} nodes cannot play episodes:\n     " + _listed(broken, most),
            "Install there what is missing, or name the nodes with a simulator by --worker-resource.",
        )
    differing = []
    for address, facts in answers:
        assert not isinstance(facts, str)
        if text := differences(own, facts):
            differing.append(f"{address}: {text}")
    if differing:
        raise CompatibilityError(
            f"{len(differing)} of {len(answers)} nodes have other releases, so equal settings would not give equal "
            "bytes:\n     " + _listed(differing, most),
            "Install the same releases on all nodes.",
        )


def _listed(lines: Sequence[str], most: int) -> str:
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n     ".join([*lines[:most], *more])


def _facts(suite_name: str, python: Path | None) -> dict[str, str]:
    """Releases on this machine; with a suite, after the check for its simulator."""
    if not suite_name:
        return releases()
    suite = suite_of(suite_name, python)
    suite.check()
    return releases() | suite_releases(suite)


def _described(suite_name: str, python: Path | None, folder: str) -> dict[str, str] | str:
    """What a node answers: its releases, or what is wrong."""
    change_folder(folder)
    try:
        return _facts(suite_name, python)
    except GrapeError as error:
        return str(error).replace("\n", " ")
    except Exception as error:  # whatever a simulator raises on a node is that node's answer
        return f"{type(error).__name__}: {error}"


def _ask(
    nodes: Sequence[Node], simulating: set[str], suite_name: str, python: Path | None
) -> list[tuple[str, Mapping[str, str] | str]]:
    """The answer of each node; those that may have no workers are not asked about the suite."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    described: Callable[..., Any] = ray.remote(num_cpus=0, max_retries=0)(_described)
    waiting = [
        described.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)).remote(  # type: ignore[attr-defined]
            suite_name if node.node_id in simulating else "", python, os.getcwd()
        )
        for node in nodes
    ]
    done, _ = ray.wait(waiting, num_returns=len(waiting), timeout=_PROBE_SECONDS)
    answers: list[tuple[str, Mapping[str, str] | str]] = []
    for node, answer in zip(nodes, waiting, strict=True):
        if answer not in done:
            answers.append((node.address, f"it gave no answer for {_PROBE_SECONDS:g} s"))
            continue
        try:
            answers.append((node.address, ray.get(answer)))
        except ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            missing = "No module named 'grape'" in str(error)
            answers.append((node.address, "GRAPE is not installed" if missing else lines[-1].strip()))
    return answers
