"""A cluster in the test's own process (quick), and one as a process of its own with its HTTP API."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client as k8s
from kubernetes import config

from k8s.local import namespaces
from k8s.local.client import Client
from k8s.local.documents import at
from k8s.local.errors import StatusError
from k8s.local.gc import Housekeeper
from k8s.local.kinds import Kinds
from k8s.local.objects import Objects
from k8s.local.options import Options
from k8s.local.runtime import ISOLATION, Runtime, start
from k8s.local.store import Store

ROOT = Path(__file__).resolve().parents[4]
PATIENCE = 60.0  # seconds; only a broken cluster takes that long


async def until(look: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """The first true answer of `look`."""
    end = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.01)
    return found


class World:
    """A cluster without HTTP, and what tests ask of it."""

    def __init__(self, state: Path, toleration_seconds: int = 300) -> None:
        self.state = state
        self.toleration_seconds = toleration_seconds
        self.state.mkdir(parents=True, exist_ok=True)
        self.reopen()

    def reopen(self) -> None:
        self.store = Store(self.state / "objects.sqlite3")
        self.client = Client(Objects(self.store, Kinds(), self.toleration_seconds))
        self.keeper = Housekeeper(self.client, "authority")
        namespaces.seed(self.client, "authority")
        self.runtime: Runtime
        self._keeping: asyncio.Task[None]

    async def begin(self, **options: Any) -> None:
        self._keeping = asyncio.create_task(self.keeper.run())
        self.runtime = await start(self.client, Options(state_dir=self.state, port=1, **options))

    async def end(self, *, kill_pods: bool = True) -> None:
        await self.runtime.stop(kill_pods=kill_pods)
        self.keeper.close()
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        self.store.close()

    def pod(self, name: str, namespace: str = "default") -> dict[str, Any]:
        return self.client.get("Pod", namespace, name) or {}

    def create(self, document: dict[str, Any]) -> dict[str, Any]:
        document["metadata"].setdefault("namespace", "default")
        return self.client.create(document["kind"], document)

    async def phase(self, name: str, *wanted: str) -> dict[str, Any]:
        """The pod, once it is in one of these phases."""
        await until(lambda: at(self.pod(name), "status.phase") in wanted)
        return self.pod(name)

    async def gone(self, kind: str, name: str) -> None:
        await until(lambda: self.client.get(kind, "default", name) is None)

    def delete(self, kind: str, name: str, **more: Any) -> None:
        try:
            self.client.delete(kind, "default", name, **more)
        except StatusError as error:
            if error.code != 404:
                raise

    def log(self, name: str, container: str = "main", run: int = 0) -> str:
        """What a container printed, without the time stamps."""
        path = self.state / "pods" / self.pod(name)["metadata"]["uid"] / "containers" / container / str(run) / "log"
        return "".join(line.split(" ", 3)[3] for line in path.read_text(errors="replace").splitlines(keepends=True))

    async def run(self, name: str, script: str, **more: Any) -> str:
        """Runs a script in a pod to its end; what it printed."""
        self.create(pod(name, script, **more))
        await self.phase(name, "Succeeded", "Failed")
        return self.log(name)

    def events(self, name: str) -> list[str]:
        return [f"{item['reason']}: {item['message']}" for item in self.client.list("Event") if item["involvedObject"]["name"] == name]


def pod(name: str, script: str, *, container: dict[str, Any] | None = None, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod of one container, `main`, that runs a shell script."""
    main = {"name": "main", "image": "busybox:1", "command": ["sh", "-c", script], **(container or {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {"app": name}},
        "spec": {"containers": [main], "restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "automountServiceAccountToken": False, **spec},
    }


def pod_ip_env() -> list[dict[str, Any]]:
    return [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path / "state")
    await found.begin()
    yield found
    await found.end()


@pytest.fixture(params=["root", "user", "plain"])
async def any_world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A cluster in each of the ways to isolate pods that this machine permits."""
    monkeypatch.setenv(ISOLATION, request.param)
    found = World(tmp_path / "state")
    await found.begin()
    if found.runtime.kubelet.isolation.mode != request.param:
        await found.end()
        pytest.skip(f"this machine permits no {request.param} namespaces: {found.runtime.kubelet.isolation.problems}")
    yield found
    await found.end()


class Server:
    """The embedded cluster as a process."""

    def __init__(self, state: Path, **env: str) -> None:
        self.state = state
        self.env = env
        self.kubeconfig = state / "kubeconfig"

    def start(self) -> None:
        self.kubeconfig.unlink(missing_ok=True)
        command = [sys.executable, "-m", "k8s.local", "--port", "0", "--state", str(self.state)]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **self.env}, start_new_session=True)
        end = time.monotonic() + PATIENCE
        while not self.kubeconfig.exists():
            assert self.process.poll() is None, "the cluster ended at once"
            assert time.monotonic() < end, "the cluster did not come up"
            time.sleep(0.02)
        self.api = config.new_client_from_config(str(self.kubeconfig))
        self.core = k8s.CoreV1Api(self.api)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(PATIENCE)

    def kubectl(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["kubectl", "--kubeconfig", str(self.kubeconfig), *words], capture_output=True, text=True, timeout=PATIENCE, check=False, **more)

    def wait_phase(self, name: str, *phases: str) -> Any:
        end = time.monotonic() + PATIENCE
        while True:
            found = self.core.read_namespaced_pod(name, "default")
            if found.status.phase in phases:
                return found
            assert time.monotonic() < end, f"{name} is {found.status.phase}"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("cluster"))
    found.start()
    yield found
    found.stop()


def processes_with(word: str) -> list[int]:
    """Processes of this machine whose command line has `word` in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
