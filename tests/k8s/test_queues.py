"""What Kueue and Volcano are told, whole and against their own schemas, and what is made of their answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from k8s import manifests, names, queues
from k8s.spec import QueueOrder, Topology
from portal.runtime import ROOT

from .factories import GPU, OWNER, SCHEDULER, SMALL, WORKER, cluster_spec, labels, notebook_spec
from .test_manifests import valid

SCHEMAS = ROOT.parent / "shared" / "crds"
KUEUE = QueueOrder(system="kueue", queue="atelier", priority="high")
VOLCANO = QueueOrder(system="volcano", queue="gpu", priority="high")


def fits_its_schema(document: dict[str, Any], file: str) -> dict[str, Any]:
    """Validated against the CRD where its schema is at hand; unknown fields are faults."""
    path = SCHEMAS / file
    if not path.is_file():
        pytest.skip("the schemas of custom resources are not at hand")
    versions = {version["name"]: version["schema"]["openAPIV3Schema"] for version in json.loads(path.read_text())["spec"]["versions"]}
    schema = _strict(versions[document["apiVersion"].split("/")[1]])
    schema["properties"] = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, **schema["properties"], "metadata": {"type": "object"}}
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _strict(value) for key, value in schema.items()}
    closed = "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and closed:
        result["additionalProperties"] = False
    return result


def pod_template(spec, role: str) -> dict[str, Any]:
    sets = [item for item in manifests.cluster_documents(spec, OWNER) if item["kind"] == "StatefulSet"]
    return next(valid(item) for item in sets if item["metadata"]["labels"][names.ROLE] == role)["spec"]["template"]


def test_without_another_queue_nothing_of_it_is_said() -> None:
    text = json.dumps([manifests.cluster_documents(cluster_spec(), OWNER), manifests.notebook_pod(notebook_spec(), OWNER)])
    assert "kueue" not in text
    assert "volcano" not in text


def test_kueue_sees_all_roles_as_one_group() -> None:
    spec = cluster_spec(queue=replace(KUEUE, topology_label="rack", topology_required=True))
    for role in ("scheduler", "worker"):
        metadata = pod_template(spec, role)["metadata"]
        assert metadata["labels"] == {
            **labels(spec),
            names.ROLE: role,
            "kueue.x-k8s.io/queue-name": "atelier",
            "kueue.x-k8s.io/priority-class": "atelier-high",
            "kueue.x-k8s.io/pod-group-name": "grid-0193aabb",
        }
        assert metadata["annotations"] == {
            names.OWNER_NAME: "alice",
            "kueue.x-k8s.io/pod-group-total-count": "3",
            "kueue.x-k8s.io/pod-group-serving": "true",
            "kueue.x-k8s.io/role-hash": role,
            "kueue.x-k8s.io/pod-suspending-parent": "atelier",
            "kueue.x-k8s.io/podset-required-topology": "rack",
        }


def test_kueue_holds_a_job_back_with_the_rest_of_its_environment() -> None:
    launcher = replace(WORKER, name="launcher", once=True, scalable=False)
    documents = manifests.cluster_documents(cluster_spec(queue=KUEUE, roles=(SCHEDULER, launcher)), OWNER)
    job = next(valid(document) for document in documents if document["kind"] == "Job")
    assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]  # else it would be a workload of its own
    pod = job["spec"]["template"]["metadata"]
    assert pod["labels"]["kueue.x-k8s.io/pod-group-name"] == "grid-0193aabb"
    assert pod["annotations"]["kueue.x-k8s.io/pod-group-total-count"] == "3"
    assert pod["annotations"]["kueue.x-k8s.io/pod-suspending-parent"] == "atelier"


def test_kueue_sees_a_notebook_as_a_single_pod() -> None:
    pod = valid(manifests.notebook_pod(notebook_spec(queue=KUEUE), OWNER))
    assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "atelier"
    assert "kueue.x-k8s.io/pod-group-name" not in pod["metadata"]["labels"]
    assert "kueue.x-k8s.io/pod-group-total-count" not in pod["metadata"]["annotations"]


def test_volcano_gets_a_group_of_all_replicas() -> None:
    worker = replace(WORKER, resources=replace(SMALL, devices=GPU))
    spec = cluster_spec(queue=replace(VOLCANO, topology_label="rack", topology_required=False), roles=(SCHEDULER, worker))
    (group,) = [item for item in manifests.cluster_documents(spec, OWNER) if item["kind"] == "PodGroup"]
    assert fits_its_schema(group, "podgroups.scheduling.volcano.sh.json") == {
        "apiVersion": "scheduling.volcano.sh/v1beta1",
        "kind": "PodGroup",
        "metadata": {"name": "grid-0193aabb", "namespace": "atelier-vision", "labels": labels(spec), "ownerReferences": [OWNER]},
        "spec": {
            "minMember": 3,
            "queue": "gpu",
            "minResources": {"cpu": "1500m", "memory": str(3 * 2**30), "nvidia.com/gpu": "4"},
            "priorityClassName": "atelier-high",
            "networkTopology": {"mode": "soft", "highestTierAllowed": 1},
        },
    }
    template = pod_template(spec, "worker")
    assert template["spec"]["schedulerName"] == "volcano"  # not the accelerator's: a gang needs one scheduler
    assert template["metadata"]["annotations"]["scheduling.k8s.io/group-name"] == "grid-0193aabb"


def test_priority_classes() -> None:
    ours = {"name": "atelier-high", "labels": {names.MANAGED_BY: "atelier", names.INSTALL: "abc123"}}
    kueue = queues.priority_class("kueue", "abc123", "high", 90)
    assert fits_its_schema(kueue, "workloadpriorityclasses.kueue.x-k8s.io.json") == {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "WorkloadPriorityClass",
        "metadata": ours,
        "value": 90,
    }
    assert valid(queues.priority_class("volcano", "abc123", "high", 90))["preemptionPolicy"] == "Never"


@pytest.mark.parametrize("required", [True, False])
def test_one_topology_domain_for_all_replicas(required: bool) -> None:
    spec = cluster_spec(topology=Topology(key="example.com/rack", value="r7", required=required))
    term = {"matchExpressions": [{"key": "example.com/rack", "operator": "In", "values": ["r7"]}]}
    expected = (
        {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        if required
        else {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
    )
    for role in ("scheduler", "worker"):
        assert pod_template(spec, role)["spec"]["affinity"] == {"nodeAffinity": expected}


# --- what they tell ------------------------------------------------------------


def pod(*, gated: bool = False, node: str = "", going: bool = False) -> dict[str, Any]:
    metadata: dict[str, Any] = {"uid": "u"} | ({"deletionTimestamp": "2026-11-22T20:00:00Z"} if going else {})
    return {"metadata": metadata, "spec": ({"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]} if gated else {}) | ({"nodeName": node} if node else {})}


@pytest.mark.parametrize(
    ("system", "pods", "held"),
    [
        ("kueue", [], True),
        ("kueue", [pod(gated=True), pod(gated=True)], True),
        ("kueue", [pod(), pod(gated=True)], True),
        ("kueue", [pod(), pod()], False),
        ("kueue", [pod(), pod(going=True)], True),
        ("volcano", [pod(), pod()], True),
        ("volcano", [pod(node="a"), pod()], True),
        ("volcano", [pod(node="a"), pod(node="b")], False),
    ],
)
def test_held(system: str, pods: list[dict[str, Any]], held: bool) -> None:
    assert queues.is_held(system, pods, cluster_spec(roles=(replace(WORKER, replicas=2),))) is held


def test_pods_that_come_one_by_one_are_let_go_when_each_role_has_its_first() -> None:
    def of(role: str, **more: Any) -> dict[str, Any]:
        one = pod(**more)
        one["metadata"]["labels"] = {names.ROLE: role}
        return one

    spec = cluster_spec(gang=False)
    assert queues.is_held("kueue", [of("scheduler"), of("worker", gated=True), of("worker", gated=True)], spec)
    assert not queues.is_held("kueue", [of("scheduler"), of("worker", gated=True), of("worker")], spec)
    assert queues.is_held("volcano", [of("worker", node="a"), of("worker", node="b"), of("scheduler")], spec)
    assert not queues.is_held("volcano", [of("worker", node="a"), of("worker"), of("scheduler", node="a")], spec)
    metadata = pod_template(replace(spec, queue=KUEUE), "worker")["metadata"]
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "atelier"
    assert "pod-group" not in json.dumps(metadata)
    [group] = manifests.queue_documents(replace(spec, queue=VOLCANO), OWNER)
    both = replace(spec, roles=tuple(replace(role, replicas=1) for role in spec.roles), gang=True, queue=VOLCANO)
    assert group["spec"] == manifests.queue_documents(both, OWNER)[0]["spec"]
    assert group["spec"]["minMember"] == 2


def workload(**conditions: tuple[str, str, str]) -> dict[str, Any]:
    rows = [
        {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-11-22T20:00:00Z"}
        for kind, (status, reason, message) in conditions.items()
    ]
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "Workload",
        "metadata": {"name": "grid-0193aabb", "namespace": "atelier-vision"},
        "status": {"conditions": rows},
    }


def test_kueue_tells_position_and_cause() -> None:
    item = workload(QuotaReserved=("False", "WaitingForQuota", "insufficient unused quota for nvidia.com/gpu in flavor a100, 1 more needed"))
    fits_its_schema(item | {"spec": {"podSets": [{"name": "main", "count": 1, "template": {"spec": {"containers": []}}}]}}, "workloads.kueue.x-k8s.io.json")
    pending = [
        {"metadata": {"name": name}, "priority": 0, "localQueueName": "atelier", "positionInClusterQueue": place, "positionInLocalQueue": place}
        for place, name in enumerate(["other", "another", "grid-0193aabb"])
    ]
    assert queues.told_by_kueue("atelier", item, pending) == {
        "position": 3,
        "ahead": 2,
        "code": "WaitingForQuota",
        "message": (
            "waiting in Kueue's queue atelier, 2 ahead: the queue's quota is in use "
            "(insufficient unused quota for nvidia.com/gpu in flavor a100, 1 more needed)"
        ),
        "eta": None,
    }


def test_kueue_that_has_not_looked_yet_or_shows_no_positions() -> None:
    assert queues.told_by_kueue("atelier", None, [])["code"] == "WaitingForKueue"
    told = queues.told_by_kueue("atelier", workload(QuotaReserved=("True", "QuotaReserved", "")), [])
    assert told["position"] is None
    assert "quota is reserved" in told["message"]


def test_volcano_tells_the_cause() -> None:
    group = {"status": {"phase": "Pending", "conditions": [{"type": "Unschedulable", "status": "True", "message": "3/3 tasks in gang unschedulable"}]}}
    assert queues.told_by_volcano("gpu", group)["message"] == "waiting in Volcano's queue gpu (3/3 tasks in gang unschedulable)"
    assert queues.told_by_volcano("gpu", None)["code"] == "WaitingForVolcano"


def test_the_workload_of_a_notebook_is_found_by_its_pod() -> None:
    mine = {"metadata": {"name": "pod-lab-0193aabb-1234", "ownerReferences": [{"uid": "u"}]}}
    other = {"metadata": {"name": "lab-0193aabb", "ownerReferences": [{"uid": "x"}]}}
    assert queues.workload_of(notebook_spec(), [other, mine], [pod()]) is mine
    assert queues.workload_of(cluster_spec(), [workload()], [])["metadata"]["name"] == "grid-0193aabb"
    assert queues.workload_of(cluster_spec(), [other], []) is None
