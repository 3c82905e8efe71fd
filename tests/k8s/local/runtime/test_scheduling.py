"""The loop of the scheduler: who is tried when, and that those who wait in vain cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from k8s.local import namespaces, scheduling
from k8s.local.client import Client
from k8s.local.documents import at, meta
from k8s.local.kinds import Kinds
from k8s.local.objects import Objects
from k8s.local.scheduling import Scheduler
from k8s.local.store import Store

from .conftest import pod, until

MANY = 1000


class Plain:
    """A store with nodes and a scheduler; nothing runs."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Store(state / "objects.sqlite3")
        self.client = Client(Objects(self.store, Kinds()))
        namespaces.seed(self.client, "authority")
        self.scheduler = Scheduler(self.client)
        self.looks = 0
        choose = scheduling.choose

        def counted(*arguments: Any) -> Any:
            self.looks += 1
            return choose(*arguments)

        monkeypatch.setattr(scheduling, "choose", counted)

    def node(self, name: str, **capacity: str) -> None:
        resources = {"pods": "5000", **capacity}
        status = {"allocatable": resources, "capacity": resources, "conditions": [{"type": "Ready", "status": "True"}]}
        self.client.create("Node", {"metadata": {"name": name}, "status": status})
        self.client.modify("Node", None, name, lambda doc: doc.update(status=status), subresource="status")

    def pod(self, name: str, cpu: str, **spec: Any) -> None:
        self.client.create("Pod", pod(name, "", container={"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}}, **spec))

    def where(self, name: str) -> str:
        return str(at(self.client.get("Pod", "default", name), "spec.nodeName", ""))

    def why(self, name: str) -> str:
        conditions = at(self.client.get("Pod", "default", name), "status.conditions", [])
        return str(next((item.get("message", "") for item in conditions if item["type"] == "PodScheduled"), ""))

    async def settled(self) -> None:
        await until(lambda: not self.scheduler._fresh and not self.scheduler._wake.is_set() and not self.scheduler._again)


@pytest.fixture
async def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Plain]:
    found = Plain(tmp_path, monkeypatch)
    task = asyncio.create_task(found.scheduler.run())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    found.store.close()


async def test_a_thousand_pods_that_wait_are_not_tried_again_without_a_reason(plain: Plain) -> None:
    plain.node("n", cpu="10")
    plain.pod("first", "10")
    await until(lambda: plain.where("first"))
    for number in range(MANY):
        plain.pod(f"p{number:04}", "10")
    await until(lambda: all(plain.why(f"p{number:04}") for number in range(MANY)))
    await plain.settled()
    assert "Insufficient cpu" in plain.why("p0000")
    # All alike: looked at once in each pass, not once each.
    assert plain.looks < MANY / 2
    before, revision = plain.looks, plain.store.revision
    for number in range(200):

        def change(doc: dict[str, Any], number: int = number) -> None:
            doc["status"]["message"] = str(number)

        plain.client.modify("Pod", "default", "first", change, subresource="status")
        plain.client.modify("Node", None, "n", lambda doc, number=number: doc["status"].update(phase=str(number)), subresource="status")  # type: ignore[misc]
        await asyncio.sleep(0)
    await plain.settled()
    assert plain.looks == before
    assert plain.store.revision == revision + 400
    plain.client.delete("Pod", "default", "first", grace=0)
    await until(lambda: plain.where("p0000"))
    await plain.settled()
    assert [name for name in (f"p{number:04}" for number in range(MANY)) if plain.where(name)] == ["p0000"]


async def test_room_goes_to_the_most_important_and_then_to_the_oldest(plain: Plain) -> None:
    plain.pod("old", "6")
    plain.pod("small", "1")
    plain.pod("urgent", "6", priorityClassName="system-cluster-critical")
    await until(lambda: plain.why("urgent") and plain.why("small"))
    plain.node("n", cpu="8")
    await until(lambda: plain.where("urgent") and plain.where("small"))
    await plain.settled()
    assert not plain.where("old")
    plain.client.delete("Pod", "default", "urgent", grace=0)
    await until(lambda: plain.where("old"))


async def test_a_change_of_a_node_a_label_or_a_gate_lets_pods_be_tried_again(plain: Plain) -> None:
    plain.node("n", cpu="8")
    plain.pod("picky", "1", nodeSelector={"disk": "fast"})
    await until(lambda: "affinity/selector" in plain.why("picky"))
    plain.client.modify("Node", None, "n", lambda doc: meta(doc).update(labels={"disk": "fast"}))
    await until(lambda: plain.where("picky"))
    plain.pod("gated", "1", schedulingGates=[{"name": "example.com/gate"}])
    await plain.settled()
    assert not plain.where("gated")
    plain.client.modify("Pod", "default", "gated", lambda doc: doc["spec"].pop("schedulingGates"))
    await until(lambda: plain.where("gated"))


async def test_a_pod_that_looks_for_company_goes_where_it_is_when_it_comes(plain: Plain) -> None:
    plain.node("a", cpu="8")
    plain.node("b", cpu="8")
    for name in ("a", "b"):
        plain.client.modify("Node", None, name, lambda doc, name=name: meta(doc).update(labels={"kubernetes.io/hostname": name}))  # type: ignore[misc]
    term = {"labelSelector": {"matchLabels": {"app": "host"}}, "topologyKey": "kubernetes.io/hostname"}
    plain.pod("guest", "1", affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    await until(lambda: "pod affinity" in plain.why("guest"))
    plain.pod("host", "1")
    await until(lambda: plain.where("guest"))
    assert plain.where("guest") == plain.where("host")


async def test_what_a_removed_or_lost_node_had_is_not_counted_twice(plain: Plain) -> None:
    plain.node("n", cpu="4")
    plain.pod("one", "3")
    await until(lambda: plain.where("one"))
    plain.client.delete("Node", None, "n")
    plain.pod("two", "3")
    await until(lambda: "no nodes available" in plain.why("two"))
    plain.node("n", cpu="4")  # "one" still names it, so its room is still taken
    await until(lambda: "Insufficient cpu" in plain.why("two"))
    plain.client.delete("Pod", "default", "one", grace=0)
    await until(lambda: plain.where("two"))
    assert plain.scheduler.nodes["n"].used["cpu"] == 3
