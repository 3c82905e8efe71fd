"""Accepted request to all objects made, beside `kubectl apply` of the same manifests on the same cluster."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from k8s.cluster import Cluster
from k8s.names import ENVIRONMENT
from portal.ops.client import Api
from tests.stack import running, wait_until

from .common import Row

NAMESPACE = "atelier-vision"
MADE = ("ConfigMap", "Service", "StatefulSet")


def documents(cluster: Cluster, identifier: str) -> list[dict[str, Any]]:
    """What the environment has in the cluster, of the kinds that the worker makes."""
    return [item for item in cluster.list_labelled(NAMESPACE, {ENVIRONMENT: identifier}) if item["kind"] in MADE]


def manifest(item: dict[str, Any]) -> dict[str, Any]:
    """The document as one would keep it in a file, under another name."""
    meta = item["metadata"]
    kept = {key: meta[key] for key in ("labels", "annotations") if key in meta}
    kept["labels"] = {key: value for key, value in kept.get("labels", {}).items() if key != ENVIRONMENT}
    spec = {key: value for key, value in item.items() if key in ("spec", "data")}
    if item["kind"] == "StatefulSet":
        spec["spec"]["replicas"] = 0  # the objects are measured here, not the pods
    if item["kind"] == "Service":
        spec["spec"] = {key: value for key, value in spec["spec"].items() if key in ("ports", "selector")} | {"clusterIP": "None"}
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {**kept, "name": f"kubectl-{meta['name']}"[:60], "namespace": NAMESPACE},
        **spec,
    }


def measure(folder: Path, runs: int) -> list[Row]:
    times, peer = [], []
    kubectl = shutil.which("kubectl")
    with running(folder / "var") as stack, Api(stack.url, stack.token()) as api:
        kubeconfig = stack.var / "cluster" / "kubeconfig"
        cluster = Cluster(kubeconfig)
        for number in range(runs + 1):
            body = {"name": f"bench-{number}", "template": "dask", "flavor": "cpu-small", "team": "vision", "params": {"workers": 1}}
            identifier = api.call("POST", "/environments", json=body)["id"]
            began = time.perf_counter()
            found = wait_until(lambda: _all(documents(cluster, identifier)), "all objects")  # noqa: B023 - called at once
            times.append(time.perf_counter() - began)
            if kubectl:
                peer.append(_kubectl(kubectl, kubeconfig, folder / f"{number}.yaml", found))
            api.call("DELETE", f"/environments/{identifier}")
            api.wait_state(identifier, "deleted")
    return [Row("accepted to all objects made / kubectl apply", times[1:], peer[1:], "<= 0.6")]


def _all(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A Dask cluster has one ConfigMap, two Services, two StatefulSets."""
    return found if len(found) >= 5 else []


def _kubectl(kubectl: str, kubeconfig: Path, file: Path, found: list[dict[str, Any]]) -> float:
    file.write_text(yaml.safe_dump_all([manifest(item) for item in found]))
    began = time.perf_counter()
    subprocess.run([kubectl, "--kubeconfig", str(kubeconfig), "apply", "-f", str(file)], check=True, capture_output=True)
    took = time.perf_counter() - began
    subprocess.run([kubectl, "--kubeconfig", str(kubeconfig), "delete", "-f", str(file), "--wait=false"], check=True, capture_output=True)
    return took
