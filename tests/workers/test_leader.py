"""Who leads: one at a time, another after a death, at once after a goodbye, nobody who cannot renew."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from k8s import cluster as api
from k8s.cluster import Cluster
from portal.runtime import ROOT
from tests.embedded import EmbeddedCluster
from tests.faultproxy import Asked, Fault, FaultProxy, Kind
from tests.k8s.factories import pod
from tests.stack import wait_until
from workers import leader as module
from workers.hub import Hub
from workers.leader import Leader, identity_of_process, is_dead
from workers.watcher import Watcher, pod_seen

pytestmark = pytest.mark.integration

# A process that competes for the lease and prints when it begins to lead.
PROCESS = """
import sys, time, django
django.setup()
from pathlib import Path
from k8s.cluster import Cluster
from workers.leader import Leader
leader = Leader(Cluster(Path(sys.argv[1])), sys.argv[2], lambda: print("leads", flush=True), identity=sys.argv[3])
print("begins", leader.identity, flush=True)
leader.start()
sys.stdin.read()
leader.stop()
print("ends", flush=True)
"""


class Process:
    def __init__(self, kubeconfig: Path, role: str, out: Path, identity: str = "") -> None:
        self.out = out
        argv = [sys.executable, "-c", PROCESS, str(kubeconfig), role, identity]
        with out.open("wb") as stream:
            self.process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=stream)

    def says(self, word: str) -> str:
        return str(wait_until(lambda: next((line for line in self.out.read_text().splitlines() if line.startswith(word)), ""), f"it {word}"))

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


@pytest.fixture
def processes(embedded: EmbeddedCluster, tmp_path: Path) -> Iterator[Any]:
    made: list[Process] = []

    def make(role: str, identity: str = "") -> Process:
        made.append(Process(embedded.kubeconfig, role, tmp_path / f"{len(made)}.out", identity))
        made[-1].says("begins")
        return made[-1]

    yield make
    for each in made:
        each.process.kill()
        each.process.wait()


def lease_of(cluster: Cluster, role: str) -> dict[str, Any]:
    (lease,) = [item for item in cluster.find(api.LEASES, "default") if item["metadata"]["name"].startswith(f"atelier-{role}-")]
    return dict(lease["spec"])


def holder(cluster: Cluster, role: str) -> str:
    return str(lease_of(cluster, role)["holderIdentity"])


def goes_on(cluster: Cluster, role: str, seconds: float) -> None:
    """Waits until the lease was renewed for so long: time enough for others to do wrong."""

    def renewed() -> datetime:
        return datetime.fromisoformat(lease_of(cluster, role)["renewTime"])

    end = renewed() + timedelta(seconds=seconds)
    wait_until(lambda: renewed() > end, f"{seconds} s of renewals")


@pytest.mark.parametrize("identities", [("", ""), ("elsewhere-1", "elsewhere-2")], ids=["on one machine", "on two machines"])
def test_another_leads_after_the_leader_was_killed(processes: Any, embedded: EmbeddedCluster, identities: tuple[str, str]) -> None:
    role = f"killed{len(identities[0])}"
    first = processes(role, identities[0])
    first.says("leads")
    second = processes(role, identities[1])
    cluster = Cluster(embedded.kubeconfig)
    second.says("begins")
    goes_on(cluster, role, module.LEASE_SECONDS + 1)  # long enough for one that does not respect the lease to show itself
    assert "leads" not in second.out.read_text()
    first.process.kill()
    first.process.wait()
    second.says("leads")
    assert holder(cluster, role) == second.says("begins").split()[1]


def test_a_goodbye_frees_the_lease_at_once(processes: Any, embedded: EmbeddedCluster) -> None:
    first = processes("goodbye")
    first.says("leads")
    first.leave()
    assert "ends" in first.out.read_text()
    assert holder(Cluster(embedded.kubeconfig), "goodbye") == ""
    second = processes("goodbye", "elsewhere")
    second.says("leads")


def test_whoever_cannot_renew_leads_no_more_before_another_does(embedded: EmbeddedCluster, tmp_path: Path) -> None:
    with FaultProxy(embedded.kubeconfig, tmp_path) as proxy:
        gained: list[str] = []
        cut_off = Leader(Cluster(proxy.kubeconfig), "cut", lambda: gained.append("first"), identity="elsewhere-1")
        cut_off.start()
        wait_until(lambda: cut_off.leads, "the first to lead")
        other = Leader(Cluster(embedded.kubeconfig), "cut", lambda: gained.append("second"), identity="elsewhere-2")
        other.start()
        both: list[bool] = []
        ending = threading.Event()

        def look() -> None:
            while not ending.wait(0.002):
                both.append(cut_off.leads and other.leads)

        looking = threading.Thread(target=look)
        looking.start()
        try:
            stall = proxy.inject(Fault(Kind.STALL, seconds=3600, match=_leases))
            wait_until(lambda: other.leads, "the second to lead")
            proxy.withdraw(stall)
            goes_on(Cluster(embedded.kubeconfig), "cut", 3 * module.RETRY_SECONDS)  # the first may speak again, and finds that it is not the one
            assert other.leads
            assert not cut_off.leads
        finally:
            ending.set()
            looking.join()
            other.stop()
            cut_off.stop()
        assert gained == ["first", "second"]
        assert len(both) > 100
        assert not any(both)


def _leases(asked: Asked) -> bool:
    return asked.plural == "leases"


def test_an_ended_process_of_this_machine_is_known_to_be_dead() -> None:
    child = subprocess.run([sys.executable, "-c", "from workers.leader import *; print(identity_of_process())"], cwd=ROOT, capture_output=True, text=True,
                           env={"DJANGO_SETTINGS_MODULE": "portal.settings", **_environment()}, check=True)  # fmt: skip
    assert is_dead(child.stdout.strip())
    mine = identity_of_process()
    assert not is_dead(mine)
    assert not is_dead(mine.rsplit("_", 4)[0] + "_another-boot_1_1_1")
    assert not is_dead("elsewhere")


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)


def test_a_follower_keeps_what_it_hears_to_itself_until_it_leads(embedded: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    watcher = Watcher(Cluster(embedded.kubeconfig), Hub("http://127.0.0.1:9/hub/api", "none"))
    sent: list[str] = []
    monkeypatch.setattr("workers.nudges.app.send_task", lambda name, args, **_: sent.append(args[0]))
    watcher.nudges.start()
    watcher.pods.synced.set()  # past the first list, which wakes nobody for what is well
    item = pod("lab-0", "worker")
    item["metadata"]["labels"] |= {"atelier.dev/install": settings.INSTALL_ID, "app.kubernetes.io/managed-by": "atelier"}
    identifier = item["metadata"]["labels"]["atelier.dev/environment"]
    watcher._pod_changed(None, pod_seen(item))
    assert not watcher.leader.leads
    assert sent == []
    watcher.leader._until = time.monotonic() + 60  # as after the lease was got
    watcher._gained()
    wait_until(lambda: sent == [identifier], "what it heard before")
    watcher.leader._until = 0.0
    watcher.nudges.nudge(identifier)
    watcher.leader._until = time.monotonic() + 60
    other = json.loads(json.dumps(item).replace(identifier, "0193aabb-0000-7000-8000-000000000000"))
    watcher._pod_changed(None, pod_seen(other))
    wait_until(lambda: len(sent) > 1, "what it hears as a leader")
