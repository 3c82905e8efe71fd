"""What the watcher costs: 1,000 environments that do nothing; and 1,000 orphans among them beside 1,000 objects that only look alike.

The environments have rows and all their objects, but their pods wait at a scheduling gate, so that no process runs for them. One is made
through the API; the others are copies of what the embedded cluster then holds, put into its store while it is stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from k8s import cluster as api
from k8s import errors, manifests, names
from k8s.cluster import Cluster
from tests.k8s.factories import SCHEDULER, WORKER, cluster_spec
from tests.stack import Parts, wait_until
from tests.workers.lookalikes import look_alikes

from .coldstart import prepared, run
from .common import Row

COUNT = int(os.environ.get("COUNT", "1000"))
SECONDS = 60
BEATS_PER_SECOND = 2  # writes to pods that mean nothing
OBJECTS = 7  # of one environment
NAMESPACE = "atelier-vision"

ROWS = """
from datetime import timedelta
from django.utils import timezone
from portal.domain.models import Environment, Team, User
from tests.workers.many import many_environments
rows = many_environments({count}, owner=User.objects.get(username="alice"), team=Team.objects.get(slug="vision"), states=("running",),
                         due=timezone.now() + timedelta(days=1))
rows += many_environments(1, owner=rows[0].owner, team=rows[0].team, states=("deleted",))
for row in rows: print(row.pk)
"""
DELETED = """
from portal.domain.models import Environment
keys = list(Environment.objects.filter(state="running").order_by("-name").values_list("pk", flat=True)[:{count}])
Environment.objects.filter(pk__in=keys).update(state="deleted", desired="deleted")
"""


def make(cluster: Cluster, install: str, identifier: str) -> None:
    """Everything that one Dask cluster of a scheduler and a worker has."""
    workers = type(WORKER)(**{**WORKER.__dict__, "replicas": 1})
    spec = cluster_spec(id=identifier, install=install, base_name=names.object_name("idle", identifier), roles=(SCHEDULER, workers))
    owner = manifests.owner_reference(cluster.create(manifests.sealed(manifests.parent(spec))))
    for document in manifests.cluster_documents(spec, owner):
        document = manifests.sealed(document)
        if document["kind"] == "StatefulSet":
            template = document["spec"]["template"]
            document["spec"]["replicas"] = 0
            # Without the role the set does not take it for one of its own.
            labels = {key: value for key, value in template["metadata"]["labels"].items() if key != names.ROLE}
            metadata = {
                **template["metadata"],
                "labels": labels,
                "name": f"{document['metadata']['name']}-0",
                "namespace": NAMESPACE,
                "ownerReferences": [owner],
            }
            cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**template["spec"], "schedulingGates": [{"name": "bench"}]}})
        cluster.create(document)


def multiply(store: Path, identifier: str, others: list[str], install: str, living: str, deleted: str) -> None:
    """Copy the objects of one environment for others, and add look-alikes, in the store of a cluster that is stopped."""
    base = names.object_name("idle", identifier)
    with sqlite3.connect(store) as db:
        rows = db.execute("SELECT kind, namespace, name, body FROM objects").fetchall()
        mine = [(kind, space, name, body.decode()) for kind, space, name, body in rows if f'"{names.ENVIRONMENT}":"{identifier}"' in body.decode()]
        mine = [row for row in mine if row[0] in ("configmaps", "services", "statefulsets.apps", "pods")]
        assert len(mine) == OBJECTS, [row[:3] for row in mine]
        uids = [json.loads(body)["metadata"]["uid"] for *_, body in mine]
        revisions = itertools.count(db.execute("SELECT revision FROM counter").fetchone()[0] + 1)
        for other in others:
            changed = {identifier: other, base: names.object_name("idle", other), **{uid: str(uuid4()) for uid in uids}}
            for kind, space, name, body in mine:
                _put(db, kind, space, name.replace(base, changed[base]), _replaced(body, changed), next(revisions))
        plain = next(body for kind, *_, body in mine if kind == "configmaps")
        for alike in look_alikes(COUNT, install, living, deleted):
            document = json.loads(plain)
            metadata = {**document["metadata"], "uid": str(uuid4()), "ownerReferences": []}
            metadata |= {key: alike["metadata"][key] for key in ("name", "namespace", "labels")}
            _put(db, "configmaps", metadata["namespace"], metadata["name"], json.dumps({**document, "metadata": metadata}), next(revisions))
        db.execute("UPDATE counter SET revision = ?", (next(revisions),))


def _replaced(text: str, changed: dict[str, str]) -> str:
    for old, new in changed.items():
        text = text.replace(old, new)
    return text


def _put(db: sqlite3.Connection, kind: str, namespace: str, name: str, text: str, revision: int) -> None:
    document: dict[str, Any] = json.loads(text)
    document["metadata"]["resourceVersion"] = str(revision)
    body = json.dumps(document, separators=(",", ":")).encode()
    db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (kind, namespace, name, revision, body))


class Beats(threading.Thread):
    """Writes to pods that mean nothing to their environments, as controllers and agents make them."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.cluster, self.ending = cluster, threading.Event()
        self.pods = cluster.find(api.PODS, "atelier-vision")

    def run(self) -> None:
        for number in itertools.count():
            if self.ending.wait(1 / BEATS_PER_SECOND):
                return
            with contextlib.suppress(errors.ClusterError):  # a busy machine
                self.cluster.annotate(random.choice(self.pods), {"beat": str(number)})


def idle(stack: Parts, cluster: Cluster, runs: int) -> list[float]:
    """CPU seconds of the watcher in each of some minutes."""
    stack.start_part("watcher")
    wait_until(lambda: b"leading now" in (stack.var / "watcher.out").read_bytes(), "the watcher to lead")
    beats = Beats(cluster)
    beats.start()
    process = psutil.Process(stack.parts["watcher"].pid)
    time.sleep(45)  # the start is not what is measured
    costs = []
    for _ in range(runs):
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(SECONDS)
        costs.append((sum(process.cpu_times()[:2]) - before) * SECONDS / (time.monotonic() - began))
    print(f"  CPU seconds a minute: {costs}", flush=True)
    beats.ending.set()
    beats.join()
    return costs


def uids(cluster: Cluster, prefix: str) -> set[str]:
    """Those whose name begins so; asked again when the cluster is busy."""
    kinds = (api.CONFIG_MAPS, api.SERVICES, api.STATEFUL_SETS, api.PODS)
    while True:
        try:
            found = [item["metadata"] for kind in kinds for item in cluster.find_at(kind, metadata_only=True)[0]]
            return {metadata["uid"] for metadata in found if metadata["name"].startswith(prefix)}
        except errors.ClusterError:
            time.sleep(1)


def left(cluster: Cluster, prefix: str) -> int:
    """How many there are, asked not too often."""
    time.sleep(1)
    return len(uids(cluster, prefix))


def gone(stack: Parts, cluster: Cluster, runs: int) -> list[float]:
    """Seconds from the moment at which rows say that 1,000 objects should not be until they are not. AssertionError when others went."""
    alike, there, times = uids(cluster, "alike"), len(uids(cluster, "idle")), []
    assert len(alike) == COUNT
    environments = -(-COUNT // OBJECTS // runs)
    for _ in range(runs):
        run(stack, DELETED.format(count=environments))
        began = time.monotonic()
        there -= environments * OBJECTS
        wait_until(lambda: left(cluster, "idle") <= there, "the orphans to go", 600)  # noqa: B023 - called at once
        times.append(time.monotonic() - began)
    time.sleep(30)  # long enough for the next look to do harm
    assert len(uids(cluster, "idle")) == there, "something that is wanted was deleted"
    assert uids(cluster, "alike") == alike, "a look-alike was deleted"
    return times


def measure(folder: Path, runs: int) -> list[Row]:
    with prepared(folder / "var", "") as stack:
        cluster = Cluster(stack.var / "cluster" / "kubeconfig")
        install = run(stack, "from django.conf import settings\nprint(settings.INSTALL_ID)").strip()
        first, *others, deleted = run(stack, ROWS.format(count=COUNT)).split()
        if cluster.get(api.NAMESPACES, NAMESPACE) is None:
            cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        wait_until(lambda: cluster.get(api.SERVICE_ACCOUNTS, "default", NAMESPACE), "the namespace's service account")
        make(cluster, install, first)
        embedded = stack.parts.pop("cluster")
        embedded.terminate()
        embedded.wait(60)
        multiply(stack.var / "cluster" / "objects.sqlite3", first, others, install, first, deleted)
        stack.start_part("cluster")
        stack.manage("prepare", "--wait", "cluster")
        costs = idle(stack, cluster, max(1, runs // 2))
        times = gone(stack, cluster, 1)
    return [
        Row(f"watcher: CPU seconds a minute, {COUNT} idle environments", costs, goal="1.2 (2 % of a core)"),
        Row(f"{COUNT} orphans gone, none of {COUNT} look-alikes", times, goal="60 s"),
    ]
