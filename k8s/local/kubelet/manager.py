"""The kubelet of every node: one worker for each pod that was given to one of this cluster's nodes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k8s.local.client import Change, Client
from k8s.local.documents import Doc, at, meta, name_of, namespace_of
from k8s.local.errors import StatusError
from k8s.local.kubelet import process
from k8s.local.kubelet.cgroups import Cgroups
from k8s.local.kubelet.devices import Devices, GpuMeter, find_gpus
from k8s.local.kubelet.pod import PodWorker
from k8s.local.kubelet.process import REBOOTED, Isolation, Process
from k8s.local.kubelet.status import Container
from k8s.local.kubelet.usage import Meter
from k8s.local.nodes import is_lost
from k8s.local.options import Options
from k8s.local.runtimes import Images
from k8s.local.store import Entry
from k8s.local.volumes import VolumeError

if TYPE_CHECKING:
    from k8s.local.network import Network

log = logging.getLogger(__name__)
STOP_GRACE = 3.0  # seconds between TERM and KILL when the cluster itself ends
_WATCHED = ("Node", "Pod", "ConfigMap", "Secret", "PersistentVolumeClaim")


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Without those that lie below another one: what a masked directory holds cannot be reached any more, not even to mask it."""
    kept: list[Path] = []
    for path in sorted(paths):
        if not any(path.is_relative_to(one) for one in kept):
            kept.append(path)
    return kept


class Kubelet:
    def __init__(self, client: Client, options: Options, network: Network, isolation: Isolation) -> None:
        self.client = client
        self.options = options
        self.network = network
        self.isolation = isolation
        self.host_ip = "127.0.0.1"
        self.pods_dir = options.state_dir / "pods"
        self.pods_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.images = Images.load(options.runtimes_file)
        self.cgroups = Cgroups(options.state_dir)
        self.gpus = find_gpus()
        self.devices = Devices(client, self.gpus, self.pods_dir)
        self.workers: dict[str, PodWorker] = {}
        self.meter = Meter(self, options.metrics_window)
        self.gpu_meter = GpuMeter(self.devices)
        hidden = [options.state_dir, *map(Path, filter(None, os.environ.get("ATELIER_CLUSTER_HIDE", "").split(":")))]
        programs = (Path(sys.prefix), Path(sys.base_prefix))  # pods run what is there
        self.masks = [str(path) for path in _outermost(path for path in hidden if not any(each.is_relative_to(path) for each in programs))]
        self._background: set[asyncio.Task[Any]] = set()
        self._cut_off: dict[str, asyncio.Task[Any]] = {}  # nodes that are lost, and the end of what was being started there

    # --- following the API ---

    async def run(self) -> None:
        self._bury_orphans()
        async for change in self.client.changes(*_WATCHED):
            try:
                self._take(change)
            except Exception:
                log.exception("kubelet: %s %s/%s", change.kind, namespace_of(change.object), name_of(change.object))

    def _take(self, change: Change) -> None:
        if change.kind == "Pod":
            self._take_pod(change)
            return
        if change.kind == "Node":
            self._take_node(change)
            return
        namespace, name = namespace_of(change.object), name_of(change.object)
        for worker in list(self.workers.values()):
            if namespace_of(worker.pod) == namespace:
                worker.source_changed(change.kind, name)

    def _take_pod(self, change: Change) -> None:
        pod, uid = change.object, meta(change.object)["uid"]
        worker = self.workers.get(uid)
        if change.type == "DELETED":
            if worker is not None:
                worker.removed()
            elif (self.pods_dir / uid).exists():
                self._in_background(self._bury(uid, pod["spec"].get("nodeName") or ""))
            return
        if worker is not None:
            worker.update(pod)
            return
        if not pod["spec"].get("nodeName") or self.unreachable(pod["spec"]["nodeName"]):
            return
        if at(pod, "status.phase") in ("Succeeded", "Failed"):
            if meta(pod).get("deletionTimestamp") and not meta(pod).get("finalizers"):
                with contextlib.suppress(StatusError):
                    self.client.delete("Pod", namespace_of(pod), name_of(pod), grace=0, uid=uid)
            return
        if self.client.get("Node", None, pod["spec"]["nodeName"]) is None:
            return
        current = self.client.get("Pod", namespace_of(pod), name_of(pod))
        if current is None or meta(current)["uid"] != uid:
            return  # an old change: the pod has gone meanwhile
        self.workers[uid] = PodWorker(self, current)
        self.workers[uid].start()

    def unreachable(self, node: str) -> bool:
        return node in self._cut_off or is_lost(self.client.get("Node", None, node))

    def _take_node(self, change: Change) -> None:
        """A node that is cut off: what runs there runs on, unattended. When it is back, its pods are found again as after a restart."""
        name = name_of(change.object)
        if change.type != "DELETED" and is_lost(change.object):
            if name not in self._cut_off:
                self._cut_off[name] = self._in_background(self._let_go(name))
        elif name in self._cut_off and change.type != "DELETED":
            self._in_background(self._return(name, self._cut_off[name]))
        elif change.previous is not None and _ready(change.object) and not _ready(change.previous):
            # While the node was silent its pods were called unready by others.
            for worker in list(self.workers.values()):
                if worker.pod["spec"].get("nodeName") == name:
                    worker.publish()

    async def _let_go(self, node: str) -> None:
        workers = [worker for worker in self.workers.values() if worker.pod["spec"].get("nodeName") == node]
        for worker in workers:
            worker.detach()
            del self.workers[worker.uid]
        for worker in workers:
            await worker.started()

    async def _return(self, node: str, parting: asyncio.Task[Any]) -> None:
        await parting
        if is_lost(self.client.get("Node", None, node)) or self._cut_off.pop(node, None) is None:
            return
        for pod in self.client.list("Pod"):
            if pod["spec"].get("nodeName") == node:
                self._take_pod(Change("MODIFIED", "Pod", pod, Entry(pod, int(meta(pod)["resourceVersion"])), "pods"))

    async def _bury(self, uid: str, node: str) -> None:
        """Ends what is left of a pod that has gone and that nobody attends to: its node is cut off, or its end came between two starts."""
        parting = self._cut_off.get(node)
        if parting is not None:
            await parting
        running = running_below(self.pods_dir / uid)
        for found in running:
            found.kill()
        await self._all_gone(running, 5.0)
        self.devices.release(uid)
        self.network.detach(uid)
        await asyncio.to_thread(shutil.rmtree, self.pods_dir / uid, True)

    def _in_background(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._forget_task)
        return task

    def _forget_task(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("kubelet: %r", task.exception(), exc_info=task.exception())

    def _bury_orphans(self) -> None:
        """Ends what runs for pods that are no longer there, after an end of the cluster process in between."""
        known = {meta(pod)["uid"] for pod in self.client.list("Pod")}
        for directory in self.pods_dir.iterdir():
            if directory.name not in known:
                self._in_background(self._bury(directory.name, ""))

    # --- what workers ask ---

    def finished(self, worker: PodWorker) -> None:
        """All containers of a pod have ended for good: its log stays, the rest is given back."""
        self.devices.release(worker.uid)
        self.network.detach(worker.uid)
        if self.workers.get(worker.uid) is worker and not meta(worker.pod).get("deletionTimestamp"):
            del self.workers[worker.uid]

    def forget(self, worker: PodWorker) -> None:
        self.devices.release(worker.uid)
        self.network.detach(worker.uid)
        if self.workers.get(worker.uid) is worker:
            del self.workers[worker.uid]

    def claim_path(self, namespace: str, name: str) -> Path:
        claim = self.client.get("PersistentVolumeClaim", namespace, name)
        volume = self.client.get("PersistentVolume", None, at(claim, "spec.volumeName", "")) if claim else None
        path = at(volume, "spec.local.path") or at(volume, "spec.hostPath.path")
        if claim is None:
            raise VolumeError(f'persistentvolumeclaim "{name}" not found')
        if not path or at(claim, "status.phase") != "Bound":
            raise VolumeError(f'PVC "{name}" is not bound')
        Path(path).mkdir(parents=True, exist_ok=True)
        return Path(path)

    def token(self, pod: Doc, wanted: Mapping[str, Any]) -> str:
        """A projected service account token: the embedded cluster knows no service accounts' rights, so it is an empty promise."""
        return f"embedded:{namespace_of(pod)}:{pod['spec'].get('serviceAccountName') or 'default'}:{int(time.time())}"

    def plain_paths(self, document: dict[str, Any], worker: PodWorker) -> dict[str, Any]:
        from k8s.local.kubelet.plain import rewrite

        return rewrite(document, worker, self.options.service_domain)

    # --- finding containers ---

    def directory(self, pod: Doc, container: str) -> Path:
        return self.pods_dir / meta(pod)["uid"] / "containers" / container

    def container(self, pod: Doc, name: str) -> Container | None:
        worker = self.workers.get(meta(pod)["uid"])
        if worker is None:
            return None
        return next((runner.container for runner in worker.runners if runner.container.name == name), None)

    def process(self, pod: Doc, name: str) -> Process | None:
        worker = self.workers.get(meta(pod)["uid"])
        if worker is None:
            return None
        return next((runner.process for runner in worker.runners if runner.container.name == name), None)

    # --- the end ---

    async def stop(self, *, kill_pods: bool) -> None:
        """Without `kill_pods` everything goes on running and is found again at the next start."""
        workers = list(self.workers.values())
        for worker in workers:
            worker.detach()
        for worker in workers:
            await worker.started()
        if not kill_pods:
            return
        running = [found for directory in self.pods_dir.iterdir() for found in running_below(directory)]
        for found in running:
            (found.directory / REBOOTED).touch()
            found.terminate()
        await self._all_gone(running, STOP_GRACE)
        for found in running:
            found.kill()
        await self._all_gone(running, 2.0)
        for found in running:
            found.kill_hard()
        await self._all_gone(running, 1.0)
        self.cgroups.clear()

    @staticmethod
    async def _all_gone(running: list[Process], seconds: float) -> None:
        left = [found for found in running if found.alive]
        if left:
            await asyncio.wait([asyncio.ensure_future(found.wait()) for found in left], timeout=seconds)


def _ready(node: Doc) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in at(node, "status.conditions", []))


def running_below(directory: Path) -> list[Process]:
    """Every container process of a pod's directory that is alive."""
    found = []
    for state in directory.glob("containers/*/*/state.json"):
        if not (state.parent / "exit.json").exists():
            adopted = process.adopt(state.parent)
            if adopted is not None and adopted.alive:
                found.append(adopted)
    return found
