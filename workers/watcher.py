"""Long process: hears what happens in the cluster and at the Hub, and wakes workers up. Never gives up.

    python -m workers.watcher

It mirrors pods, StatefulSets, nodes and whatever else bears this installation's label, tells Kubernetes' events in the history of
environments, follows the start of notebooks at the Hub, keeps the portal's picture of what is free on the nodes, and removes orphans.
Several may run: all listen, and one acts, the one that holds the lease (see workers.leader).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
if __name__ == "__main__":
    django.setup()

from django.conf import settings
from django.db import DatabaseError, close_old_connections

from k8s import cluster as api
from k8s import errors, names
from k8s.cluster import Cluster
from k8s.operators import READY
from portal.celery import app
from portal.domain import services
from portal.domain.lifecycle import State
from portal.domain.models import Accelerator, Environment

from . import nodes
from .clock import Clock
from .history import Recorder
from .hub import Hub, HubError
from .leader import Leader
from .mirror import Mirror
from .nudges import Nudges
from .operated import Operated, OperatedSeen
from .orphans import Orphans, Thing, thing
from .starts import Starts

logger = logging.getLogger(__name__)

Object = dict[str, Any]

_OLD_EVENTS = timedelta(minutes=10)  # older ones were told by an earlier watcher, or are of no interest any more
_EVENTS_RELIST = 240.0  # each list tells every event again, to a recorder that knows most of them
_NODES_EVERY = 60.0
_NODES_PAUSE = 1.0
_ORPHANS_EVERY, _SERVERS_EVERY, _CLAIMS_EVERY = 8.0, 30.0, 60.0
_MISSED_SECONDS = 60.0  # what a follower heard in so long may not have been acted upon by a leader that died
_TIDY_FROM = 50_000  # objects
_OTHER_KINDS = (api.JOBS, api.CONFIG_MAPS, api.SERVICES, api.SECRETS, api.POLICIES, api.CLAIMS)


@dataclass(frozen=True, kw_only=True)
class PodSeen:
    """What the watcher keeps of a pod. `thing` is None for one that is not this installation's."""

    thing: Thing | None
    use: nodes.Use | None
    outline: Any = None
    ready: bool = False
    is_notebook: bool = False
    owner: str = ""


def pod_seen(pod: Object) -> PodSeen:
    """The digest of a pod. Of others' pods only what they take of their node counts."""
    use, ours = nodes.usage(pod, settings.INSTALL_ID), thing(api.PODS, pod)
    if ours is None or not ours.environment:
        return PodSeen(thing=None, use=use)
    metadata = pod["metadata"]
    owner = metadata.get("annotations", {}).get(names.OWNER_NAME, "")
    return PodSeen(thing=ours, use=use, outline=outline(pod), ready=_is_ready(pod), is_notebook=metadata["labels"].get(names.KIND) == "notebook", owner=owner)


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return not pod["metadata"].get("deletionTimestamp") and any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def outline(pod: Object) -> Any:
    """What of a pod matters to its environment: heartbeats and annotations do not."""
    status = pod.get("status", {})
    conditions = [(item["type"], item["status"], item.get("message")) for item in status.get("conditions", ())]
    containers = [(item.get("state"), item.get("ready"), item.get("restartCount")) for item in status.get("containerStatuses", ())]
    return status.get("phase"), status.get("podIP"), pod["spec"].get("nodeName"), bool(pod["metadata"].get("deletionTimestamp")), conditions, containers


@dataclass(frozen=True, kw_only=True)
class SetSeen:
    """What the watcher keeps of a StatefulSet."""

    thing: Thing
    ready: int


def set_seen(item: Object) -> SetSeen | None:
    found = thing(api.STATEFUL_SETS, item)
    return SetSeen(thing=found, ready=item.get("status", {}).get("readyReplicas", 0)) if found else None


def event_seen(event: Object) -> Object | None:
    """An event worth telling: of a team's namespace, and not an old one."""
    if not event["metadata"]["namespace"].startswith(names.namespace("")):
        return None
    when = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return None if when and datetime.now(UTC) - datetime.fromisoformat(when) > _OLD_EVENTS else event


class Watcher:
    """All of it, as threads of one process."""

    def __init__(self, cluster: Cluster, hub: Hub) -> None:
        self.ending = threading.Event()
        acting = Cluster(cluster.kubeconfig)  # a pool of its own: watches keep their connections
        self._acting = acting
        self.leader = Leader(acting, "watcher", self._gained)
        may = partial(getattr, self.leader, "leads")
        self.nudges = Nudges(may)
        self.recorder = Recorder(self._environment_of, may)
        self.starts = Starts(hub, self.nudges, self.recorder, self.ending, may)
        self.orphans = Orphans(acting, hub, may, self._nudge)
        self.clock = Clock()
        self._nodes_changed = threading.Event()
        self._by_uid: dict[str, str] = {}  # object -> environment; objects that are gone stay until the next tidying
        self._tidy_at = _TIDY_FROM
        self._missed: dict[str, float] = {}  # environment -> when it would have been nudged by a leader
        self._missed_events: deque[tuple[float, Object]] = deque(maxlen=5000)
        ours = f"{names.INSTALL}={settings.INSTALL_ID},{names.MANAGED_BY}={names.MANAGER}"
        labelled = f"{ours},{names.ENVIRONMENT}"
        self.pods = Mirror(cluster, api.PODS, self._pod_changed, pod_seen)
        self.sets = Mirror(cluster, api.STATEFUL_SETS, self._set_changed, set_seen, labels=labelled)
        self.nodes = Mirror(cluster, api.NODES, self._node_changed, nodes.described)
        self.events = Mirror(cluster, api.EVENTS, self._event_seen, event_seen, keep=False, relist_seconds=_EVENTS_RELIST)
        self.others = [
            Mirror(cluster, kind, self._thing_changed, partial(thing, kind), labels=ours if kind is api.CLAIMS else labelled, metadata_only=True)
            for kind in _OTHER_KINDS
        ]
        self.operated = Operated(cluster, labelled, self._operated_changed)

    @property
    def mirrors(self) -> list[Mirror[Any]]:
        return [self.pods, self.sets, self.nodes, self.events, *self.others]

    def start(self) -> None:
        for thread in (self.leader, self.nudges, self.recorder, self.clock, *self.mirrors, self.operated):
            thread.start()
        for name, work in (("nodes", self._keep_nodes), ("starts", self.starts.run), ("orphans", self._keep_house)):
            threading.Thread(target=work, name=name, daemon=True).start()

    def stop(self) -> None:
        """Act no more, and let another watcher lead at once."""
        self.ending.set()
        self.clock.stop()
        self.leader.stop()
        self.operated.stop()
        for mirror in self.mirrors:
            mirror.stop()

    # --- leading --------------------------------------------------------------------

    def _gained(self) -> None:
        """Do what the one that led before may not have got to."""
        since = time.monotonic() - _MISSED_SECONDS
        self.orphans.forget()
        missed, self._missed = self._missed, {}
        for environment_id, when in missed.items():
            if when > since:
                self.nudges.nudge(environment_id)
        while self._missed_events:
            when, event = self._missed_events.popleft()
            if when > since:
                self.recorder.event(event)
        self._nodes_changed.set()

    def _nudge(self, environment_id: str) -> None:
        if self.leader.leads:
            self.nudges.nudge(environment_id)
            return
        if len(self._missed) > 5000:
            self._missed.clear()
        self._missed[environment_id] = time.monotonic()

    # --- what changes ------------------------------------------------------------

    def _pod_changed(self, old: PodSeen | None, new: PodSeen | None) -> None:
        if (old.use if old else None) != (new.use if new else None):
            self._nodes_changed.set()
        found = new or old
        ours = found.thing if found else None
        if found is None or ours is None or not self._remember(ours) or (old and new and old.outline == new.outline):
            return
        if new is not None and old is None and new.ready and not self.pods.synced.is_set():
            return  # it was up before this process: a thousand that are well need no thousand looks
        self._nudge(ours.environment)
        if new is not None and old is None and new.is_notebook and self.leader.leads:
            self.starts.follow(ours.environment, new.owner, ours.name)

    def _set_changed(self, old: SetSeen | None, new: SetSeen | None) -> None:
        found = new or old
        if found and self._remember(found.thing) and self.sets.synced.is_set() and (old is None or new is None or old.ready != new.ready):
            self._nudge(found.thing.environment)

    def _operated_changed(self, old: OperatedSeen | None, new: OperatedSeen | None) -> None:
        found = new or old
        if found is None or not self._remember(found.thing) or old == new:
            return
        if old is None and new is not None and any(said.phase == READY for said in new.says):
            return  # it was up before this process
        self._nudge(found.thing.environment)

    def _thing_changed(self, old: Thing | None, new: Thing | None) -> None:
        found = new or old
        if found and self._remember(found) and new is None:
            self._nudge(found.environment)  # it was deleted: mend it, or go on with taking it down

    def _node_changed(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        if old != new:
            self._nodes_changed.set()

    def _remember(self, item: Thing) -> bool:
        """Keep whose it is, for events about it. False for what belongs to no environment."""
        if len(self._by_uid) > self._tidy_at:
            self._by_uid = {each.uid: each.environment for each in self._all_things() if each.environment}
            self._tidy_at = max(_TIDY_FROM, 2 * len(self._by_uid))
        if item.environment:
            self._by_uid[item.uid] = item.environment
        return bool(item.environment)

    def _event_seen(self, _old: Object | None, event: Object | None) -> None:
        if event is None:
            return
        if self.leader.leads:
            self.recorder.event(event)
        else:
            self._missed_events.append((time.monotonic(), event))
        if event.get("type") == "Warning" and (environment_id := self._by_uid.get(event["involvedObject"].get("uid", ""))):
            self._nudge(environment_id)  # a refusal to make pods changes no object

    def _environment_of(self, about: Mapping[str, Any]) -> str | None:
        """The environment of the object that an event is about."""
        if about.get("kind") == "PersistentVolumeClaim":
            close_old_connections()
            users = Environment.objects.filter(volume__claim=about.get("name")).exclude(state=State.DELETED)
            found = users.values_list("pk", flat=True).first()
            return str(found) if found else None
        return self._by_uid.get(about.get("uid", ""))

    # --- nodes -------------------------------------------------------------------

    def _keep_nodes(self) -> None:
        """Store the nodes when they or their use have changed, and now and then anyway."""
        last: list[dict[str, Any]] = []
        stored = 0.0
        while not self.ending.is_set():
            self._nodes_changed.wait(_NODES_EVERY)
            self._nodes_changed.clear()
            if not self.leader.leads:
                stored = 0.0  # another one stores them; whatever it stored, begin anew
                self.ending.wait(_NODES_PAUSE)
                continue
            if not (self.nodes.synced.is_set() and self.pods.synced.is_set()):
                self.ending.wait(0.2)
                self._nodes_changed.set()
                continue
            rows = self._with_claimed(nodes.rows(self.nodes.objects(), [pod.use for pod in self.pods.objects() if pod.use]))
            if rows != last or time.monotonic() - stored > _NODES_EVERY:
                try:
                    close_old_connections()
                    services.nodes_observed(rows)
                    if nodes.gives_room(last, rows):
                        _send("workers.queue")
                    last, stored = rows, time.monotonic()
                except Exception as error:  # the database is away; the next round comes by itself
                    logger.warning("nodes not stored, tried again: error=%s", type(error).__name__)
                    self._nodes_changed.set()
            self.ending.wait(_NODES_PAUSE)

    def _with_claimed(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with devices of Dynamic Resource Allocation, where the catalogue has accelerators that claim them and the cluster serves it."""
        try:
            close_old_connections()
            wanted = [
                nodes.Claimable(key=chip.device_key, device_class=chip.dra["device_class"], selectors=tuple(chip.dra.get("selectors", ())))
                for chip in Accelerator.objects.exclude(dra={})
            ]
            if not wanted:
                return rows
            slices, classes, claims = (self._acting.find(kind) for kind in (api.DEVICE_SLICES, api.DEVICE_CLASSES, api.DEVICE_CLAIMS))
        except errors.Gone:
            return rows  # not served
        except (errors.ClusterError, DatabaseError) as error:
            logger.warning("claimed devices not counted: error=%s", type(error).__name__)
            return rows
        return nodes.with_claimed(rows, wanted, slices, classes, claims, settings.INSTALL_ID)

    # --- orphans -------------------------------------------------------------------

    def things(self) -> list[Thing] | None:
        """Everything with this installation's label; None while that is not known for certain."""
        needed: list[Mirror[Any]] = [self.pods, self.sets, *self.others]
        if not all(mirror.current for mirror in needed):
            return None
        return self._all_things()

    def _all_things(self) -> list[Thing]:
        found = [pod.thing for pod in self.pods.objects() if pod.thing] + [item.thing for item in self.sets.objects()]
        for mirror in self.others:
            found += mirror.objects()
        return found

    def _keep_house(self) -> None:
        """Look for what nobody wants, and for what is missing, each in its turn."""
        turns: list[tuple[float, Callable[[], object]]] = [
            (_ORPHANS_EVERY, lambda: self._with_things(self.orphans.objects)),
            (_SERVERS_EVERY, self.orphans.servers),
            (_CLAIMS_EVERY, lambda: self._with_things(self.orphans.claims)),
        ]
        due = [0.0] * len(turns)
        while not self.ending.wait(1.0):
            for number, (every, look) in enumerate(turns):
                if not self.leader.leads or time.monotonic() < due[number]:
                    continue
                due[number] = time.monotonic() + every
                try:
                    close_old_connections()
                    look()
                except HubError as error:
                    logger.info("servers not looked at, tried again: error=%s", error)
                except Exception as error:  # the database is away
                    logger.warning("orphans not looked for, tried again: error=%s", type(error).__name__, exc_info=not isinstance(error, OSError))

    def _with_things(self, look: Callable[[list[Thing]], object]) -> None:
        found = self.things()
        if found is not None:
            look(found)


def _send(task: str) -> None:
    try:
        app.send_task(task, ignore_result=True, expires=settings.SWEEP_SECONDS * 3)
    except Exception as error:  # any fault of the broker; the clock sends it soon anyway
        logger.warning("task not sent: task=%s error=%s", task, type(error).__name__)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    watcher = Watcher(api.connect(settings.KUBECONFIG_PATH), Hub(settings.HUB_API_URL, settings.HUB_SERVICE_TOKEN))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watcher.ending.set())
    watcher.start()
    logger.info("watcher started: install=%s", settings.INSTALL_ID)
    watcher.ending.wait()
    watcher.stop()
    logger.info("watcher stopped")
    logging.shutdown()
    os._exit(0)  # threads in the middle of a watch would hold the process for as long as the watch lasts


if __name__ == "__main__":
    main()
