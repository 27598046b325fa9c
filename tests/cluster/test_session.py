"""Addresses that cannot be used are refused before Ray is asked; nodes with other releases are listed."""

import importlib.metadata
import os
import socket
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import grape
from grape.cluster import open_cluster
from grape.cluster.nodes import _described, refuse_differences
from grape.cluster.session import Cluster, Node
from grape.core.errors import CompatibilityError, SettingsError
from grape.envs.toy import ToySuite


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("auto", "'auto' is no host:port"),
        ("local", "'local' is no host:port"),
        ("10.0.0.1", "is no host:port"),
        (":6379", "is no host:port"),
        ("head:port", "is no host:port"),
        ("ray://10.0.0.1:10001", "must run on a node of the cluster"),
    ],
)
def test_only_an_address_of_a_cluster_is_taken(address: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message), open_cluster(address):
        raise AssertionError


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(SettingsError, match="does not answer: Connection refused") as error, open_cluster(address):
        raise AssertionError
    assert address in error.value.message
    assert "ray start --head" in error.value.hint


def test_a_missing_ray_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match="not installed") as error, open_cluster():
        raise AssertionError
    assert "'grape-vla[ray]'" in error.value.hint


def test_a_ray_without_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(__version__="2.51.1"))
    with pytest.raises(SettingsError, match=r"Ray 2\.51\.1 is installed, which knows no tokens"), open_cluster():
        raise AssertionError


def test_what_nodes_have_together_counts_those_with_a_resource() -> None:
    nodes = [
        Node("1", "10.0.0.1", {"CPU": 4.0}),
        Node("2", "10.0.0.2", {"CPU": 8.0, "simulator": 1.0}),
        Node("3", "10.0.0.3", {"CPU": 16.0, "simulator": 0.0}),
    ]

    class Nodes(Cluster):
        def nodes(self) -> tuple[Node, ...]:
            return tuple(nodes)

    cluster = Nodes("10.0.0.1:6379", "10.0.0.1")
    assert (cluster.total("CPU"), cluster.total("CPU", "simulator"), cluster.total("GPU")) == (28.0, 8.0, 0.0)


OWN = {"grape": "0.2.0", "Python": "3.11", "toy's toy": "1"}


def answers(**changes: Any) -> list[tuple[str, Any]]:
    return [("10.0.0.1", OWN), ("10.0.0.2", changes.get("second", OWN)), ("10.0.0.3", changes.get("third", OWN))]


def test_nodes_with_other_releases_are_listed() -> None:
    other = {"second": OWN | {"grape": "0.1.0"}, "third": OWN | {"toy's toy": "2", "Python": "3.12"}}
    with pytest.raises(CompatibilityError) as error:
        refuse_differences(OWN, answers(**other))
    assert "2 of 3 nodes have other releases" in error.value.message
    assert "10.0.0.2: grape 0.1.0 (here 0.2.0)" in error.value.message
    assert "10.0.0.3: Python 3.12 (here 3.11), toy's toy 2 (here 1)" in error.value.message
    assert "10.0.0.1" not in error.value.message


def test_a_node_without_the_simulator_is_named_with_what_it_says() -> None:
    with pytest.raises(SettingsError) as error:
        refuse_differences(OWN, answers(third="Suite 'metaworld' needs the package metaworld."))
    assert "1 of 3 nodes cannot play episodes" in error.value.message
    assert "10.0.0.3: Suite 'metaworld' needs" in error.value.message
    assert "--worker-resource" in error.value.hint


def test_a_node_says_what_it_has_or_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = _described("toy", None, os.getcwd())
    assert not isinstance(facts, str)
    assert facts.items() >= {"grape": grape.__version__, "numpy": np.__version__, "toy's toy": "1"}.items()
    assert not [name for name in _described("", None, os.getcwd()) if "toy" in name]
    monkeypatch.setattr(ToySuite, "versions", lambda suite: importlib.metadata.version("a-simulator"))
    assert _described("toy", None, os.getcwd()) == "PackageNotFoundError: No package metadata was found for a-simulator"
    assert "Unknown suite 'nothing'" in _described("nothing", None, os.getcwd())


def test_a_node_that_has_no_workers_needs_no_simulator() -> None:
    refuse_differences(OWN, answers(second={"grape": "0.2.0", "Python": "3.11"}))


def test_a_long_list_is_cut() -> None:
    with pytest.raises(SettingsError, match="and 30 more"):
        refuse_differences(OWN, [(f"10.0.0.{number}", "GRAPE is not installed") for number in range(50)])
