"""Runs one pod: volumes, init containers, sidecars, containers, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k8s.local import volumes
from k8s.local.documents import Doc, at, meta, name_of, namespace_of, now
from k8s.local.errors import StatusError
from k8s.local.kubelet.container import Runner
from k8s.local.kubelet.env import Surroundings, service_links
from k8s.local.kubelet.launch import private_directory
from k8s.local.kubelet.status import Container, pod_status, policy_of
from k8s.local.volumes import Volume, VolumeError

if TYPE_CHECKING:
    from k8s.local.kubelet.manager import Kubelet

log = logging.getLogger(__name__)
COMPONENT = "kubelet"


class PodWorker:
    """One pod on this machine. `pod` is always its newest version."""

    def __init__(self, kubelet: Kubelet, pod: Doc) -> None:
        self.kubelet = kubelet
        self.pod = pod
        self.uid = meta(pod)["uid"]
        self.directory: Path = kubelet.pods_dir / self.uid
        self.ip = ""
        self.hostname = str(pod["spec"].get("hostname") or name_of(pod))[:63]
        self.volumes: dict[str, Volume] = {}
        self.devices: dict[str, str] = {}
        self.changed = asyncio.Event()
        self.failure: Doc | None = None
        self.stopping = False
        self.runners = [Runner(self, container) for container in _containers(pod)]
        self._started_at = now()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._main: asyncio.Task[None] | None = None
        self._stop_task: asyncio.Task[None] | None = None
        self._grace_shorter = asyncio.Event()

    # --- what the kubelet tells ---

    def start(self) -> None:
        self._main = self.background(self._run())
        if meta(self.pod).get("deletionTimestamp"):
            self._begin_stop()

    def update(self, pod: Doc) -> None:
        old, self.pod = self.pod, pod
        if meta(pod).get("deletionTimestamp"):
            if self._stop_task is None:
                self._begin_stop()
            elif meta(pod).get("deletionGracePeriodSeconds") != meta(old).get("deletionGracePeriodSeconds"):
                self._grace_shorter.set()
        elif any(meta(pod).get(key) != meta(old).get(key) for key in ("labels", "annotations")):
            self.source_changed("Pod", "")
        if pod["spec"].get("readinessGates") and at(pod, "status.conditions") != at(old, "status.conditions"):
            self.publish()

    def removed(self) -> None:
        """The object has gone: nothing of the pod may stay."""
        self.stopping = True
        self.background(self._clear_away())

    def source_changed(self, kind: str, name: str) -> None:
        """A ConfigMap or Secret of its namespace, or its own labels, changed."""
        self.changed.set()
        names = {item["name"] for item in self.pod["spec"].get("volumes") or [] if (kind, name) in volumes.made_of(item)} & set(self.volumes)
        if names:
            volumes.refresh(self.pod, self.directory / "volumes", self.around(), self.kubelet.token, names)

    # --- helpers for its containers ---

    @property
    def grace(self) -> int:
        found = meta(self.pod).get("deletionGracePeriodSeconds")
        return int(found if found is not None else self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("pod %s/%s: %r", namespace_of(self.pod), name_of(self.pod), task.exception(), exc_info=task.exception())

    def around(self) -> Surroundings:
        namespace = namespace_of(self.pod)
        node = self.kubelet.client.get("Node", None, self.pod["spec"]["nodeName"]) or {}
        return Surroundings(
            lambda kind, name: self.kubelet.client.get(kind, namespace, name), self.ip, self.kubelet.host_ip, at(node, "status.allocatable", {})
        )

    def base_env(self) -> dict[str, str]:
        found = {"HOSTNAME": self.hostname, "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.kubelet.options.port)}
        if self.pod["spec"].get("enableServiceLinks", True):
            found = {**service_links(self.kubelet.client.list("Service", namespace_of(self.pod))), **found}
        return {**found, **self.devices}

    def private_mounts(self, taken: list[dict[str, Any]], homes: Iterable[str], prefixes: Iterable[str]) -> list[dict[str, Any]]:
        """The pod's own /tmp, home and name files, where no volume is mounted; trees that one of these would hide stay visible."""
        targets = {item["target"].rstrip("/") for item in taken}
        found: list[dict[str, Any]] = []

        def bind(target: str, source: str, *, readonly: bool = False) -> None:
            if target not in targets:
                targets.add(target)
                found.append({"type": "bind", "target": target, "source": source, "readonly": readonly})

        bind("/etc/hosts", str(self.directory / "hosts"))
        bind("/etc/hostname", str(self.directory / "hostname"))
        bind("/tmp", private_directory(self.directory / "tmp"))  # noqa: S108 - a mount point in the container
        bind("/var/tmp", private_directory(self.directory / "var-tmp"))  # noqa: S108
        for home in homes:
            bind(home, private_directory(self.directory / "home"))
        if "/dev/shm" not in targets:  # noqa: S108
            found.append({"type": "tmpfs", "target": "/dev/shm", "size": 64 * 1024 * 1024})  # noqa: S108
        for prefix in prefixes:
            if any(prefix == target or prefix.startswith(f"{target}/") for target in targets):
                bind(prefix, prefix, readonly=True)
        return found

    def event(self, kind: str, reason: str, message: str) -> None:
        self.kubelet.client.event(self.pod, kind, reason, message, COMPONENT)

    def publish(self) -> None:
        """Writes the status, at once."""
        namespace, name = namespace_of(self.pod), name_of(self.pod)

        def change(doc: Doc) -> None:
            if meta(doc)["uid"] == self.uid:
                states = [runner.container for runner in self.runners]
                doc["status"] = pod_status(doc, states, ip=self.ip, host_ip=self.kubelet.host_ip, started_at=self._started_at, failure=self.failure)

        try:
            self.kubelet.client.modify("Pod", namespace, name, change, subresource="status")
        except StatusError as error:
            log.error("status of pod %s/%s refused: %s", namespace, name, error.message)

    # --- life ---

    async def _run(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.ip = self.kubelet.network.attach(self.pod, self.directory / "hosts")
        (self.directory / "hostname").write_text(self.hostname + "\n")
        if self._runs_init_first():
            for runner in self.runners:
                if runner.container.kind == "main":
                    runner.container.state = {"waiting": {"reason": "PodInitializing"}}
        try:
            self.devices = self.kubelet.devices.assign(self.pod)
        except LookupError as error:
            self.failure = {"reason": "UnexpectedAdmissionError", "message": f"Allocate failed due to {error}, which is unexpected"}
            self.publish()
            return
        fresh = not any(runner.base.exists() for runner in self.runners)
        if fresh:
            self.publish()
        await self._mount()
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline:
            self.background(self._enforce_deadline(float(deadline)))
        if await self._run_inits():
            mains = [runner for runner in self.runners if runner.container.kind == "main"]
            await asyncio.gather(*(runner.run() for runner in mains))
        await self._stop_sidecars()
        self.publish()
        self.kubelet.finished(self)

    def _runs_init_first(self) -> bool:
        return any(runner.container.kind != "main" for runner in self.runners)

    async def _mount(self) -> None:
        """Makes the volumes; waits, with an event, while something that they need is missing."""
        delay = 0.5
        while True:
            self.changed.clear()
            try:
                self.volumes = volumes.prepare(self.pod, self.directory / "volumes", self.around(), self._claim_path, self.kubelet.token)
                return
            except VolumeError as error:
                self.event("Warning", "FailedMount", str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), delay)
            delay = min(delay * 2, 120.0)

    def _claim_path(self, name: str) -> Path:
        return self.kubelet.claim_path(namespace_of(self.pod), name)

    async def _run_inits(self) -> bool:
        """Init containers one after the other, sidecars left running; False when one failed for good."""
        for runner in self.runners:
            if runner.container.kind == "sidecar":
                runner.task = self.background(runner.run())
                await runner.up.wait()
            elif runner.container.kind == "init":
                ended = await runner.run()
                if ended.code != 0 and policy_of(self.pod, runner.container) == "Never":
                    return False
        for runner in self.runners:
            if runner.container.kind == "main" and at(runner.container.state, "waiting.reason") == "PodInitializing":
                runner.container.state = {"waiting": {"reason": "ContainerCreating"}}
        return True

    async def _enforce_deadline(self, seconds: float) -> None:
        from k8s.local.documents import parse_time

        start = parse_time(at(self.pod, "status.startTime", self._started_at)).timestamp()
        await asyncio.sleep(max(0.0, start + seconds - time.time()))
        self.event("Normal", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        self.failure = {"reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline"}
        if self._main:
            self._main.cancel()
        await self._stop_containers(float(self.grace))
        self.publish()
        self.kubelet.finished(self)

    # --- end ---

    def _begin_stop(self) -> None:
        self.stopping = True
        self._stop_task = self.background(self._stop())

    def _cancel_work(self) -> None:
        current = asyncio.current_task()
        for task in list(self._tasks):
            if task is not current:
                task.cancel()

    async def _stop(self) -> None:
        """Deletion: everything is ended within the grace period, then the object goes."""
        self._cancel_work()
        await self._stop_containers(float(self.grace))
        self.publish()
        await self._clear_away()
        with contextlib.suppress(StatusError):  # gone already
            self.kubelet.client.delete("Pod", namespace_of(self.pod), name_of(self.pod), grace=0, uid=self.uid)

    async def _stop_containers(self, grace: float) -> None:
        """Containers together, then sidecars in reverse; a deletion with a shorter grace period in between counts."""
        begun = time.monotonic()
        mains = [runner for runner in self.runners if runner.container.kind != "sidecar"]
        work: asyncio.Future[Any] = asyncio.gather(*(runner.stop(grace) for runner in mains))
        watch: asyncio.Future[Any] = asyncio.ensure_future(self._grace_shorter.wait())
        try:
            while not work.done():
                await asyncio.wait([work, watch], return_when=asyncio.FIRST_COMPLETED)
                if watch.done() and not work.done():
                    self._grace_shorter.clear()
                    watch = asyncio.ensure_future(self._grace_shorter.wait())
                    asyncio.get_running_loop().call_later(max(0.0, begun + self.grace - time.monotonic()), self._kill)
        finally:
            watch.cancel()
        await work
        await self._stop_sidecars(max(1.0, begun + grace - time.monotonic()) if grace else 0.0)

    def _kill(self) -> None:
        for runner in self.runners:
            if runner.process is not None:
                runner.process.kill()

    async def _stop_sidecars(self, grace: float | None = None) -> None:
        for runner in reversed(self.runners):
            if runner.container.kind == "sidecar":
                if runner.task is not None:
                    runner.task.cancel()  # or it would start again
                await runner.stop(float(self.grace) if grace is None else grace)

    async def _clear_away(self) -> None:
        self._cancel_work()
        for runner in self.runners:
            running = await runner.find_process()
            if running is not None:
                await runner.stop_process(running, 0.0)
        self.kubelet.forget(self)
        volumes.forget_memory(self.uid)
        await asyncio.to_thread(shutil.rmtree, self.directory, True)

    async def started(self) -> None:
        """Returns when no container is between its launch and the record of it: one that is could be neither killed nor found again."""
        for runner in self.runners:
            await runner.launched()

    def detach(self) -> None:
        """The cluster process ends; the containers go on."""
        self._cancel_work()


def _containers(pod: Doc) -> list[Container]:
    inits = [
        Container(spec, "sidecar" if spec.get("restartPolicy") == "Always" else "init", {"waiting": {"reason": "PodInitializing"}})
        for spec in pod["spec"].get("initContainers") or []
    ]
    return inits + [Container(spec, "main") for spec in pod["spec"]["containers"]]
