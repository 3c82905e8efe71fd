"""kubectl against the API, with nothing but a kubeconfig."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import yaml

from .conftest import Http, configmap, pod, statefulset, wait_for
from .test_objects import space

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


def test_kubectl_lists_kinds_and_namespaces(kubectl: Kubectl) -> None:
    found = kubectl("api-resources", "-o", "name").stdout.split()
    assert {"pods", "statefulsets.apps", "jobs.batch", "networkpolicies.networking.k8s.io"} <= set(found)
    assert "default" in kubectl("get", "ns").stdout
    assert "v1.3" in kubectl("version").stdout


def test_kubectl_applies_changes_and_says_unchanged(kubectl: Kubectl, http: Http, namespace: str) -> None:
    document = yaml.safe_dump_all([statefulset("web"), configmap("conf", a="1")])
    for word in ("created", "unchanged"):
        done = kubectl("-n", namespace, "apply", "-f", "-", given=document)
        assert done.returncode == 0, done.stderr
        assert f"statefulset.apps/web {word}" in done.stdout
    assert "configured" in kubectl("-n", namespace, "apply", "-f", "-", given=yaml.safe_dump(configmap("conf", a="2"))).stdout
    assert http("GET", space(namespace, "configmaps", "conf")).json["data"] == {"a": "2"}


def test_kubectl_applies_on_the_server_after_it_applied_on_the_client(kubectl: Kubectl, namespace: str) -> None:
    assert kubectl("-n", namespace, "apply", "-f", "-", given=yaml.safe_dump(configmap("conf", a="1", b="2"))).returncode == 0
    done = kubectl("-n", namespace, "apply", "--server-side", "-f", "-", given=yaml.safe_dump(configmap("conf", a="3")))
    assert done.returncode == 0, done.stderr
    assert json.loads(kubectl("-n", namespace, "get", "cm", "conf", "-o", "json").stdout)["data"] == {"a": "3"}


def test_kubectl_refuses_an_unknown_field_by_asking_the_server(kubectl: Kubectl, namespace: str) -> None:
    body = {**configmap("odd"), "colour": "red"}
    done = kubectl("-n", namespace, "apply", "-f", "-", given=yaml.safe_dump(body))
    assert done.returncode != 0
    assert 'unknown field "colour"' in done.stderr


def test_kubectl_shows_differences_and_dry_runs(kubectl: Kubectl, namespace: str) -> None:
    given = yaml.safe_dump(configmap("dry", a="1"))
    assert "created (server dry run)" in kubectl("-n", namespace, "apply", "--dry-run=server", "-f", "-", given=given).stdout
    assert kubectl("-n", namespace, "get", "cm", "dry").returncode != 0


def test_kubectl_explains_kinds(kubectl: Kubectl) -> None:
    found = kubectl("explain", "pod.spec.containers").stdout
    assert "imagePullPolicy" in found
    assert "<[]EnvVar>" in found


def test_kubectl_scales_labels_patches_and_waits(kubectl: Kubectl, http: Http, namespace: str) -> None:
    http("POST", space(namespace, "statefulsets", group="apps"), statefulset("web"))
    assert kubectl("-n", namespace, "scale", "sts/web", "--replicas=1").returncode == 0
    assert kubectl("-n", namespace, "label", "sts/web", "tier=front").returncode == 0
    assert kubectl("-n", namespace, "patch", "sts/web", "-p", '{"spec":{"replicas":0}}').returncode == 0
    found = json.loads(kubectl("-n", namespace, "get", "sts/web", "-o", "json").stdout)
    assert (found["spec"]["replicas"], found["metadata"]["labels"]) == (0, {"tier": "front"})


def test_kubectl_shows_tables_by_label_and_field(kubectl: Kubectl, http: Http, namespace: str) -> None:
    http("POST", space(namespace, "pods"), pod("shown"))
    lines = kubectl("-n", namespace, "get", "po", "-o", "wide").stdout.splitlines()
    assert lines[0].split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert lines[1].split()[:3] == ["shown", "0/1", "Pending"]
    assert "No resources found" in kubectl("-n", namespace, "get", "po", "--field-selector=status.phase=Running").stderr


def test_kubectl_describes_and_deletes(kubectl: Kubectl, http: Http, namespace: str) -> None:
    http("POST", space(namespace, "pods"), pod("told"))
    assert "Status:" in kubectl("-n", namespace, "describe", "pod", "told").stdout
    assert kubectl("-n", namespace, "delete", "pod", "told").returncode == 0
    wait_for(lambda: http("GET", space(namespace, "pods", "told")).code == 404, "the pod to go")


def test_kubectl_without_the_right_token_is_turned_away(kubectl: Kubectl) -> None:
    done = kubectl("--token", "wrong", "get", "pods")
    assert done.returncode != 0
    assert "Unauthorized" in done.stderr or "logged in" in done.stderr
