"""A whole installation for tests and benchmarks: `manage.py up` with its own ports and `VAR_DIR`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

from portal.runtime import ROOT
from tests.migrated import put_database

# Below those that the system gives to outgoing connections, which would take a port between its choice and its use.
PORTS = range(15_000, 30_000)
_ours: list[IO[str]] = []  # locked files, one for each port that this process has chosen


def free_ports(count: int) -> list[int]:
    """Free ports, which no other process of tests chooses until this one ends."""
    folder = Path(tempfile.gettempdir()) / f"atelier-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        mark = (folder / str(port)).open("a")
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:  # chosen by another, or in use
            mark.close()
            continue
        _ours.append(mark)
        found.append(port)
    return found


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 300) -> Any:
    """The first true value of `condition`; AssertionError naming `what` when it does not come."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for: {what}"
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Stack:
    """`start`, `stop`, and what a user of the installation needs to know."""

    def __init__(self, var: Path, **settings: str) -> None:
        self.var = var
        port, hub, hub_api, proxy_api, cluster = free_ports(5)
        self.url, self.hub = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{hub}"
        self.settings = {
            "VAR_DIR": str(var),
            "PORT": str(port),
            "HUB_PORT": str(hub),
            "HUB_API_PORT": str(hub_api),
            "PROXY_API_PORT": str(proxy_api),
            "CLUSTER_PORT": str(cluster),
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.output = var / "up.out"

    @property
    def env(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "DATABASE_URL", "REDIS_URL")}
        return {**inherited, **self.settings}

    def start(self, timeout: float = 300) -> float:
        """Seconds until the banner was printed."""
        self.var.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up"], cwd=ROOT, env=self.env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        wait_until(lambda: b"Atelier is up" in self.output.read_bytes() or self.process.poll() is not None, "make up to be ready", timeout)
        assert self.process.poll() is None, self.output.read_text()
        return time.monotonic() - began

    def interrupt(self, timeout: float = 60) -> float:
        """Press Ctrl-C; seconds until it was gone."""
        assert self.process is not None
        began = time.monotonic()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGINT)
            self.process.wait(timeout=timeout)
        return time.monotonic() - began

    def stop(self) -> None:
        """End it, and whatever a failed test left of it."""
        if self.process is None:
            return
        try:
            self.interrupt()
        except subprocess.TimeoutExpired:
            self.process.kill()
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """Every process of this installation: those whose command, folder, environment or open files name its VAR_DIR, and their children.

        A pod's supervisor names it nowhere but holds its log open; the pod's own processes are its children.
        """
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and self._is_ours(process):
                    found[process.pid] = process
                    found |= {child.pid: child for child in process.children(recursive=True)}
        return [process for process in found.values() if _lives(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        mark = str(self.var)
        named = (*process.cmdline(), process.cwd(), *process.environ().values())
        return any(mark in text for text in named) or any(mark in file.path for file in process.open_files())

    def credentials(self) -> dict[str, str]:
        return json.loads((self.var / "credentials.json").read_text())

    def manage(self, *args: str) -> str:
        """What a management command printed."""
        return subprocess.run([sys.executable, "manage.py", *args], cwd=ROOT, env=self.env, check=True, capture_output=True, text=True).stdout.strip()

    def token(self, user: str = "alice") -> str:
        return self.manage("token", user)

    def answers(self) -> bool:
        try:
            return httpx.get(self.url + "/healthz", timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


@contextlib.contextmanager
def running(var: Path, **settings: str) -> Iterator[Stack]:
    """A started installation, stopped at the end whatever happens."""
    stack = Stack(var, **settings)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


class Parts(Stack):
    """The same installation with each process started by itself, so that one can be killed and started again while the others run."""

    NAMES = ("redis", "cluster", "hub", "worker", "watcher", "web")

    def __init__(self, var: Path, **settings: str) -> None:
        super().__init__(var, **settings)
        self.parts: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, timeout: float = 300) -> float:
        put_database(self.var / "atelier.sqlite3")
        began = time.monotonic()
        for name in self.NAMES:
            self.start_part(name)
        self.manage("prepare", "--wait", "redis", "cluster", "web", "worker", "hub")
        return time.monotonic() - began

    def start_part(self, name: str) -> None:
        with (self.var / f"{name}.out").open("ab") as out:
            argv = [sys.executable, "-m", "portal.ops.run", name]
            self.parts[name] = subprocess.Popen(argv, cwd=ROOT, env=self.env_of(name), stdout=out, stderr=subprocess.STDOUT, start_new_session=True)

    def env_of(self, name: str) -> dict[str, str]:
        """What a process is told; tests give some of them other addresses than the rest."""
        return self.env

    def kill_part(self, name: str) -> None:
        """SIGKILL, to its whole group: no goodbye."""
        process = self.parts.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for name in reversed(list(self.parts)):
            process = self.parts[name]
            if process.poll() is None:
                process.terminate()
        for name in list(self.parts):
            try:
                self.parts[name].wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.kill_part(name)
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
