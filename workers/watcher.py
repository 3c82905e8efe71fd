"""Long process: hears what happens in the cluster and at the Hub, and wakes workers up. Decides nothing, and never gives up.

    python -m workers.watcher

It keeps lists of pods, StatefulSets and nodes, tells Kubernetes' events in the history of environments, follows the start of
notebooks at the Hub, and keeps the portal's picture of what is free on the nodes.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
if __name__ == "__main__":
    django.setup()

from django.conf import settings
from django.db import close_old_connections

from k8s import cluster as api
from k8s import names
from k8s.cluster import Cluster
from portal.domain import services
from portal.domain.lifecycle import State
from portal.domain.models import Environment

from . import nodes
from .history import Line, Recorder
from .hub import Hub, HubAbsent, HubError, HubRefused
from .mirror import Mirror
from .nudges import Nudges

logger = logging.getLogger(__name__)

Object = dict[str, Any]

_OLD_EVENTS = timedelta(minutes=10)  # older ones were told by an earlier watcher, or are of no interest any more
_NODES_EVERY = 60.0
_NODES_PAUSE = 1.0
_FOLLOW_EVERY = 2.0


class Watcher:
    """All of it, as threads of one process."""

    def __init__(self, cluster: Cluster, hub: Hub) -> None:
        self.ending = threading.Event()
        self.nudges = Nudges()
        self.recorder = Recorder(self._environment_of)
        self.starts = Starts(hub, self.nudges, self.recorder, self.ending)
        ours = f"{names.INSTALL}={settings.INSTALL_ID},{names.ENVIRONMENT}"
        self._nodes_changed = threading.Event()
        self._by_uid: dict[str, str] = {}  # object -> environment; objects that are gone stay until the next tidying
        self.pods = Mirror(cluster, api.PODS, self._pod_changed)
        self.sets = Mirror(cluster, api.STATEFUL_SETS, self._set_changed, labels=ours)
        self.nodes = Mirror(cluster, api.NODES, lambda old, new: self._nodes_changed.set())
        self.events = Mirror(cluster, api.EVENTS, self._event_seen, keep=False)

    def start(self) -> None:
        threads = (self.nudges, self.recorder, self.pods, self.sets, self.nodes, self.events)
        for thread in threads:
            thread.start()
        for name, work in (("nodes", self._keep_nodes), ("starts", self.starts.run)):
            threading.Thread(target=work, name=name, daemon=True).start()

    def stop(self) -> None:
        self.ending.set()
        for mirror in (self.pods, self.sets, self.nodes, self.events):
            mirror.stop()

    # --- what changes ------------------------------------------------------------

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if _use(old) != _use(new):
            self._nodes_changed.set()
        environment_id = self._remember(new or old)
        if environment_id is None or _outline(old) == _outline(new):
            return
        self.nudges.nudge(environment_id)
        if new is not None and old is None and new["metadata"]["labels"].get(names.KIND) == "notebook":
            owner = new["metadata"].get("annotations", {}).get(names.OWNER_NAME, "")
            self.starts.follow(environment_id, owner, new["metadata"]["name"])

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        environment_id = self._remember(new or old)
        counts = [(item or {}).get("status", {}).get("readyReplicas", 0) for item in (old, new)]
        if environment_id and (old is None or new is None or counts[0] != counts[1]):
            self.nudges.nudge(environment_id)

    def _remember(self, item: Object | None) -> str | None:
        """The environment of an object that is ours."""
        labels = (item or {}).get("metadata", {}).get("labels") or {}
        environment_id = labels.get(names.ENVIRONMENT)
        if item is None or not environment_id or labels.get(names.INSTALL) != settings.INSTALL_ID:
            return None
        if len(self._by_uid) > 50_000:
            self._by_uid.clear()
        self._by_uid[item["metadata"]["uid"]] = environment_id
        return str(environment_id)

    def _event_seen(self, _old: Object | None, event: Object | None) -> None:
        if event is None or not event["metadata"]["namespace"].startswith(names.namespace("")):
            return
        when = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
        if when and datetime.now(UTC) - datetime.fromisoformat(when) > _OLD_EVENTS:
            return
        self.recorder.event(event)
        if event.get("type") == "Warning" and (environment_id := self._by_uid.get(event["involvedObject"].get("uid", ""))):
            self.nudges.nudge(environment_id)  # a refusal to make pods changes no object

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
        last: list[dict[str, Any]] | None = None
        stored = 0.0
        while not self.ending.is_set():
            self._nodes_changed.wait(_NODES_EVERY)
            self._nodes_changed.clear()
            if not (self.nodes.synced.is_set() and self.pods.synced.is_set()):
                self.ending.wait(0.2)
                self._nodes_changed.set()
                continue
            rows = nodes.rows(self.nodes.objects(), [use for pod in self.pods.objects() if (use := _use(pod))])
            if rows != last or time.monotonic() - stored > _NODES_EVERY:
                try:
                    close_old_connections()
                    services.nodes_observed(rows)
                    last, stored = rows, time.monotonic()
                except Exception as error:  # the database is away; the next round comes by itself
                    logger.warning("nodes not stored, tried again: error=%s", type(error).__name__)
                    self._nodes_changed.set()
            self.ending.wait(_NODES_PAUSE)


def _use(pod: Object | None) -> nodes.Use | None:
    return nodes.usage(pod, settings.INSTALL_ID) if pod else None


def _outline(pod: Object | None) -> Any:
    """What of a pod matters to its environment: heartbeats and annotations do not."""
    if pod is None:
        return None
    status = pod.get("status", {})
    conditions = [(item["type"], item["status"], item.get("message")) for item in status.get("conditions", ())]
    containers = [(item.get("state"), item.get("ready"), item.get("restartCount")) for item in status.get("containerStatuses", ())]
    return status.get("phase"), status.get("podIP"), pod["spec"].get("nodeName"), bool(pod["metadata"].get("deletionTimestamp")), conditions, containers


class Starts:
    """Follows servers that are starting at the Hub: its words go into the history, its verdict wakes a worker."""

    def __init__(self, hub: Hub, nudges: Nudges, recorder: Recorder, ending: threading.Event) -> None:
        self._hub, self._nudges, self._recorder, self._ending = hub, nudges, recorder, ending
        self._followed: set[str] = set()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Look for starts that no pod has told of: a spawn can fail before there is one."""
        while not self._ending.wait(_FOLLOW_EVERY):
            try:
                close_old_connections()
                rows = Environment.objects.filter(kind="notebook", state=State.PROVISIONING).select_related("owner")
                for environment in rows:
                    name = names.object_name(environment.name, str(environment.pk))
                    self.follow(str(environment.pk), environment.owner.username, name)
            except Exception as error:  # the database is away
                logger.warning("starting notebooks not listed, tried again: error=%s", type(error).__name__)

    def follow(self, environment_id: str, owner: str, name: str) -> None:
        """Follow a start in a thread of its own, unless that is being done."""
        with self._lock:
            if not owner or environment_id in self._followed or len(self._followed) >= 64:
                return
            self._followed.add(environment_id)
        threading.Thread(target=self._follow, args=(environment_id, owner, name), name="start", daemon=True).start()

    def _follow(self, environment_id: str, owner: str, name: str) -> None:
        started = int(time.time())
        try:
            for number, progress in enumerate(self._hub.progress(owner, name)):
                if progress.ready or progress.failed:
                    self._nudges.nudge(environment_id)
                # What pods go through is told from the cluster's own events; here only what the Hub alone knows.
                if progress.message and not progress.is_pod_event and not progress.failed:
                    told = Line(kind="info", code="Hub", message=f"JupyterHub: {progress.message}", source=f"hub:{name}:{started}:{number}")
                    self._recorder.tell(environment_id, told)
        except (HubAbsent, HubRefused):
            pass  # not starting (any more)
        except HubError as error:
            logger.info("progress of a start broke off, taken up again: environment=%s error=%s", environment_id, error)
        except Exception:
            logger.exception("a start could not be followed: environment=%s", environment_id)
        finally:
            self._ending.wait(1.0)
            with self._lock:
                self._followed.discard(environment_id)


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
