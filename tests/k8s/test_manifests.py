"""Documents of environments, compared whole and validated against Kubernetes' own schemas."""

from __future__ import annotations

import json

import kubernetes_validate
import pytest

from k8s import manifests, names
from k8s.spec import Probe

from .factories import OWNER, SCHEDULER, cluster_spec, labels, notebook_spec

POD_ENV = [
    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
    {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
]
POD_INDEX = {"name": "POD_INDEX", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}}}
CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 100,
    "fsGroup": 100,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def valid(document: dict) -> dict:
    kubernetes_validate.validate(document, "1.36", strict=True)
    return document


def test_the_parent_names_the_environment_and_its_expiry() -> None:
    spec = notebook_spec()
    assert valid(manifests.parent(spec)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "lab-0193aabb",
            "namespace": "atelier-vision",
            "labels": labels(spec),
            "annotations": {"atelier.dev/owner-name": "alice", "atelier.dev/expires-at": "2026-11-22T20:00:00+00:00"},
        },
        "data": {"environment": spec.id, "name": "lab", "kind": "notebook", "team": "vision", "owner": "alice"},
    }


def test_a_home_claim_outlives_its_environment() -> None:
    spec = notebook_spec()
    expected = labels(spec)
    del expected["atelier.dev/environment"]
    assert valid(manifests.home_claim(spec)) == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "home-lab-1234",
            "namespace": "atelier-vision",
            "labels": expected,
            "annotations": {"atelier.dev/owner-name": "alice"},
        },
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10737418240"}}},
    }


def test_a_notebook_pod_is_complete_but_for_the_hubs_variables() -> None:
    spec = notebook_spec()
    amounts = {"cpu": "500m", "memory": "1073741824", "nvidia.com/gpu": "2"}
    assert valid(manifests.notebook_pod(spec, OWNER)) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "lab-0193aabb",
            "namespace": "atelier-vision",
            "labels": labels(spec, "notebook"),
            "annotations": {
                "atelier.dev/owner-name": "alice",
                "nvidia.com/use-gputype": "A100",
                "atelier.dev/expires-at": "2026-11-22T20:00:00+00:00",
            },
            "ownerReferences": [OWNER],
        },
        "spec": {
            "containers": [
                {
                    "name": "notebook",
                    "image": "jupyterhub/singleuser:6.1",
                    "command": ["jupyterhub-singleuser"],
                    "env": [
                        *POD_ENV,
                        {"name": "HOME", "value": "/home/jovyan"},
                        {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"},
                        {"name": "MODE", "value": "lab"},
                    ],
                    "workingDir": "/home/jovyan",
                    "ports": [{"name": "notebook", "containerPort": 8888, "protocol": "TCP"}],
                    "resources": {"requests": amounts, "limits": amounts},
                    "securityContext": CONTAINER_SECURITY,
                    "volumeMounts": [
                        {"name": "home", "mountPath": "/home/jovyan"},
                        {"name": "clusters", "mountPath": "/etc/atelier", "readOnly": True},
                        {"name": "shm", "mountPath": "/dev/shm"},
                    ],
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                }
            ],
            "volumes": [
                {"name": "home", "persistentVolumeClaim": {"claimName": "home-lab-1234"}},
                {"name": "clusters", "configMap": {"name": "clusters-alice", "optional": True}},
                {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "268435456"}},
            ],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 10,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            "nodeSelector": {"pool": "dev", "nvidia.com/gpu.product": "A100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "runtimeClassName": "nvidia",
            "schedulerName": "hami-scheduler",
        },
    }


def test_a_role_has_a_headless_service() -> None:
    spec = cluster_spec()
    assert valid(manifests.role_service(spec, SCHEDULER, OWNER)) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "grid-0193aabb-scheduler",
            "namespace": "atelier-vision",
            "labels": labels(spec, "scheduler"),
            "ownerReferences": [OWNER],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"atelier.dev/environment": spec.id, "atelier.dev/role": "scheduler"},
            "ports": [
                {"name": "comm", "port": 8786, "targetPort": "comm", "protocol": "TCP"},
                {"name": "dashboard", "port": 8787, "targetPort": "dashboard", "protocol": "TCP"},
            ],
        },
    }


def test_a_role_is_a_stateful_set_of_restricted_pods() -> None:
    spec = cluster_spec()
    amounts = {"cpu": "500m", "memory": "1073741824"}
    assert valid(manifests.role_set(spec, SCHEDULER, OWNER)) == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": "grid-0193aabb-scheduler",
            "namespace": "atelier-vision",
            "labels": labels(spec, "scheduler"),
            "ownerReferences": [OWNER],
        },
        "spec": {
            "replicas": 1,
            "serviceName": "grid-0193aabb-scheduler",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"atelier.dev/environment": spec.id, "atelier.dev/role": "scheduler"}},
            "template": {
                "metadata": {"labels": labels(spec, "scheduler"), "annotations": {"atelier.dev/owner-name": "alice"}},
                "spec": {
                    "containers": [
                        {
                            "name": "scheduler",
                            "image": "daskdev/dask:1",
                            "command": ["dask", "scheduler"],
                            "args": ["--host", "$(POD_IP)"],
                            "env": [*POD_ENV, POD_INDEX, {"name": "HOME", "value": "/scratch"}],
                            "workingDir": "/scratch",
                            "ports": [
                                {"name": "comm", "containerPort": 8786, "protocol": "TCP"},
                                {"name": "dashboard", "containerPort": 8787, "protocol": "TCP"},
                            ],
                            "readinessProbe": {"tcpSocket": {"port": "comm"}, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 3},
                            "resources": {"requests": amounts, "limits": amounts},
                            "securityContext": CONTAINER_SECURITY,
                            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                        }
                    ],
                    "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "64Gi"}}],
                    "restartPolicy": "Always",
                    "terminationGracePeriodSeconds": 10,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": POD_SECURITY,
                },
            },
        },
    }


def test_every_document_of_a_cluster_is_valid() -> None:
    documents = manifests.cluster_documents(cluster_spec(), OWNER)
    assert [(document["kind"], document["metadata"]["name"]) for document in map(valid, documents)] == [
        ("Service", "grid-0193aabb-scheduler"),
        ("StatefulSet", "grid-0193aabb-scheduler"),
        ("Service", "grid-0193aabb-worker"),
        ("StatefulSet", "grid-0193aabb-worker"),
    ]


def test_extending_does_not_touch_the_pods_of_a_cluster() -> None:
    before, after = cluster_spec(expires_at="2026-11-22T20:00:00+00:00"), cluster_spec(expires_at="2026-11-23T20:00:00+00:00")
    assert manifests.role_set(before, SCHEDULER, OWNER) == manifests.role_set(after, SCHEDULER, OWNER)
    assert manifests.parent(before) != manifests.parent(after)


def test_an_http_probe_asks_for_its_path() -> None:
    role = cluster_spec().roles[0]
    probed = manifests.role_set(cluster_spec(), type(role)(**{**role.__dict__, "readiness": Probe(port="dashboard", path="/health")}), OWNER)
    probe = valid(probed)["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    assert probe["httpGet"] == {"path": "/health", "port": "dashboard"}


def test_a_probe_of_a_port_that_is_not_there_is_an_error() -> None:
    role = cluster_spec().roles[1]
    with pytest.raises(ValueError, match="nowhere"):
        manifests.role_set(cluster_spec(), type(role)(**{**role.__dict__, "readiness": Probe(port="nowhere")}), OWNER)


def test_clusters_of_an_owner_are_told_in_json() -> None:
    document = valid(manifests.clusters_config(namespace="atelier-vision", install="abc123", owner="Ada L.", entries=[{"name": "网格", "env": {}}]))
    assert document["metadata"]["name"] == f"clusters-{names.label_value('Ada L.')}"
    assert names.ENVIRONMENT not in document["metadata"]["labels"]
    assert json.loads(document["data"]["clusters.json"]) == [{"name": "网格", "env": {}}]


def test_a_seal_depends_on_the_whole_document() -> None:
    one, same, other = (manifests.sealed(manifests.parent(cluster_spec(name=name))) for name in ("a", "a", "b"))
    key = manifests.SPEC_HASH
    assert one == same
    assert one["metadata"]["annotations"][key] != other["metadata"]["annotations"][key]
    assert key not in manifests.parent(cluster_spec())["metadata"]["annotations"]


@pytest.mark.parametrize("name", ["a", "n" * 40, "two--hyphens---in-a-row", "ends-at-twenty-one-x-here"])
def test_a_base_name_is_one_that_the_hub_takes_as_a_servers_name(name: str) -> None:
    from jupyterhub.slugs import is_valid_safe_slug

    base = names.object_name(name, "0a1b2c3d-0000-0000-0000-000000000000")
    assert is_valid_safe_slug(base)
    assert base.endswith("-0a1b2c3d")
