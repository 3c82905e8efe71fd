"""Which of several processes of one installation acts: the one that holds a Lease in the cluster (coordination.k8s.io).

    leader = Leader(cluster, "watcher")
    leader.start()
    if leader.leads: ...        # asked right before each effect

The holder renews it every RETRY_SECONDS. Whoever could not renew for DEADLINE_SECONDS leads no more, which is before anybody else may
take it, after LEASE_SECONDS. Times are measured by each process's own clock, so clocks that differ do no harm.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings

from k8s import cluster as api
from k8s import errors, names
from k8s.cluster import Cluster

logger = logging.getLogger(__name__)

LEASE_SECONDS = 10
DEADLINE_SECONDS = 8.0
RETRY_SECONDS = 2.0
_REQUEST_SECONDS = 2.5
_COMPLAIN_EVERY = 30.0

Object = dict[str, Any]


class Leader(threading.Thread):
    """Tries for the lease for ever. `gained` is called from this thread each time it begins to lead."""

    def __init__(self, cluster: Cluster, role: str, gained: Callable[[], None] = lambda: None, *, identity: str = "") -> None:
        super().__init__(name="leader", daemon=True)
        self.name_of_lease = f"atelier-{role}-{names.label_value(settings.INSTALL_ID)}"
        self.identity = identity or identity_of_process()
        self._cluster, self._gained = cluster, gained
        self._ending = threading.Event()
        self._until = 0.0
        self._lease: Object | None = None  # as this process wrote it last
        self._seen: tuple[str, float] = ("", 0.0)  # version of another's lease, and when it was first seen
        self._complained = float("-inf")

    @property
    def leads(self) -> bool:
        """Whether this process may act at this moment."""
        return time.monotonic() < self._until

    def stop(self, patience: float = 3.0) -> None:
        """Act no more, and let another process take over at once."""
        self._ending.set()
        self._until = 0.0
        if self.is_alive():
            self.join(patience)

    def run(self) -> None:
        led = False
        while not self._ending.is_set():
            self._attempt()
            if self.leads and not led:
                logger.info("leading now: lease=%s", self.name_of_lease)
                self._gained()
            elif led and not self.leads:
                logger.warning("not leading any more: lease=%s", self.name_of_lease)
            led = self.leads
            self._ending.wait(RETRY_SECONDS * random.uniform(0.9, 1.1))
        self._until = 0.0
        self._release()

    # --- the lease ----------------------------------------------------------------

    def _attempt(self) -> None:
        """Renew or take it, if it can be had."""
        began = time.monotonic()
        try:
            lease = self._renewed() or self._taken()
        except errors.ClusterError as error:
            self._complain(error)
            return
        if lease is not None and not self._ending.is_set():
            self._lease, self._until = lease, began + DEADLINE_SECONDS

    def _renewed(self) -> Object | None:
        """The lease with a new time; None when this process does not have it, or not any more."""
        lease, self._lease = self._lease, None
        if lease is None:
            return None
        lease["spec"]["renewTime"] = _now()
        try:
            return self._cluster.replace(lease, seconds=_REQUEST_SECONDS)
        except errors.Conflict:
            return None

    def _taken(self) -> Object | None:
        """The lease, taken; None while another has it, or when another was first."""
        namespace = api.home_namespace(self._cluster.kubeconfig)
        lease = self._cluster.get(api.LEASES, self.name_of_lease, namespace, seconds=_REQUEST_SECONDS)
        try:
            if lease is None:
                return self._cluster.create(self._document(namespace), seconds=_REQUEST_SECONDS)
            if self._is_held(lease):
                return None
            spec = lease["spec"]
            if spec.get("holderIdentity") != self.identity:
                spec |= {"holderIdentity": self.identity, "acquireTime": _now(), "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
            spec |= {"leaseDurationSeconds": LEASE_SECONDS, "renewTime": _now()}
            return self._cluster.replace(lease, seconds=_REQUEST_SECONDS)
        except (errors.Conflict, errors.Gone):
            return None

    def _is_held(self, lease: Object) -> bool:
        """Whether another process holds it: it renewed it within its time, as far as this process has seen."""
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if not holder or holder == self.identity or is_dead(holder):
            return False
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        return time.monotonic() < self._seen[1] + int(spec.get("leaseDurationSeconds") or LEASE_SECONDS)

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        with suppress(errors.ClusterError):  # then it runs out
            self._cluster.replace(lease, seconds=_REQUEST_SECONDS)

    def _document(self, namespace: str) -> Object:
        labels = {names.MANAGED_BY: names.MANAGER, names.INSTALL: settings.INSTALL_ID}
        spec = {"holderIdentity": self.identity, "leaseDurationSeconds": LEASE_SECONDS, "acquireTime": _now(), "renewTime": _now(), "leaseTransitions": 0}
        metadata = {"name": self.name_of_lease, "namespace": namespace, "labels": labels}
        return {"apiVersion": api.LEASES.version, "kind": api.LEASES.name, "metadata": metadata, "spec": spec}

    def _complain(self, error: errors.ClusterError) -> None:
        if time.monotonic() - self._complained < _COMPLAIN_EVERY:
            return
        self._complained = time.monotonic()
        remedy = "; the kubeconfig's user needs get, create and update of leases there (docs/operations.md)" if isinstance(error, errors.Denied) else ""
        logger.warning("the lease cannot be had, tried again: lease=%s error=%s%s", self.name_of_lease, error, remedy)


# --- who is who -------------------------------------------------------------------


def identity_of_process() -> str:
    """A name that no other process has. It ends in what tells, on the same machine, whether the process still lives."""
    host = socket.gethostname()[:60].replace("_", "-")
    return "_".join((host, secrets.token_hex(4), *(_place() or ("", "")), str(os.getpid()), _started(os.getpid()) or ""))


def is_dead(identity: str) -> bool:
    """True when `identity` is a process of this very machine and pid namespace that has ended: nobody need wait for its lease to run out."""
    parts = identity.split("_")
    place = _place()
    if len(parts) != 6 or place is None or tuple(parts[2:4]) != place or not parts[4].isdigit() or not parts[5]:
        return False
    try:
        os.kill(int(parts[4]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another user's, of whom /proc may tell nothing
    return _started(int(parts[4])) != parts[5]


def _place() -> tuple[str, str] | None:
    """(start of this machine, pid namespace), within which a process is known by its number and starting time; None where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Clock ticks from the machine's start to the process's; None when there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
