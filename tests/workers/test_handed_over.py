"""Clusters that have a queue of their own: the portal hands the waiting over, and tells what that queue says.

The real embedded cluster with the queues' custom resources; who decides is a stand-in of a few lines that does to pods and
objects what the queue's own controller does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config

from k8s import cluster as api
from k8s import names
from k8s.cluster import Cluster
from portal.catalogue.loader import load
from portal.domain import services
from portal.domain.errors import Conflict
from tests.embedded import EmbeddedCluster
from workers import queues, teams
from workers.specs import environment_spec

from .conftest import World, make_world, row
from .test_converge import Site

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def definition(group: str, version: str, kind: str, plural: str, *, namespaced: bool = True) -> dict[str, Any]:
    """A custom resource that takes any spec, status as a subresource."""
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": free, "status": free}, "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced" if namespaced else "Cluster",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def _running(folder: Any, *definitions: dict[str, Any]) -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster(folder) as embedded:
        extensions = client.ApiextensionsV1Api(config.new_client_from_config(str(embedded.kubeconfig)))
        for document in definitions:
            extensions.create_custom_resource_definition(document)
        yield embedded


@pytest.fixture(scope="module")
def with_volcano(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    yield from _running(tmp_path_factory.mktemp("volcano"), definition("scheduling.volcano.sh", "v1beta1", "PodGroup", "podgroups"))


@pytest.fixture(scope="module")
def with_kueue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    yield from _running(
        tmp_path_factory.mktemp("kueue"),
        definition("kueue.x-k8s.io", "v1beta2", "Workload", "workloads"),
        definition("kueue.x-k8s.io", "v1beta2", "WorkloadPriorityClass", "workloadpriorityclasses", namespaced=False),
    )


class Volcano:
    """Volcano's part: says of a PodGroup why it waits, or gives all of its pods a node at once."""

    def __init__(self, embedded: EmbeddedCluster) -> None:
        api_client = config.new_client_from_config(str(embedded.kubeconfig))
        self.core, self.custom = client.CoreV1Api(api_client), client.CustomObjectsApi(api_client)

    def _status(self, group: dict[str, Any], status: dict[str, Any]) -> None:
        place = (group["metadata"]["namespace"], "podgroups", group["metadata"]["name"])
        self.custom.patch_namespaced_custom_object_status("scheduling.volcano.sh", "v1beta1", *place, {"status": status})

    def refuse(self, group: dict[str, Any], message: str) -> None:
        self._status(group, {"phase": "Pending", "conditions": [{"type": "Unschedulable", "status": "True", "message": message}]})

    def admit(self, group: dict[str, Any], node: str) -> None:
        metadata = group["metadata"]
        pods = self.core.list_namespaced_pod(metadata["namespace"]).items
        gang = [pod for pod in pods if (pod.metadata.annotations or {}).get("scheduling.k8s.io/group-name") == metadata["name"]]
        assert len(gang) == group["spec"]["minMember"]
        assert {pod.spec.scheduler_name for pod in gang} == {"volcano"}
        for pod in gang:
            target = client.V1ObjectReference(api_version="v1", kind="Node", name=node)
            body = client.V1Binding(metadata=client.V1ObjectMeta(name=pod.metadata.name), target=target)
            self.core.create_namespaced_pod_binding(pod.metadata.name, metadata["namespace"], body, _preload_content=False)
        self._status(group, {"phase": "Running"})


@pytest.fixture
def world(transactional_db: None) -> World:
    load()
    return make_world()


@pytest.fixture
def site_on(world: World) -> Iterator[Any]:
    made: list[Cluster] = []

    def make(embedded: EmbeddedCluster) -> Site:
        teams.forget()
        made.append(Cluster(embedded.kubeconfig))
        return Site(world, made[-1])

    yield make
    for cluster in made:
        cluster.close()


def test_volcano_decides_and_the_portal_tells(site_on: Any, with_volcano: EmbeddedCluster) -> None:
    site, volcano = site_on(with_volcano), Volcano(with_volcano)
    assert queues.system_of(site.cluster) == "volcano"
    environment = site.world.request("gang", params={"workers": 2})
    waiting = site.until(environment, lambda now: now.queue.get("code") == "WaitingForVolcano", "the hand-over")
    assert (waiting.state, waiting.placement["queue"]) == ("queued", "volcano")
    name = names.object_name("gang", str(environment.pk))
    group = site.cluster.get(api.POD_GROUPS, name, "atelier-vision")
    assert group is not None
    assert (group["spec"]["minMember"], group["spec"]["priorityClassName"]) == (3, "atelier-normal")
    assert site.cluster.get(api.PRIORITY_CLASSES, "atelier-normal")["value"] == 50  # type: ignore[index]
    volcano.refuse(group, "3/3 tasks in gang unschedulable")
    told = site.until(environment, lambda now: "tasks in gang" in now.queue.get("message", ""), "Volcano's words")
    assert told.queue["position"] is None
    site.until(environment, lambda now: len(pods_of(site, environment)) == 3, "the gang's pods")
    node = next(item["metadata"]["name"] for item in site.cluster.find(api.NODES) if names.SIMULATED not in item["metadata"]["labels"])
    volcano.admit(group, node)
    running = site.until_state(environment, "running")
    assert running.queue == {}
    services.environment_delete(actor=site.world.alice, environment_id=environment.pk)
    site.until_state(environment, "deleted")
    assert site.left(environment) == []
    assert site.cluster.get(api.POD_GROUPS, name, "atelier-vision") is None


def pods_of(site: Site, environment: Any) -> list[dict[str, Any]]:
    return site.cluster.find(api.PODS, "atelier-vision", labels=f"{names.ENVIRONMENT}={environment.pk}")


def test_kueue_sees_one_gang_and_the_portal_tells_what_it_says(site_on: Any, with_kueue: EmbeddedCluster) -> None:
    site = site_on(with_kueue)
    api_client = config.new_client_from_config(str(with_kueue.kubeconfig))
    custom = client.CustomObjectsApi(api_client)
    assert queues.system_of(site.cluster) == "kueue"
    # No webhook here that would put a gate on pods that name a queue; test_queues.py has the gated ones.
    environment = site.world.request("gang", params={"workers": 1})
    spec_name = names.object_name("gang", str(environment.pk))
    site.until(environment, lambda now: len(pods_of(site, environment)) == 2, "the gang's pods")
    pods = pods_of(site, environment)
    assert {pod["metadata"]["labels"]["kueue.x-k8s.io/pod-group-name"] for pod in pods} == {spec_name}
    assert {pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] for pod in pods} == {"atelier"}
    assert site.cluster.get(api.WORKLOAD_PRIORITIES, "atelier-normal")["value"] == 50  # type: ignore[index]
    site.until_state(environment, "running")  # nothing gates it here
    with pytest.raises(Conflict, match="Kueue"):
        services.environment_scale(actor=site.world.alice, environment_id=environment.pk, workers=2)

    # what is told of one that waits
    workload = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": {"name": spec_name}, "spec": {}}
    place = ("kueue.x-k8s.io", "v1beta2", "atelier-vision", "workloads")
    custom.create_namespaced_custom_object(*place, workload)
    condition = {"type": "QuotaReserved", "status": "False", "reason": "WaitingForQuota", "message": "1 more needed"}
    custom.patch_namespaced_custom_object_status(*place, spec_name, {"status": {"conditions": [condition]}})
    told = queues.told(site.cluster, environment_spec(row(environment.pk)), pods)
    assert told["code"] == "WaitingForQuota"
    assert "1 more needed" in told["message"]
