"""What goes wrong in a cluster, and what becomes of it: real rows, the real embedded cluster, faults made as an operator would see them."""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from k8s import cluster as api
from k8s import errors, names
from k8s.cluster import Cluster
from portal.domain import selectors, services
from portal.domain.models import Environment, Event, Quota
from tests.stack import wait_until
from workers import actions, lease, looking
from workers import converge as converging
from workers.context import Context, selector
from workers.converge import converge
from workers.hub import Hub

from .conftest import row
from .test_converge import Site, cluster, codes, site, small, states

__all__ = ["cluster", "site"]
pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]

CLUSTER_OPTIONS = ("--node-grace", "4", "--toleration-seconds", "1")  # nodes are given up soon, and their pods at once
NAMESPACE = "atelier-vision"


@pytest.fixture
def nobody(tmp_path: Path) -> tuple[Cluster, Hub]:
    """A cluster and a Hub that do not answer."""
    return Cluster(tmp_path / "no-kubeconfig"), Hub("http://127.0.0.1:9/hub/api", "none")


def patch(cluster: Cluster, path: str, body: dict[str, Any]) -> None:
    cluster._json("PATCH", path, body=body, content_type="application/merge-patch+json")


def told(environment: Environment, code: str) -> str:
    """The message of its newest event with a code."""
    return Event.objects.filter(environment=environment, code=code).order_by("-seq").values_list("message", flat=True)[0]


def pod_of(site: Site, environment: Environment, role: str) -> dict[str, Any]:
    (found,) = site.cluster.find(api.PODS, NAMESPACE, labels=f"{names.ENVIRONMENT}={environment.pk},{names.ROLE}={role}")
    return found


def is_up(environment: Environment) -> bool:
    return environment.state == "running" and all(item["ready"] for item in environment.observed["replicas"])


def lose(site: Site, node: str, lost: str) -> None:
    patch(site.cluster, f"/api/v1/nodes/{node}", {"metadata": {"annotations": {"atelier.dev/lost": lost}}})


# --- pods and nodes ----------------------------------------------------------------


def test_replicas_of_a_lost_node_are_given_up_there_and_come_back_elsewhere(site: Site, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_OVERDUE", timedelta(seconds=1))
    settings.NODE_SELECTOR = {"nvidia.com/gpu.present": "true"}
    environment = small(site.world.request(params={"workers": 1}))
    up = site.until_state(environment, "running")
    nodes = {item["node"] for item in up.observed["replicas"]}
    before = {item["name"]: pod_of(site, environment, item["role"])["metadata"]["uid"] for item in up.observed["replicas"]}
    (lost, *others) = sorted(nodes)
    lose(site, lost, "true")
    try:
        site.until(environment, lambda now: now.reason == "NodeLost", "the reason")
        back = site.until(environment, lambda now: is_up(now) and lost not in {item["node"] for item in now.observed["replicas"]}, "the replicas elsewhere")
    finally:
        lose(site, lost, "false")
    assert {item["node"] for item in back.observed["replicas"]} <= {"sim-gpu-1", "sim-gpu-2"} - {lost} | set(others)
    assert "no longer answers" in told(environment, "NodeLost")
    after = {item["name"]: pod_of(site, environment, item["role"])["metadata"]["uid"] for item in back.observed["replicas"]}
    moved = {item["name"] for item in up.observed["replicas"] if item["node"] == lost}
    assert {name for name in before if before[name] != after[name]} == moved


def test_a_run_on_a_lost_node_begins_again_elsewhere_and_counts_as_no_try(site: Site, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_OVERDUE", timedelta(seconds=1))
    settings.NODE_SELECTOR = {"nvidia.com/gpu.present": "true"}
    environment = small(site.world.request(params={"workers": 1}))
    spec = environment.template_spec | {"success": {"role": "worker"}}
    spec["roles"][1] |= {"run": "once"}
    Environment.objects.filter(pk=environment.pk).update(template_spec=spec)
    up = site.until_state(environment, "running")
    (first,) = [item for item in up.observed["replicas"] if item["role"] == "worker"]
    lose(site, first["node"], "true")
    try:
        site.until(environment, lambda now: now.reason == "NodeLost", "the reason")
        back = site.until(environment, lambda now: is_up(now) and first["name"] not in {item["name"] for item in now.observed["replicas"]}, "another try")
    finally:
        lose(site, first["node"], "false")
    assert first["node"] not in {item["node"] for item in back.observed["replicas"]}
    assert "failed" not in states(environment)


STUBBORN = ["python", "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(3600)"]


def stubborn(site: Site, workers: int) -> Environment:
    """A running environment whose workers no longer end at once when they are told to: before they say so, they do."""
    environment = small(site.world.request(params={"workers": workers}), command=STUBBORN)
    site.until_state(environment, "running")

    for pod in site.cluster.find(api.PODS, NAMESPACE, labels=f"{names.ENVIRONMENT}={environment.pk},{names.ROLE}=worker"):
        name = pod["metadata"]["name"]
        wait_until(lambda name=name: b"here" in site.cluster.read_log(NAMESPACE, name, "worker", max_bytes=100)[0], f"the first word of {name}")
    return environment


def test_while_a_replica_is_on_its_way_out_the_next_look_is_soon(site: Site) -> None:
    """That it is gone may be told to nobody, and what is up is looked at only once a minute."""
    environment = stubborn(site, workers=2)
    services.environment_scale(actor=site.world.alice, environment_id=environment.pk, workers=1)

    def leaving() -> bool:
        pods = site.cluster.find(api.PODS, "atelier-vision", labels=f"{names.ENVIRONMENT}={environment.pk}")
        return any(pod["metadata"].get("deletionTimestamp") for pod in pods)

    site.until(environment, lambda now: leaving(), "a worker to be told to end")
    seen = site.look(environment)
    assert seen.state == "running"
    assert seen.next_check_at < timezone.now() + timedelta(seconds=30)


def test_a_pod_that_only_takes_long_to_end_is_not_given_up_on_a_living_node(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_OVERDUE", timedelta(seconds=-3600))  # every pod that is being deleted is overdue
    environment = stubborn(site, workers=1)
    pod = pod_of(site, environment, "worker")
    site.cluster.delete(pod)
    ending = pod_of(site, environment, "worker")
    context = Context(environment=row(environment.pk), cluster=site.cluster, hub=site.hub)
    assert looking.stuck([ending])
    assert actions.release(context, [ending]) == 0
    assert "NodeLost" not in codes(environment)


def test_an_evicted_replica_is_replaced_and_told(site: Site) -> None:
    environment = small(site.world.request(params={"workers": 1}))
    site.until_state(environment, "running")
    pod = pod_of(site, environment, "scheduler")
    name, first = pod["metadata"]["name"], pod["metadata"]["uid"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    site.cluster._json("POST", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction", body=eviction)
    site.until(environment, lambda now: "Evicted" in codes(now) or now.reason == "Evicted", "the reason")
    site.until(environment, lambda now: is_up(now) and pod_of(site, now, "scheduler")["metadata"]["uid"] != first, "the scheduler to be back")
    assert "failed" not in states(environment)


def test_a_command_that_runs_out_of_memory_fails_with_the_limit_and_the_remedy(site: Site) -> None:
    greedy = ["python", "-c", "import time; kept = [bytearray(64 * 2**20) for _ in range(16)]; time.sleep(3600)"]
    environment = small(site.world.request(params={"workers": 1}), command=greedy)
    found = site.until_state(environment, "failed")
    assert found.reason == "OOMKilled"
    assert "limit 128 MiB" in found.message
    assert "more memory" in found.message


# Runs until somebody connects to it, and from then on ends at once, however often it is started.
_FATED = """
import os, socket, sys
if os.path.exists("ended"):
    sys.exit(9)
listener = socket.create_server((os.environ["POD_IP"], 7777))
print("up", flush=True)
listener.accept()
open("ended", "w").close()
sys.exit(9)
"""


def test_a_cluster_that_was_up_and_then_crashes_again_and_again_is_given_up_with_its_cause(site: Site) -> None:
    environment = small(site.world.request(params={"workers": 1}), command=["python", "-c", _FATED])
    up = site.until_state(environment, "running")
    address = next(item["address"] for item in up.observed["replicas"] if item["role"] == "scheduler")

    def reach() -> bool:
        try:
            socket.create_connection((address, 7777), timeout=5).close()
        except OSError:
            return False
        return True

    wait_until(reach, "the process to listen")
    wait_until(lambda: site.look(environment).state == "failed", "it to be given up")
    found = row(environment.pk)
    assert found.reason == "ContainerExited"
    assert "exit code 9 for the 4th time" in found.message, "a container that had been up is given some tries"
    assert "Read the log" in found.message
    assert found.reserved == {}


# --- what the cluster refuses -----------------------------------------------------


def test_a_namespace_that_is_stuck_is_said_and_healed_when_it_is_gone(site: Site) -> None:
    if site.cluster.get(api.NAMESPACES, NAMESPACE) is None:
        first = small(site.world.request("first", params={"workers": 1}))
        site.until_state(first, "running")
        services.environment_delete(actor=site.world.alice, environment_id=first.pk)
        site.until_state(first, "deleted")
    stays = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stays", "namespace": NAMESPACE, "finalizers": ["example.com/stays"]}}
    site.cluster._json("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", body=stays)
    found = site.cluster.get(api.NAMESPACES, NAMESPACE)
    assert found is not None
    site.cluster.delete(found)
    environment = small(site.world.request(params={"workers": 1}))
    waits = site.until(environment, lambda now: now.reason == "Terminating", "the reason")
    assert waits.state == "queued"
    assert NAMESPACE in waits.message
    assert "made again when that is gone" in waits.message
    patch(site.cluster, f"/api/v1/namespaces/{NAMESPACE}/configmaps/stays", {"metadata": {"finalizers": None}})
    wait_until(lambda: (now := site.cluster.get(api.NAMESPACES, NAMESPACE)) is None or now["metadata"]["uid"] != found["metadata"]["uid"], "it to go")
    up = site.until_state(environment, "running")
    assert (up.reason, up.attempts) == ("", 0)
    assert codes(environment).count("Terminating") == 1


def test_a_namespace_quota_that_refuses_pods_fails_it_with_the_remedy_and_a_retry_helps(site: Site) -> None:
    first = small(site.world.request("first", params={"workers": 1}))
    site.until_state(first, "running")
    services.environment_delete(actor=site.world.alice, environment_id=first.pk)
    site.until_state(first, "deleted")
    tight = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tight", "namespace": NAMESPACE}, "spec": {"hard": {"pods": "1"}}}
    site.cluster._json("POST", f"/api/v1/namespaces/{NAMESPACE}/resourcequotas", body=tight)
    environment = small(site.world.request(params={"workers": 1}))
    found = site.until_state(environment, "failed")
    assert found.reason == "ClusterQuota"
    assert "exceeded quota: tight" in found.message
    assert "ask an admin to raise the quota" in found.message
    assert not Quota.objects.filter(used__gt=0).exclude(resource="storage").exists()
    quota = site.cluster.get(api.QUOTAS, "tight", NAMESPACE)
    assert quota is not None
    site.cluster.delete(quota)
    site.until(environment, lambda _: not site.left(environment), "compute to be taken down")
    services.environment_retry(actor=site.world.alice, environment_id=environment.pk)
    site.until_state(environment, "running")


# --- what somebody removed -----------------------------------------------------------


def test_a_stateful_set_removed_by_hand_is_made_again_and_told(site: Site) -> None:
    environment = small(site.world.request(params={"workers": 1}))
    site.until_state(environment, "running")
    name = names.role_name(names.object_name("grid", str(environment.pk)), "worker")
    found = site.cluster.get(api.STATEFUL_SETS, name, NAMESPACE)
    assert found is not None
    site.cluster.delete(found)

    def is_back() -> bool:
        now = site.look(environment)
        made = site.cluster.get(api.STATEFUL_SETS, name, NAMESPACE)
        return is_up(now) and made is not None and made["metadata"]["uid"] != found["metadata"]["uid"]

    wait_until(is_back, "the set and its pod to be back")
    assert f"StatefulSet {name}" in told(environment, "ObjectsMissing")


# --- room --------------------------------------------------------------------------------


def test_what_finds_no_room_gives_its_pods_up_and_goes_back_to_the_queue(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converging, "ROOM_SECONDS", 2.0)
    environment = small(site.world.request(params={"workers": 1}))
    template = environment.template_spec
    template["roles"][0]["resources"] = {"cpu": "4000", "memory": "128Mi"}  # one of two pods finds a node
    Environment.objects.filter(pk=environment.pk).update(template_spec=template)
    back = site.until(environment, lambda now: states(now)[-1] == "queued" and "provisioning" in states(now), "the way back to the queue")
    assert "Insufficient cpu" in Event.objects.filter(environment=environment, to_state="queued").latest("seq").message
    assert back.reserved, "its quota is kept: it still wants to run"
    wait_until(lambda: not site.cluster.find(api.PODS, NAMESPACE, labels=selector(environment.pk)), "no pod of it to hold anything")
    template["roles"][0]["resources"] = {"cpu": "50m", "memory": "128Mi"}
    Environment.objects.filter(pk=environment.pk).update(template_spec=template)
    site.until_state(environment, "running")
    assert "failed" not in states(environment)


# --- leases -------------------------------------------------------------------------------


def test_a_worker_that_lost_its_lease_half_way_takes_no_further_step(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.5)

    class Slow(Cluster):
        """While it applies the first object, the lease runs out and goes to another."""

        def apply(self, document: dict[str, Any]) -> dict[str, Any]:
            if document["kind"] == "ConfigMap" and document["metadata"]["name"].startswith("grid"):
                Environment.objects.filter(pk=environment.pk).update(lease_holder="another", lease_until=timezone.now() + timedelta(minutes=1))
                ran_out = time.monotonic() + 2 * lease.SECONDS
                wait_until(lambda: time.monotonic() > ran_out, "the lease to run out")
            return super().apply(document)

    environment = small(site.world.request(params={"workers": 1}))
    assert converge(environment.pk, cluster=Slow(site.cluster.kubeconfig), hub_client=site.hub)
    now = row(environment.pk)
    assert (now.state, now.lease_holder) == ("queued", "another"), "nothing was moved, and the other's lease is not given back"
    Environment.objects.filter(pk=environment.pk).update(lease_holder="", lease_until=None)
    monkeypatch.undo()
    site.until_state(environment, "running")


# --- clusters that are away ---------------------------------------------------------------


def test_what_was_never_made_is_stopped_and_deleted_without_a_cluster(site: Site, nobody: tuple[Cluster, Hub]) -> None:
    away, hub = nobody
    for verb, rest in ((services.environment_stop, "stopped"), (services.environment_delete, "deleted")):
        environment = site.world.request(f"never-{rest}", params={"workers": 1})
        verb(actor=site.world.alice, environment_id=environment.pk)
        assert converge(environment.pk, cluster=away, hub_client=hub)
        now = row(environment.pk)
        assert (now.state, now.attempts, now.reserved) == (rest, 0, {})


def test_a_back_off_is_short_is_kept_by_stray_messages_and_ends_with_a_wish(site: Site, nobody: tuple[Cluster, Hub]) -> None:
    away, hub = nobody
    environment = small(site.world.request(params={"workers": 1}))
    waits: list[float] = []
    for _ in range(9):  # as after many minutes
        Environment.objects.filter(pk=environment.pk).update(lease_until=None)
        assert converge(environment.pk, cluster=away, hub_client=hub)
        waits.append((row(environment.pk).next_check_at - timezone.now()).total_seconds())
    now = row(environment.pk)
    assert (now.state, now.reason, now.attempts) == ("queued", "ClusterUnreachable", 9)
    assert waits[0] < waits[3] <= max(waits) <= 12.0, "a cluster that is back is noticed within this and a sweep"
    assert len(set(waits)) == 9, "no two wait equally long"
    assert not converge(environment.pk, cluster=site.cluster, hub_client=site.hub), "a message is no reason to try sooner"
    assert row(environment.pk).attempts == 9
    assert environment.pk not in selectors.environments_due(timezone.now(), 10)
    assert environment.pk in selectors.environments_due(timezone.now() + timedelta(seconds=12), 10)
    services.environment_scale(actor=site.world.alice, environment_id=environment.pk, workers=2)
    assert environment.pk in selectors.environments_due(timezone.now(), 10)
    assert converge(environment.pk, cluster=site.cluster, hub_client=site.hub)
    assert site.until_state(environment, "running").attempts == 0


def test_a_server_that_asks_for_time_gets_it(site: Site) -> None:
    class Busy(Cluster):
        def apply(self, document: dict[str, Any]) -> dict[str, Any]:
            raise errors.Throttled("too many requests", retry_after=40)

    busy = Busy(site.cluster.kubeconfig)
    environment = small(site.world.request(params={"workers": 1}))
    assert converge(environment.pk, cluster=busy, hub_client=site.hub)
    now = row(environment.pk)
    assert (now.state, now.reason) == ("queued", "ClusterBusy")
    assert now.next_check_at > timezone.now() + timedelta(seconds=30)


def test_what_runs_is_not_taken_down_because_the_cluster_refuses_to_be_asked(site: Site) -> None:
    class Forbidding(Cluster):
        def gather(self, requests: Any) -> Any:
            raise errors.Denied("pods is forbidden")

    environment = small(site.world.request(params={"workers": 1}))
    site.until_state(environment, "running")
    first = pod_of(site, environment, "scheduler")["metadata"]["uid"]
    assert converge(environment.pk, cluster=Forbidding(site.cluster.kubeconfig), hub_client=site.hub)
    now = row(environment.pk)
    assert (now.state, now.reason) == ("running", "ClusterDenied")
    Environment.objects.filter(pk=environment.pk).update(lease_until=None)
    assert site.look(environment).reason == ""
    assert pod_of(site, environment, "scheduler")["metadata"]["uid"] == first
