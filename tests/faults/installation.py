"""An installation whose every process can be killed, and is started again by a supervisor, with the fault proxy and the relay in between."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from k8s import cluster as api
from k8s import errors
from k8s.cluster import Cluster
from portal.runtime import ROOT, secret, socket_path
from tests.faultproxy import FaultProxy
from tests.migrated import put_database
from tests.stack import Parts, free_ports, wait_until

from .relay import Relay

CATALOGUE = Path(__file__).parent / "catalogue"
# What may be killed. "-main": only the process itself, its children live on; "worker-child": one process of the pool.
_SAYS_READY = {"worker": b" ready.", "watcher": b"watcher started"}
_BEGINS_ANEW = b"begins anew"  # a worker may, in the same process
VICTIMS = ("web", "worker", "worker-main", "worker-child", "watcher", "redis", "cluster", "hub", "hub-main")


class Installation(Parts):
    """Everything but the cluster itself meets the cluster through `proxy`; everybody meets Redis through `relay`."""

    def __init__(self, var: Path, seed: int = 0, **settings: str) -> None:
        super().__init__(var, **settings)
        var.mkdir(parents=True, exist_ok=True)
        self.relay = Relay(socket_path(var, "redis.sock"), secret(var, "redis_password"), seed)
        self.own_kubeconfig = var / "cluster" / "kubeconfig"
        (port,) = free_ports(1)
        self.proxy = FaultProxy(self.own_kubeconfig, var / "proxy", seed=seed, port=port)
        self.tell: Callable[[str], None] = lambda _: None  # where the supervisor's words go
        self._begins: dict[str, int] = {}  # part -> where its output since the last start begins
        self._due: dict[str, float] = {}  # part -> when it is started again
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._eye: subprocess.Popen[str] | None = None
        self._tokens: dict[str, str] = {}

    # --- starting and stopping -----------------------------------------------------

    def start(self, timeout: float = 180) -> float:
        put_database(self.var / "atelier.sqlite3")
        began = time.monotonic()
        self.relay.start()
        self.settings |= {"REDIS_URL": self.relay.url, "KUBECONFIG": str(self.proxy.kubeconfig)}
        for name in ("redis", "cluster"):
            self.start_part(name)
        wait_until(self.own_kubeconfig.is_file, "the embedded cluster", timeout)
        self.proxy.start()
        for name in ("hub", "worker", "watcher", "web"):
            self.start_part(name)
        self.manage("prepare", "--wait", "redis", "web", "worker", "hub")
        self.manage("load_catalogue", str(CATALOGUE))
        self.cluster = Cluster(self.own_kubeconfig)
        self.install = secret(self.var, "install_id", "hex32")[:12]
        token = secret(self.var, "hub_service_token")
        hub = f"http://127.0.0.1:{self.settings['HUB_API_PORT']}/hub/api"
        self.hub_api = httpx.Client(base_url=hub, headers={"Authorization": f"token {token}"}, timeout=10, trust_env=False)
        self._supervisor.start()
        return time.monotonic() - began

    def env_of(self, name: str) -> dict[str, str]:
        """The cluster is its own, and knows nothing of the proxy."""
        return {key: value for key, value in self.env.items() if key != "KUBECONFIG"} if name == "cluster" else self.env

    def stop(self) -> None:
        self._ending.set()
        if self._supervisor.is_alive():
            self._supervisor.join(10)
        if self._eye is not None and self._eye.stdin:
            self._eye.stdin.close()
            self._eye.wait(30)
        super().stop()
        for close in (self.proxy.stop, self.relay.stop):
            with contextlib.suppress(Exception):  # never started
                close()

    def token(self, user: str = "alice") -> str:
        if user not in self._tokens:
            self._tokens[user] = super().token(user)
        return self._tokens[user]

    def start_part(self, name: str) -> None:
        out = self.var / f"{name}.out"
        self._begins[name] = out.stat().st_size if out.exists() else 0
        super().start_part(name)

    def works(self, name: str) -> bool:
        """Whether a part has come up since it was started last, and runs."""
        with self._lock:
            if name not in self.parts or self.parts[name].poll() is not None:
                return False
        match name:
            case "web":
                return self.answers()
            case "redis":
                with contextlib.suppress(redis.RedisError), self.relay.client() as client:
                    return bool(client.ping())
            case "hub":
                with contextlib.suppress(httpx.HTTPError):
                    return self.hub_api.get("/", timeout=2).is_success
            case "cluster":
                with contextlib.suppress(errors.ClusterError):
                    return self.cluster.get(api.NAMESPACES, "default") is not None
            case _:
                with (self.var / f"{name}.out").open("rb") as out:
                    out.seek(self._begins[name])
                    said = out.read()
                    return said.rfind(_SAYS_READY[name]) > said.rfind(_BEGINS_ANEW)
        return False

    # --- killing ---------------------------------------------------------------------

    def kill(self, victim: str, pause: float, rng: random.Random) -> None:
        """SIGKILL; a part comes back after `pause` seconds, a pool's child when the pool makes a new one."""
        name = victim.partition("-")[0]
        with self._lock:
            process = self.parts.get(name)
            if process is None or process.poll() is not None:
                return
            if victim == "worker-child":
                with contextlib.suppress(psutil.NoSuchProcess):
                    children = psutil.Process(process.pid).children()
                    if children:
                        rng.choice(children).kill()
                return
            if victim.endswith("-main"):
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                del self.parts[name]
            else:
                self.kill_part(name)
            self._due[name] = time.monotonic() + pause

    def _supervise(self) -> None:
        """Starts again what was killed or has ended by itself, as whatever runs the processes does."""
        while not self._ending.wait(0.05):
            with self._lock:
                for name in self.NAMES:
                    process = self.parts.get(name)
                    if process is not None and process.poll() is not None:
                        self.tell(f"{name} ended by itself with {process.returncode}, started again")
                        del self.parts[name]
                        self._due[name] = time.monotonic() + 0.5
                    if name in self._due and time.monotonic() >= self._due[name]:
                        del self._due[name]
                        self.start_part(name)
                        self.tell(f"{name} starts again")

    # --- looking ---------------------------------------------------------------------

    def rows(self, identifiers: list[str]) -> dict[str, Any]:
        """What the database says, see `tests.faults.eye`."""
        if self._eye is None:
            argv = [sys.executable, "-m", "tests.faults.eye"]
            log = (self.var / "eye.out").open("ab")
            self._eye = subprocess.Popen(argv, cwd=ROOT, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._eye.stdin
        assert self._eye.stdout
        self._eye.stdin.write(json.dumps(identifiers) + "\n")
        self._eye.stdin.flush()
        answer = json.loads(self._eye.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer

    def objects(self) -> list[dict[str, Any]]:
        """Everything of this installation that belongs to an environment, asked of the cluster itself."""
        label = f"atelier.dev/install={self.install},atelier.dev/environment"
        return [item for items in self.cluster.gather([(kind, "", label, "") for kind in api.ENVIRONMENT_KINDS]) for item in items]

    def claims(self) -> set[str]:
        """Names of the home volumes' claims."""
        found = self.cluster.find(api.CLAIMS, labels=f"atelier.dev/install={self.install}")
        return {f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in found}

    def servers(self) -> dict[str, dict[str, Any]]:
        """Servers that the Hub knows, stopped ones too, as "user/name"."""
        answer = self.hub_api.get("/users", params={"include_stopped_servers": "1", "limit": "200"})
        answer.raise_for_status()
        # every user has a default server, without a name; nobody ever starts it
        found = {f"{user['name']}/{name}": server for user in answer.json() for name, server in (user.get("servers") or {}).items()}
        return {key: server for key, server in found.items() if not (key.endswith("/") and server["stopped"])}

    def pod_processes(self) -> list[psutil.Process]:
        """Processes of pods, supervisors of containers included: whatever is ours and belongs to none of the parts."""
        parts = {process.pid for process in self.parts.values()} | ({self._eye.pid} if self._eye else set())
        known = set(parts)
        for pid in parts:
            with contextlib.suppress(psutil.NoSuchProcess):
                known |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
        return [process for process in self.processes() if process.pid not in known]
