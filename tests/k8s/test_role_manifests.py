"""What a role of a template may ask for, as whole documents, validated against Kubernetes' own schemas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from k8s import manifests
from k8s.spec import Port, Probe, Role, Scratch, SecretKey, SecretMount

from .factories import OWNER, SMALL, cluster_spec, labels
from .test_manifests import CONTAINER_SECURITY, POD_ENV, POD_INDEX, POD_SECURITY

AMOUNTS = {"cpu": "500m", "memory": "1073741824"}
RICH = Role(
    name="worker",
    replicas=3,
    image="example/worker:1",
    resources=replace(SMALL, shm_bytes=2**28),
    command=("serve",),
    env={"PLAIN": "x", "POD_IP": "not this", "COOKIE": "not this either"},
    secret_env={"COOKIE": SecretKey(secret="cookie", key="value")},
    ports=(Port(name="comm", number=7000),),
    readiness=Probe(port="comm", path="/ready", period_seconds=3),
    liveness=Probe(command=("alive", "--quick"), period_seconds=20, failure_threshold=5),
    startup=Probe(port="comm", failure_threshold=60),
    volumes=(Scratch(mount_path="/spill", size_bytes=20 * 2**30), Scratch(mount_path="/fast", size_bytes=2**30, memory=True)),
    secret_mounts=(SecretMount(secret="ssh", mount_path="/etc/ssh-keys"),),
    files={"/opt/conf/b c.yaml": "b: 1\n", "/etc/a.conf": "a\n"},
    stop_command=("drain", "--now"),
    stop_seconds=120,
)


def valid(document: dict[str, Any]) -> dict[str, Any]:
    kubernetes_validate.validate(document, "1.36", strict=True)
    return document


def template_of(role: Role) -> dict[str, Any]:
    return valid(manifests.role_runner(cluster_spec(roles=(role,)), role, OWNER))["spec"]["template"]


def test_a_role_has_all_that_it_asks_for() -> None:
    template = template_of(RICH)
    assert template["metadata"]["annotations"] == {"atelier.dev/owner-name": "alice", "atelier.dev/files-hash": "a2816da03b5818fc"}
    assert template["spec"] == {
        "containers": [
            {
                "name": "worker",
                "image": "example/worker:1",
                "command": ["serve"],
                "env": [
                    *POD_ENV,
                    POD_INDEX,
                    {"name": "COOKIE", "valueFrom": {"secretKeyRef": {"name": "grid-0193aabb-cookie", "key": "value"}}},
                    {"name": "HOME", "value": "/scratch"},
                    {"name": "PLAIN", "value": "x"},
                ],
                "workingDir": "/scratch",
                "ports": [{"name": "comm", "containerPort": 7000, "protocol": "TCP"}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "comm"}, "periodSeconds": 3, "timeoutSeconds": 2, "failureThreshold": 3},
                "livenessProbe": {"exec": {"command": ["alive", "--quick"]}, "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 5},
                "startupProbe": {"tcpSocket": {"port": "comm"}, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 60},
                "lifecycle": {"preStop": {"exec": {"command": ["drain", "--now"]}}},
                "resources": {"requests": AMOUNTS, "limits": AMOUNTS},
                "securityContext": CONTAINER_SECURITY,
                "volumeMounts": [
                    {"name": "scratch", "mountPath": "/scratch"},
                    {"name": "shm", "mountPath": "/dev/shm"},
                    {"name": "volume-0", "mountPath": "/spill"},
                    {"name": "volume-1", "mountPath": "/fast"},
                    {"name": "secret-0", "mountPath": "/etc/ssh-keys", "readOnly": True},
                    {"name": "files", "mountPath": "/etc/a.conf", "subPath": "0.a.conf", "readOnly": True},
                    {"name": "files", "mountPath": "/opt/conf/b c.yaml", "subPath": "1.b_c.yaml", "readOnly": True},
                ],
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": "64Gi"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "268435456"}},
            {"name": "volume-0", "emptyDir": {"sizeLimit": "21474836480"}},
            {"name": "volume-1", "emptyDir": {"medium": "Memory", "sizeLimit": "1073741824"}},
            {"name": "secret-0", "secret": {"secretName": "grid-0193aabb-ssh", "defaultMode": 0o400}},
            {"name": "files", "configMap": {"name": "grid-0193aabb-worker"}},
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 120,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
    }


def test_a_roles_files_are_one_config_map() -> None:
    (document,) = manifests.file_documents(cluster_spec(roles=(RICH, replace(RICH, name="bare", files={}))), OWNER)
    assert valid(document) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "grid-0193aabb-worker",
            "namespace": "atelier-vision",
            "labels": labels(cluster_spec(), "worker"),
            "ownerReferences": [OWNER],
        },
        "data": {"0.a.conf": "a\n", "1.b_c.yaml": "b: 1\n"},
    }


def test_other_texts_in_files_are_other_pods() -> None:
    assert template_of(RICH) != template_of(replace(RICH, files={**RICH.files, "/etc/a.conf": "b\n"}))


def test_a_role_that_has_something_to_do_before_it_stops_gets_time_for_it() -> None:
    assert template_of(replace(RICH, stop_seconds=0))["spec"]["terminationGracePeriodSeconds"] == 30
    assert template_of(replace(RICH, stop_seconds=0, stop_command=()))["spec"]["terminationGracePeriodSeconds"] == 10


def test_a_probe_of_a_port_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        template_of(replace(RICH, liveness=Probe(port="nowhere")))


def test_a_role_that_runs_once_is_an_indexed_job() -> None:
    role = replace(RICH, once=True, files={}, secret_env={}, env={}, readiness=None, liveness=None, startup=None, stop_command=())
    spec = cluster_spec(roles=(role,))
    job = valid(manifests.role_job(spec, role, OWNER))
    pod = job["spec"].pop("template")
    assert job == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "grid-0193aabb-worker", "namespace": "atelier-vision", "labels": labels(spec, "worker"), "ownerReferences": [OWNER]},
        "spec": {
            "completionMode": "Indexed",
            "completions": 3,
            "parallelism": 3,
            "backoffLimitPerIndex": 0,
            "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]},
            "podReplacementPolicy": "Failed",
        },
    }
    assert (pod["spec"]["restartPolicy"], pod["spec"]["subdomain"]) == ("Never", "grid-0193aabb-worker")
    index = {"name": "POD_INDEX", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}}
    assert pod["spec"]["containers"][0]["env"] == [*POD_ENV, index, {"name": "HOME", "value": "/scratch"}]
    assert pod["metadata"]["labels"] == labels(spec, "worker")


def test_each_replica_of_a_job_is_tried_again_by_itself() -> None:
    job = manifests.role_job(cluster_spec(), replace(RICH, once=True, retries=2), OWNER)
    assert valid(job)["spec"]["backoffLimitPerIndex"] == 2


def test_a_secret_is_immutable_and_the_environments() -> None:
    document = manifests.secret_document(cluster_spec(), "cookie", {"value": b"monster"}, OWNER)
    assert valid(document) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {"name": "grid-0193aabb-cookie", "namespace": "atelier-vision", "labels": labels(cluster_spec()), "ownerReferences": [OWNER]},
        "data": {"value": "bW9uc3Rlcg=="},
    }


def test_documents_of_a_cluster_with_files_and_a_job() -> None:
    launcher = replace(RICH, name="launcher", once=True, files={})
    documents = manifests.cluster_documents(cluster_spec(roles=(RICH, launcher)), OWNER)
    assert [(document["kind"], document["metadata"]["name"]) for document in map(valid, documents)] == [
        ("ConfigMap", "grid-0193aabb-worker"),
        ("Service", "grid-0193aabb-worker"),
        ("StatefulSet", "grid-0193aabb-worker"),
        ("Service", "grid-0193aabb-launcher"),
        ("Job", "grid-0193aabb-launcher"),
    ]
