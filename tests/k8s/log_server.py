"""A log API that can be told to misbehave: what a healthy cluster cannot be made to do at the right moment (drop a connection amid a line, rotate a log).

It answers `GET pod` and `GET pod/log` with timestamps, tailLines, sinceTime, previous and follow, as kubelets do.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web


def stamp_of(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode() + b".%09dZ" % rest


@dataclass
class Instance:
    """One start of a container: its lines as (nanoseconds, bytes)."""

    started_at: int
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    running: bool = True
    exit_code: int = 0


@dataclass
class PodLog:
    uid: str
    instances: list[Instance] = field(default_factory=list)
    waiting: str = "ContainerCreating"
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


class LogServer:
    """Pods by name, in any namespace. Times are given by the test, so every line's position is known."""

    def __init__(self) -> None:
        self.pods: dict[str, PodLog] = {}
        self.log_requests: list[dict[str, str]] = []
        self.open_follows = 0
        self.broken = False
        self._open: set[web.StreamResponse] = set()
        self._runner: web.AppRunner | None = None
        self.kubeconfig: Path | None = None

    async def start(self, folder: Path) -> None:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}", self._get_pod)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods/{pod}/log", self._get_log)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {"token": "sesame"}}],
        }
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(document))

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # --- what the test makes happen ------------------------------------------------
    def create(self, pod: str, uid: str = "uid-1") -> PodLog:
        self.pods[pod] = PodLog(uid)
        return self.pods[pod]

    def begin(self, pod: str, started_at: int) -> Instance:
        instance = Instance(started_at)
        self.pods[pod].instances.append(instance)
        return instance

    async def write(self, pod: str, *lines: tuple[int, bytes]) -> None:
        log = self.pods[pod]
        log.instances[-1].lines += lines
        async with log.changed:
            log.changed.notify_all()

    async def end(self, pod: str, exit_code: int = 0) -> None:
        log = self.pods[pod]
        log.instances[-1].running, log.instances[-1].exit_code = False, exit_code
        async with log.changed:
            log.changed.notify_all()

    async def delete(self, pod: str) -> None:
        await self.end(pod)
        del self.pods[pod]

    def drop_connections(self, half: bytes = b"") -> None:
        """Cuts every follow off without an end, after `half` a line."""
        for response in list(self._open):
            transport = response._req.transport if response._req else None  # type: ignore[attr-defined]
            if transport is not None:
                if half:
                    transport.write(b"%x\r\n%b\r\n" % (len(half), half))
                transport.close()

    # --- answers ---------------------------------------------------------------------
    def _refuse(self, status: int, reason: str, message: str) -> web.Response:
        return web.json_response({"kind": "Status", "reason": reason, "message": message, "code": status}, status=status)

    def _status(self, log: PodLog) -> dict[str, Any]:
        status: dict[str, Any] = {"name": "main", "restartCount": max(0, len(log.instances) - 1), "state": {}, "lastState": {}}
        if not log.instances:
            status["state"] = {"waiting": {"reason": log.waiting}}
            return status
        iso = [stamp_of(i.started_at * 1_000_000_000).decode()[:19] + "Z" for i in log.instances]
        ended = {"exitCode": log.instances[-1].exit_code, "reason": "Completed", "startedAt": iso[-1]}
        status["state"] = {"running": {"startedAt": iso[-1]}} if log.instances[-1].running else {"terminated": ended}
        if len(log.instances) > 1:
            status["lastState"] = {"terminated": {"exitCode": log.instances[-2].exit_code, "reason": "Error", "startedAt": iso[-2]}}
        return status

    async def _get_pod(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer sesame":
            return self._refuse(401, "Unauthorized", "Unauthorized")
        if self.broken:
            return self._refuse(500, "InternalError", "etcdserver: leader changed")
        log = self.pods.get(request.match_info["pod"])
        if log is None:
            return self._refuse(404, "NotFound", "pods not found")
        return web.json_response({"metadata": {"uid": log.uid}, "status": {"phase": "Running", "containerStatuses": [self._status(log)]}})

    async def _get_log(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.log_requests.append(query)
        log = self.pods.get(request.match_info["pod"])
        if log is None:
            return self._refuse(404, "NotFound", "pods not found")
        previous = query.get("previous") == "true"
        if len(log.instances) < (2 if previous else 1):
            return self._refuse(400, "BadRequest", "container is waiting to start" if not previous else "previous terminated container not found")
        instance = log.instances[-2 if previous else -1]
        lines = instance.lines
        if "sinceTime" in query:
            since = int(datetime.fromisoformat(query["sinceTime"]).timestamp()) * 1_000_000_000
            lines = [line for line in lines if line[0] >= since]
        if "tailLines" in query:
            lines = lines[-int(query["tailLines"]) :]
        sent = len(instance.lines)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"".join(stamp_of(time) + b" " + text + b"\n" for time, text in lines))
        if query.get("follow") == "true":
            await self._go_on(response, log, instance, sent)
        await response.write_eof()
        return response

    async def _go_on(self, response: web.StreamResponse, log: PodLog, instance: Instance, sent: int) -> None:
        self._open.add(response)
        self.open_follows += 1
        try:
            while instance.running or sent < len(instance.lines):
                async with log.changed:
                    while instance.running and sent >= len(instance.lines):
                        await log.changed.wait()
                fresh, sent = instance.lines[sent:], len(instance.lines)
                await response.write(b"".join(stamp_of(time) + b" " + text + b"\n" for time, text in fresh))
        finally:
            self.open_follows -= 1
            self._open.discard(response)
