"""The shape of `metrics.k8s.io`, where a cluster serves it."""

from __future__ import annotations

import re

import pytest

from .conftest import Http, wait_for

BASE = "/apis/metrics.k8s.io/v1beta1"


@pytest.fixture(autouse=True)
def served(http: Http) -> None:
    if http("GET", BASE).code != 200:
        pytest.skip("this cluster serves no metrics")


def test_it_is_found_where_clients_look(http: Http) -> None:
    assert any(group["name"] == "metrics.k8s.io" for group in http("GET", "/apis").json["groups"])
    found = {item["name"]: (item["kind"], item["namespaced"], sorted(item["verbs"])) for item in http("GET", BASE).json["resources"]}
    assert found == {"nodes": ("NodeMetrics", False, ["get", "list"]), "pods": ("PodMetrics", True, ["get", "list"])}


def test_nodes_are_measured_over_a_window(http: Http) -> None:
    found = wait_for(lambda: http("GET", f"{BASE}/nodes").json["items"], "nodes to be measured", 120)[0]
    assert re.fullmatch(r"\d+[nmu]?", found["usage"]["cpu"])
    assert re.fullmatch(r"\d+(Ki|Mi)?", found["usage"]["memory"])
    assert re.fullmatch(r"(\d+m)?[\d.]+s", found["window"])
    one = http("GET", f"{BASE}/nodes/{found['metadata']['name']}").json
    assert one["kind"] == "NodeMetrics"
    assert one["metadata"]["name"] == found["metadata"]["name"]


def test_what_is_not_there_is_not_found(http: Http) -> None:
    answer = http("GET", f"{BASE}/namespaces/default/pods/atelier-none")
    assert answer.code == 404
    assert answer.json["reason"] == "NotFound"


def test_nothing_can_be_written(http: Http) -> None:
    assert http("POST", f"{BASE}/nodes", {"kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {"name": "made"}}).code == 405
