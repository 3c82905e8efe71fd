"""Runs one container of a pod: image, configuration, start, probes, restart with back-off."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k8s.local import volumes
from k8s.local.documents import Doc, at, meta
from k8s.local.kubelet import probes, process
from k8s.local.kubelet.env import ConfigError
from k8s.local.kubelet.launch import launch_document
from k8s.local.kubelet.process import Exit, Process, StartError
from k8s.local.kubelet.status import Container, policy_of, rfc3339
from k8s.local.runtimes import LocalRuntime, image_id

if TYPE_CHECKING:
    from k8s.local.kubelet.pod import PodWorker

BACKOFF_FIRST, BACKOFF_MOST, BACKOFF_RESET = 10.0, 300.0, 600.0
_RETRY = 5.0  # seconds until a missing ConfigMap or Secret is looked for again when nothing was heard of it


class Runner:
    """One container, from its image to its last exit."""

    def __init__(self, worker: PodWorker, container: Container) -> None:
        self.worker = worker
        self.container = container
        self.process: Process | None = None
        self.base = worker.directory / "containers" / container.name
        self.task: asyncio.Task[Any] | None = None  # of a sidecar
        self._starting: asyncio.Task[Process] | None = None
        self._failures = 0
        self._probes: list[asyncio.Task[None]] = []
        self.up = asyncio.Event()  # started and, with a startup probe, past it

    # --- life ---

    async def run(self) -> Exit:
        """Until the container has ended for good; how it did."""
        found = self._adopt()
        while True:
            if found is None:
                found = await self._start()
            ended = await self._attend(found) if isinstance(found, Process) else found
            self._note_exit(ended)
            if not self._restarts(ended):
                return ended
            await self._back_off(ended)
            self.container.restarts += 1
            found = None

    def _restarts(self, ended: Exit) -> bool:
        policy = policy_of(self.worker.pod, self.container)
        return policy == "Always" or (policy == "OnFailure" and ended.code != 0)

    def _adopt(self) -> Process | Exit | None:
        """What an earlier cluster process left of this container: running, ended, or nothing."""
        attempts = sorted((int(path.name) for path in self.base.glob("[0-9]*")), reverse=True) if self.base.is_dir() else []
        if not attempts:
            return None
        self.container.restarts = attempts[0]
        known = [*at(self.worker.pod, "status.containerStatuses", []), *at(self.worker.pod, "status.initContainerStatuses", [])]
        was: Doc = next((item for item in known if item["name"] == self.container.name), {})
        self.container.last = was.get("lastState") or {}
        self.container.container_id, self.container.image_id = was.get("containerID", ""), was.get("imageID", "")
        directory = self.base / str(attempts[0])
        found = process.adopt(directory)
        if found is not None:
            self.container.state = {"running": {"startedAt": rfc3339(found.started_at)}}
            if found.alive:
                return found
        ended = process.read_exit(directory)
        if ended is None and found is None:
            shutil.rmtree(directory, ignore_errors=True)  # it never began
            return None
        return ended or Exit(255, time.time(), rebooted=True)

    def _note_exit(self, ended: Exit) -> None:
        container = self.container
        started = at(container.state, "running.startedAt", rfc3339(ended.finished_at))
        container.state = {
            "terminated": {
                "exitCode": ended.code,
                "reason": ended.reason,
                "startedAt": started,
                "finishedAt": rfc3339(ended.finished_at),
                "containerID": container.container_id,
                **({"signal": ended.signal} if ended.signal else {}),
            }
        }
        message = ended.error or ("The container ended with the cluster process" if ended.rebooted else self._termination_message(ended))
        if message:
            container.state["terminated"]["message"] = message
        container.started = container.probed_ready = False
        self.up.clear()
        self.process = None
        self.worker.publish()

    def _termination_message(self, ended: Exit) -> str:
        if self.container.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError" and ended.code:
            from k8s.local.kubelet.logs import last_text

            return last_text(self.log_path(), 80, 2048)
        with contextlib.suppress(OSError):
            return (self.base / "termination-log").read_bytes()[:4096].decode(errors="replace")
        return ""

    async def _back_off(self, ended: Exit) -> None:
        """Waits before the next run: not at all the first time, then 10 s, doubling to 5 minutes."""
        container, pod = self.container, self.worker.pod
        started = at(container.state, "terminated.startedAt", "")
        ran = ended.finished_at - _seconds(started) if started else 0.0
        if ran >= BACKOFF_RESET or ended.rebooted:
            self._failures = 0
        container.last = container.state
        if self._failures:
            delay = min(BACKOFF_FIRST * 2 ** (self._failures - 1), BACKOFF_MOST)
            name = f"{meta(pod)['name']}_{meta(pod)['namespace']}({meta(pod)['uid']})"
            message = f"back-off {_duration(delay)} restarting failed container={container.name} pod={name}"
            container.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
            self.worker.publish()
            self.worker.event("Warning", "BackOff", f"Back-off restarting failed container {container.name} in pod {name}")
            await asyncio.sleep(max(0.0, ended.finished_at + delay - time.time()))
        self._failures += 1

    # --- start ---

    def _wait_for(self, reason: str, message: str = "") -> None:
        self.container.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self.worker.publish()

    async def _start(self) -> Process | Exit:
        runtime = await self._image()
        while True:
            self.worker.changed.clear()
            try:
                spec = launch_document(self.worker, self.container, self.base, runtime)
                break
            except (ConfigError, volumes.VolumeError) as error:
                self._wait_for("CreateContainerConfigError", str(error))
                self.worker.event("Warning", "Failed", f"Error: {error}")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.worker.changed.wait(), _RETRY)
        self.worker.event("Normal", "Created", f"Created container: {self.container.name}")
        self._starting = asyncio.create_task(process.start(spec))
        try:
            started = await asyncio.shield(self._starting)
        except StartError as error:
            self.worker.event("Warning", "Failed", f"Error: {error}")
            return Exit(128, time.time(), error=str(error))
        self.worker.event("Normal", "Started", f"Started container {self.container.name}")
        return started

    async def _image(self) -> LocalRuntime:
        """The local runtime that stands for the image; waits, as a node does that cannot pull it, while there is none."""
        image, policy = self.container.spec["image"], self.container.spec.get("imagePullPolicy") or "IfNotPresent"
        delay = BACKOFF_FIRST
        while True:
            runtime = self.worker.kubelet.images.find(image)
            missing = runtime.missing() if runtime else ""
            if runtime is not None and not missing:
                if policy == "Always":
                    self.worker.event("Normal", "Pulling", f'Pulling image "{image}"')
                    self.worker.event("Normal", "Pulled", f'Successfully pulled image "{image}" in 1ms (1ms including waiting). Image size: 0 bytes.')
                else:
                    self.worker.event("Normal", "Pulled", f'Container image "{image}" already present on machine')
                self.container.image_id = image_id(image)
                return runtime
            if policy == "Never":
                why = f'Container image "{image}" is not present with pull policy of Never'
                self._wait_for("ErrImageNeverPull", why)
                self.worker.event("Warning", "ErrImageNeverPull", why)
                self.worker.event("Warning", "Failed", "Error: ErrImageNeverPull")
            else:
                full = full_name(image)
                why = f'failed to pull and unpack image "{full}": ' + (missing or f'failed to resolve reference "{full}": {full}: not found')
                self.worker.event("Normal", "Pulling", f'Pulling image "{image}"')
                self._wait_for("ErrImagePull", why)
                self.worker.event("Warning", "Failed", f'Failed to pull image "{image}": {why}')
                self.worker.event("Warning", "Failed", "Error: ErrImagePull")
                await asyncio.sleep(1)
                self._wait_for("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {why}')
                self.worker.event("Normal", "BackOff", f'Back-off pulling image "{image}"')
                self.worker.event("Warning", "Failed", "Error: ImagePullBackOff")
            await asyncio.sleep(delay)
            delay = min(delay * 2, BACKOFF_MOST)

    # --- while it runs ---

    async def _attend(self, running: Process) -> Exit:
        container = self.container
        self.process = running
        self._starting = None
        spec = container.spec
        container.state = {"running": {"startedAt": rfc3339(running.started_at)}}
        container.started = not spec.get("startupProbe")
        container.probed_ready = not spec.get("readinessProbe")
        hook = at(spec, "lifecycle.postStart")
        if hook and not (running.directory / "hooked").exists():
            container.started = False
            self._probes = [asyncio.create_task(self._post_start(hook, running))]
        else:
            self._probes = [asyncio.create_task(self._probe(running))]
        if container.started:
            self.up.set()
        self.worker.publish()
        try:
            return await running.wait()
        finally:
            for task in self._probes:
                task.cancel()
            self._probes = []

    async def _post_start(self, hook: Doc, running: Process) -> None:
        good, why = await probes.act(hook, self.container.spec, running, self.worker.ip, 600.0)
        if not good:
            self.worker.event("Warning", "FailedPostStartHook", f"PostStartHook failed: {why}")
            await self.stop_process(running, float(self.worker.grace))
            return
        (running.directory / "hooked").touch()
        if not self.container.spec.get("startupProbe"):
            self._set_up()
        await self._probe(running)

    def _set_up(self) -> None:
        self.container.started = True
        self.up.set()
        self.worker.publish()

    async def _probe(self, running: Process) -> None:
        """All probes of a running container, startup first."""
        spec = self.container.spec
        loops = []
        if spec.get("startupProbe"):
            passed = asyncio.Event()

            def startup(good: bool, why: str) -> None:
                if good:
                    passed.set()
                    self._set_up()
                else:
                    self._kill_unhealthy(running, "startup", spec["startupProbe"])

            first = asyncio.create_task(self._loop("startup", running, startup, begin=False))
            try:
                await passed.wait()
            finally:
                first.cancel()
        if spec.get("readinessProbe"):
            loops.append(self._loop("readiness", running, self._set_ready, begin=False))
        if spec.get("livenessProbe"):

            def alive(good: bool, why: str) -> None:
                if not good:
                    self._kill_unhealthy(running, "liveness", spec["livenessProbe"])

            loops.append(self._loop("liveness", running, alive, begin=True))
        if loops:
            await asyncio.gather(*loops)

    def _set_ready(self, good: bool, why: str) -> None:
        if self.container.probed_ready != good:
            self.container.probed_ready = good
            self.worker.publish()

    async def _loop(self, name: str, running: Process, verdict: Any, *, begin: bool) -> None:
        probe = self.container.spec[f"{name}Probe"]
        timeout = float(probe.get("timeoutSeconds") or 1)

        async def attempt() -> tuple[bool, str]:
            return await probes.act(probe, self.container.spec, running, self.worker.ip, timeout)

        def failed(why: str) -> None:
            self.worker.event("Warning", "Unhealthy", f"{name.capitalize()} probe failed: {why}")

        await probes.watch(probe, attempt, verdict, begin=begin, failed=failed)

    def _kill_unhealthy(self, running: Process, name: str, probe: Doc) -> None:
        if (running.directory / "unhealthy").exists():
            return
        (running.directory / "unhealthy").touch()
        self.worker.event("Normal", "Killing", f"Container {self.container.name} failed {name} probe, will be restarted")
        grace = float(probe.get("terminationGracePeriodSeconds") or self.worker.grace)
        self.worker.background(self.stop_process(running, grace))

    # --- stop ---

    async def launched(self) -> None:
        if self._starting is not None:
            with contextlib.suppress(StartError):
                await asyncio.shield(self._starting)

    async def find_process(self) -> Process | None:
        """What runs of this container, whoever started it."""
        if self.process is None and self._starting is not None:
            with contextlib.suppress(StartError):
                self.process = await asyncio.shield(self._starting)  # a launch is never left half done
        if self.process is None and self._starting is None:
            found = self._adopt()
            self.process = found if isinstance(found, Process) else None
        return self.process

    async def stop(self, grace: float) -> None:
        """Ends the container: preStop, TERM, and KILL of everything in it when `grace` seconds are over."""
        running = await self.find_process()
        if running is None:
            return
        self.worker.event("Normal", "Killing", f"Stopping container {self.container.name}")
        await self.stop_process(running, grace)
        self._note_exit(await running.wait())

    async def stop_process(self, running: Process, grace: float) -> None:
        deadline = time.monotonic() + max(0.0, grace)
        hook = at(self.container.spec, "lifecycle.preStop")
        if hook and grace > 0 and running.alive:
            with contextlib.suppress(TimeoutError):
                good, why = await asyncio.wait_for(probes.act(hook, self.container.spec, running, self.worker.ip, grace), grace)
                if not good:
                    self.worker.event("Warning", "FailedPreStopHook", f"PreStopHook failed: {why}")
        if grace > 0:
            running.terminate()
            # A hook that used up everything leaves two seconds, as in Kubernetes.
            left = max(deadline - time.monotonic(), 2.0 if hook else 0.05)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running.wait(), left)
                return
        running.kill()
        try:
            await asyncio.wait_for(running.wait(), 5)
        except TimeoutError:
            running.kill_hard()
            await running.wait()

    def log_path(self, *, previous: bool = False) -> Path:
        attempt = self.container.restarts - 1 if previous else self.container.restarts
        return self.base / str(attempt) / "log"


def full_name(image: str) -> str:
    """An image's name with registry and tag, as containerd shows it."""
    first = image.partition("/")[0]
    if "/" not in image:
        image = f"docker.io/library/{image}"
    elif "." not in first and ":" not in first and first != "localhost":
        image = f"docker.io/{image}"
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"


def _seconds(text: str) -> float:
    from k8s.local.documents import parse_time

    return parse_time(text).timestamp()
