"""Orphans: objects and Hub servers of this installation that no environment wants any more, and environments whose objects are gone.

What is there comes from the watcher's mirrors; what should be, from the database, read after it: a row is committed before anything is
made for it. Nothing is deleted but at a second sighting, from complete and current mirrors, and then only if a live read finds the very
object (uid, resourceVersion) still ours. Home claims without a volume are told and never touched.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

from django.conf import settings

from k8s import errors, names
from k8s.cluster import CLAIMS, CONFIG_MAPS, Cluster, Kind
from portal.domain import services
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Environment, Membership, Volume

from .hub import Hub, HubError, HubServer

logger = logging.getLogger(__name__)

SIGHTINGS_APART = 12.0  # seconds between the first sighting and the one that counts
_AT_ONCE = 8  # deletions side by side
_PER_SECOND = 60.0  # deletions begun, at most
_BATCH = 40  # environments whose rows are read again together, right before their objects are deleted
_LEASE_SECONDS = 20.0
_NUDGE_AGAIN = 30.0
_AT_REST = (State.STOPPED, State.DELETED)  # nothing of these may be in the cluster


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What must be known of an object with this installation's label. `environment` is empty for a home claim."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    environment: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)
    parents: frozenset[str] = field(default=frozenset(), compare=False)  # uids of what owns it


def thing(kind: Kind, item: Mapping[str, object]) -> Thing | None:
    """The `Thing` of an object; None for one that is not this installation's."""
    metadata = item["metadata"]
    assert isinstance(metadata, Mapping)  # noqa: S101 - of every object
    labels = metadata.get("labels") or {}
    if labels.get(names.INSTALL) != settings.INSTALL_ID or labels.get(names.MANAGED_BY) != names.MANAGER:
        return None
    return Thing(
        kind=kind,
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        environment=labels.get(names.ENVIRONMENT, ""),
        labels={key: labels[key] for key in (names.OWNER, names.TEAM, names.STORAGE) if key in labels},
        parents=frozenset(owner["uid"] for owner in metadata.get("ownerReferences") or ()),
    )


class Sightings:
    """When each of some things was first seen; those that are not seen again are forgotten."""

    def __init__(self, apart: float = SIGHTINGS_APART) -> None:
        self.apart = apart
        self._first: dict[object, float] = {}

    def ripe(self, keys: Collection[object], now: float) -> set[object]:
        """Those of `keys` that were seen before, long enough ago."""
        self._first = {key: self._first.get(key, now) for key in keys}
        return {key for key, first in self._first.items() if now - first >= self.apart}

    def clear(self) -> None:
        self._first.clear()


class Orphans:
    """`may` is asked before each effect; `nudge` wakes a worker for an environment."""

    def __init__(self, cluster: Cluster, hub: Hub, may: Callable[[], bool], nudge: Callable[[str], None], *, apart: float = SIGHTINGS_APART) -> None:
        self._cluster, self._hub, self._may, self._nudge = cluster, hub, may, nudge
        self._objects, self._servers, self._claims, self._bare = Sightings(apart), Sightings(apart), Sightings(apart), Sightings(apart)
        self._told: set[str] = set()  # what was left alone, and said so once
        self._nudged: dict[str, float] = {}
        self._slot, self._pace = 0.0, threading.Lock()

    def forget(self) -> None:
        """Another process led meanwhile: what was seen before counts no more."""
        for sightings in (self._objects, self._servers, self._claims, self._bare):
            sightings.clear()

    # --- objects --------------------------------------------------------------------

    def objects(self, things: Iterable[Thing], now: float | None = None) -> int:
        """Look at everything that is there; how many objects were deleted, not counting what went with its owner. Raises the database's errors."""
        now = time.monotonic() if now is None else now
        found = list(things)
        wanted = _wanted()
        self._heal(found, wanted, now)
        suspects = {item.uid: item for item in found if item.environment and item.environment not in wanted and self._is_ours(item)}
        ripe = [suspects[str(uid)] for uid in self._objects.ripe(suspects.keys(), now)]
        if not ripe:
            return 0
        by_environment: dict[str, list[Thing]] = {}
        for item in ripe:
            by_environment.setdefault(item.environment, []).append(item)
        keys, deleted = list(by_environment), 0
        with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="orphans") as pool:
            for start in range(0, len(keys), _BATCH):
                if self._may():
                    deleted += self._delete_batch(pool, {key: by_environment[key] for key in keys[start : start + _BATCH]})
        return deleted

    def _is_ours(self, item: Thing) -> bool:
        """Whether its labels fit together as those of what this project makes do. What only looks alike is left alone, and told once."""
        team = names.label_value(item.namespace.removeprefix(names.namespace("")))
        if _uuid(item.environment) and item.namespace.startswith(names.namespace("")) and item.labels.get(names.TEAM, team) == team:
            return True
        self._tell(item, "its labels do not fit together")
        return False

    def _tell(self, item: Thing, why: str) -> None:
        if item.uid not in self._told:
            self._told.add(item.uid)
            logger.warning("left alone: kind=%s namespace=%s name=%s why=%s", item.kind.name, item.namespace, item.name, why)

    def _delete_batch(self, pool: ThreadPoolExecutor, batch: Mapping[str, list[Thing]]) -> int:
        """Read the rows again, hold those that could be started meanwhile, and delete."""
        rows = {str(row.pk): row for row in Environment.objects.filter(pk__in=list(batch)).select_related("owner")}
        owners = _owners()
        holder = f"orphans:{threading.get_ident()}:{time.monotonic_ns()}"
        held: list[str] = []
        try:
            doomed: list[Thing] = []
            for key, things in batch.items():
                row = rows.get(key)
                if row is not None and row.state not in _AT_REST:
                    continue
                if row is not None and row.state == State.STOPPED:
                    taken = services.lease_take(key, holder, _LEASE_SECONDS)
                    if taken is None:
                        continue
                    held.append(key)
                    if taken.state != State.STOPPED:
                        continue
                for item in things:
                    known = owners.get(item.namespace, set()) if row is None else {names.label_value(row.owner.username)}
                    if item.labels.get(names.OWNER) in (None, *known):
                        doomed.append(item)
                    else:
                        self._tell(item, "its owner is not the environment's, or nobody of the team")
            # What is owned goes with its owner, by the cluster's own hand; what that leaves is seen again, without an owner beside it.
            going = {item.uid for item in doomed}
            roots = [item for item in doomed if not item.parents & going]
            return sum(pool.map(self._delete, roots))
        finally:
            for key in held:
                services.lease_release(key, holder, 0.0)

    def _delete(self, item: Thing) -> bool:
        """Delete an object if it is still there, still the same, and still ours; False otherwise, and when the cluster does not do it now."""
        self._wait_for_slot()
        try:
            live = self._cluster.get(item.kind, item.name, item.namespace) if self._may() else None
            if live is None or live["metadata"].get("deletionTimestamp") or not self._may():
                return False
            if (now := thing(item.kind, live)) != item or now.labels != item.labels:
                return False
            if not self._cluster.delete(live, unchanged=True):
                return False
        except errors.ClusterError as error:
            logger.warning("orphan not deleted, tried again: kind=%s namespace=%s name=%s error=%s", item.kind.name, item.namespace, item.name, error)
            return False
        logger.warning("orphan deleted: kind=%s namespace=%s name=%s environment=%s", item.kind.name, item.namespace, item.name, item.environment)
        return True

    def _wait_for_slot(self) -> None:
        with self._pace:
            self._slot = max(self._slot + 1 / _PER_SECOND, time.monotonic())
            wait = self._slot - time.monotonic()
        if wait > 0:
            time.sleep(wait)

    # --- environments without objects -------------------------------------------------

    def _heal(self, found: list[Thing], wanted: Mapping[str, bool], now: float) -> None:
        """Wake a worker for environments that are up by their row and have nothing in the cluster."""
        present = {item.environment for item in found if item.kind is CONFIG_MAPS}
        missing = [key for key, up in wanted.items() if up and key not in present]
        for key in self._bare.ripe(missing, now):
            if now - self._nudged.get(str(key), float("-inf")) >= _NUDGE_AGAIN and self._may():
                self._nudged[str(key)] = now
                self._nudge(str(key))
        self._nudged = {key: when for key, when in self._nudged.items() if now - when < _NUDGE_AGAIN}

    # --- home claims --------------------------------------------------------------------

    def claims(self, things: Iterable[Thing], now: float | None = None) -> list[Thing]:
        """Home claims of this installation that no volume knows: told once, and returned. They hold somebody's work."""
        now = time.monotonic() if now is None else now
        homes = {item.uid: item for item in things if item.kind is CLAIMS and not item.environment and names.STORAGE not in item.labels}
        known = {(names.namespace(team), claim) for team, claim in Volume.objects.values_list("team__slug", "claim")} if homes else set()
        lost = {uid: item for uid, item in homes.items() if (item.namespace, item.name) not in known}
        found = [lost[str(uid)] for uid in self._claims.ripe(lost.keys(), now)]
        for item in found:
            self._tell(item, "a home claim without a volume; nothing deletes it but an admin")
        return found

    # --- servers ------------------------------------------------------------------------

    def servers(self, now: float | None = None) -> int:
        """Stop servers at the Hub that no environment wants; how many. Raises HubError and the database's errors."""
        now = time.monotonic() if now is None else now
        listed = [server for server in self._hub.servers() if _is_server_of_ours(server)]
        wanted = _wanted()
        suspects = {(server.user, server.name): server for server in listed if server.environment not in wanted}
        ripe = self._servers.ripe(suspects.keys(), now)
        return sum(self._stop(server) for key, server in suspects.items() if key in ripe)

    def _stop(self, server: HubServer) -> bool:
        row = Environment.objects.filter(pk=server.environment).first()
        holder = f"orphans:{server.name}:{time.monotonic_ns()}"
        if row is not None and row.state not in _AT_REST:
            return False
        held = False
        if row is not None and row.state == State.STOPPED:
            taken = services.lease_take(server.environment, holder, _LEASE_SECONDS)
            if taken is None:
                return False
            held = True
            if taken.state != State.STOPPED:
                services.lease_release(server.environment, holder, 0.0)
                return False
        try:
            if not self._may():
                return False
            self._hub.server_stop(server.user, server.name)
        except HubError as error:
            logger.warning("orphaned server not stopped, tried again: server=%s error=%s", server.name, error)
            return False
        finally:
            if held:
                services.lease_release(server.environment, holder, 0.0)
        logger.warning("orphaned server stopped: user=%s server=%s environment=%s", server.user, server.name, server.environment)
        return True


def _wanted() -> dict[str, bool]:
    """Environments of which something may be in the cluster; True for those of which something must be."""
    alive = [state.value for state in State if state not in _AT_REST]
    rows = Environment.objects.filter(state__in=alive).values_list("pk", "state", "desired")
    return {str(key): state == State.RUNNING and desired == Desired.RUNNING for key, state, desired in rows.iterator()}


def _owners() -> dict[str, set[str]]:
    """Label of whoever is in a team or has ever had an environment there, by the team's namespace."""
    found: dict[str, set[str]] = {}
    members = Membership.objects.values_list("team__slug", "user__username")
    for team, name in members.union(Environment.objects.order_by().values_list("team__slug", "owner__username")):
        found.setdefault(names.namespace(team), set()).add(names.label_value(name))
    return found


def _is_server_of_ours(server: HubServer) -> bool:
    key = server.environment
    digits = key.replace("-", "")[:8]
    return server.install == settings.INSTALL_ID and _uuid(key) and server.name.endswith(f"-{digits}") and server.pending != "stop"


def _uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
