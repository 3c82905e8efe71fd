"""Container processes as the kubelet holds them: started through the shim, or found again after a restart of the cluster process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from k8s.local.kubelet.shim.container import write_json
from k8s.local.kubelet.shim.linux import start_time

SHIM = Path(__file__).parent / "shim" / "__main__.py"
REBOOTED = "rebooted"  # file in a container's directory: it was ended because the cluster was


class StartError(Exception):
    """The command could not be started."""


@dataclass(frozen=True)
class Isolation:
    """What this machine permits: mode root, user (namespaces of an ordinary user) or plain (none)."""

    mode: str
    pidns: bool
    problems: dict[str, str]

    @classmethod
    def detect(cls, forced: str = "") -> Isolation:
        if forced == "plain":
            return cls("plain", False, {})
        done = subprocess.run([sys.executable, "-I", "-S", str(SHIM), "probe"], capture_output=True, check=False, timeout=30, stdin=subprocess.DEVNULL)
        found = json.loads(done.stdout) if done.returncode == 0 else {"mode": "plain", "pidns": False, "problems": {"probe": done.stderr.decode()[-300:]}}
        if forced and found["mode"] not in ("plain", forced):
            return cls(forced, found["pidns"], found["problems"])
        return cls(found["mode"], found["pidns"], found["problems"])


@dataclass(frozen=True)
class Exit:
    """How a container ended. `finished_at` in seconds since 1970; `error` when it could not be started."""

    code: int
    finished_at: float
    signal: int = 0
    oom: bool = False
    error: str = ""
    rebooted: bool = False

    @property
    def reason(self) -> str:
        if self.error:
            return "StartError"
        if self.rebooted:
            return "Unknown"
        if self.oom and self.code:
            return "OOMKilled"
        return "Completed" if self.code == 0 else "Error"


class Process:
    """One run of one container. `directory` holds spec.json, state.json, exit.json and the log."""

    def __init__(self, directory: Path, record: dict[str, Any], child: subprocess.Popen[bytes] | None = None) -> None:
        self.directory = directory
        self.shim = int(record["shim"])
        self.shim_start = int(record["shim_start"])
        self.init = int(record["init"])
        self.started_at = float(record["started_at"])
        self._child = child
        self._done: asyncio.Future[Exit] | None = None

    @property
    def alive(self) -> bool:
        try:
            return start_time(self.shim) == self.shim_start
        except ProcessLookupError:
            return False

    async def wait(self) -> Exit:
        if self._done is None:
            self._done = asyncio.ensure_future(self._wait())
        return await asyncio.shield(self._done)

    async def _wait(self) -> Exit:
        await _ended(self.shim, lambda: self.alive)
        if self._child is not None:
            self._child.poll()
        return read_exit(self.directory) or Exit(137, time.time(), 9)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGUSR1)

    def kill_hard(self) -> None:
        """When the shim itself does not answer: what it holds dies with it."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.init, signal.SIGKILL)
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.shim, number)

    def spec(self) -> dict[str, Any]:
        return json.loads((self.directory / "spec.json").read_bytes())


def resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _ended(pid: int, alive: Callable[[], bool]) -> None:
    """Returns when a process has ended; `alive` tells whether the number still means the same process."""
    fd = -1
    with contextlib.suppress(OSError):  # gone already, or a kernel without pidfd
        fd = os.pidfd_open(pid)
    if fd < 0:
        while alive():  # noqa: ASYNC110 - nothing else tells it
            await asyncio.sleep(0.05)
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    try:
        if alive():
            loop.add_reader(fd, resolve, ended)
            await ended
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def wait_child(child: subprocess.Popen[bytes]) -> int:
    """The exit status of a child of this process."""
    while True:
        code = child.poll()
        if code is not None:
            return code
        await _ended(child.pid, lambda: child.poll() is None)


def read_exit(directory: Path) -> Exit | None:
    """How the container of this directory ended; None when that was not recorded."""
    try:
        record = json.loads((directory / "exit.json").read_bytes())
    except (OSError, ValueError):
        return None
    if (directory / REBOOTED).exists():
        return Exit(255, record["finished_at"], rebooted=True)
    return Exit(record["code"], record["finished_at"], record.get("signal", 0), bool(record.get("oom")), record.get("error", ""))


async def start(spec: dict[str, Any]) -> Process:
    """Starts what `spec` says (see shim.container). StartError when its command cannot run."""
    directory = Path(spec["directory"])
    write_json(str(directory / "spec.json"), spec)
    child, pipe = _launch(directory)
    answer = await _read_all(pipe)
    try:
        record = json.loads(answer)
    except ValueError:
        child.wait()
        raise StartError((directory / "shim.err").read_text(errors="replace")[-500:] or "the container's supervisor died") from None
    if "error" in record:
        await wait_child(child)
        raise StartError(record["error"])
    return Process(directory, record, child)


def _launch(directory: Path) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """The shim, and the pipe on which it answers. Not by asyncio, whose child watcher takes a thread for each process."""
    with open(directory / "spec.json", "rb") as given, open(directory / "shim.err", "wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SHIM), "run"], stdin=given, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, cwd="/", env={}
        )
    if child.stdout is None:
        raise StartError("no pipe to the container's supervisor")
    return child, child.stdout


async def _read_all(pipe: IO[bytes]) -> bytes:
    """Everything from a pipe, without blocking the loop."""
    loop = asyncio.get_running_loop()
    fd = pipe.fileno()
    os.set_blocking(fd, False)
    done = loop.create_future()
    data = bytearray()

    def ready() -> None:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return
        if chunk:
            data.extend(chunk)
        elif not done.done():
            done.set_result(None)

    loop.add_reader(fd, ready)
    try:
        await done
    finally:
        loop.remove_reader(fd)
        pipe.close()
    return bytes(data)


def adopt(directory: Path) -> Process | None:
    """The process that an earlier cluster process started in `directory`; None when it never got that far."""
    for _ in range(50):  # it may have been started just before the end
        try:
            return Process(directory, json.loads((directory / "state.json").read_bytes()))
        except (OSError, ValueError, KeyError):
            if (directory / "exit.json").exists() or not (directory / "spec.json").exists():
                return None
            if time.time() - (directory / "spec.json").stat().st_mtime > 5:
                return None
            time.sleep(0.02)
    return None


def session(process: Process, argv: list[str], *, tty: bool, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    """Runs a command in the container of `process`. Its exit status is the command's; killing it kills the command."""
    outer = process.spec()
    keys = ("mode", "pidns", "env", "cwd", "cgroup_procs", "privileged", "add_capabilities", "drop_capabilities", "run_as_user", "run_as_group")
    spec = {key: outer[key] for key in keys if key in outer} | {"argv": argv, "tty": tty, "init": process.init}
    fd = os.memfd_create("session")
    try:
        os.write(fd, json.dumps(spec).encode())
        os.lseek(fd, 0, os.SEEK_SET)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(SHIM), "exec", str(fd)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(fd,),
            start_new_session=True,
            cwd="/",
            env={},
        )
    finally:
        os.close(fd)
