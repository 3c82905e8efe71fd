"""A portal of its own (uvicorn, Redis, database) whose cluster the test chooses, and clients of its sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from portal.runtime import ROOT
from tests.migrated import put_database
from tests.stack import free_ports, wait_until

PATIENCE = 60
COOKIE = "atelier_session"


class Site:
    """`rows` calls a function of tests.portal.live.rows on the portal's database."""

    def __init__(self, var: Path, kubeconfig: Path) -> None:
        self.var = var
        port, hub = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        inherited = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "HUB_PUBLIC_URL")}
        self.env = {**inherited, "VAR_DIR": str(var), "PORT": str(port), "HUB_PORT": str(hub), "KUBECONFIG": str(kubeconfig), "PUBLIC_URL": self.url}
        self.port = str(port)
        self.processes: dict[str, subprocess.Popen[Any]] = {}

    def start(self) -> None:
        self.var.mkdir(parents=True, exist_ok=True)
        put_database(self.var / "atelier.sqlite3")
        self.spawn("redis", [sys.executable, "-m", "portal.ops.run", "redis"])
        self.spawn("web", [sys.executable, "-m", "uvicorn", "portal.asgi:application", "--host", "127.0.0.1", "--port", self.port, "--no-access-log"])
        self.spawn("rows", [sys.executable, "-m", "tests.portal.live.rows"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        wait_until(self._answers, "the portal to answer")
        self.rows("make_world")

    def spawn(self, name: str, argv: list[str], **how: Any) -> None:
        with (self.var / f"{name}.log").open("ab") as out:
            options = {"stdout": out, **how}
            self.processes[name] = subprocess.Popen(argv, cwd=ROOT, env=self.env, stderr=out, **options)

    def _answers(self) -> bool:
        assert self.processes["web"].poll() is None, (self.var / "web.log").read_text()
        try:
            return httpx.get(self.url + "/accounts/login/", timeout=10, trust_env=False).status_code < 500
        except httpx.HTTPError:
            return False

    def rows(self, function: str, **arguments: Any) -> Any:
        process = self.processes["rows"]
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps([function, arguments]) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def stop_process(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        for name in reversed(list(self.processes)):
            self.stop_process(name)

    @asynccontextmanager
    async def socket(self, path: str, session: str = "", origin: str | None = None, **how: Any):  # type: ignore[no-untyped-def]
        headers = {"Cookie": f"{COOKIE}={session}"} if session else {}
        address = self.url.replace("http", "ws", 1) + path
        async with connect(address, additional_headers=headers, origin=origin or self.url, proxy=None, max_size=None, **how) as connection:  # type: ignore[arg-type]
            yield Client(connection)


class Client:
    """Keeps every message of a socket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[dict[str, Any]] = []

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [line for message in self.messages if message["type"] == "lines" for line in message["lines"] if "marker" not in line]

    @property
    def texts(self) -> list[str]:
        return [line["text"] for line in self.lines]

    @property
    def cursors(self) -> dict[str, str]:
        return {f"{line['replica']}/{line['container']}": line["seq"] for line in self.lines}

    async def receive(self) -> None:
        self.messages.append(json.loads(await self.connection.recv()))

    async def until(self, condition: Callable[[], Any]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    await self.receive()
        except TimeoutError:
            latest = [m if m["type"] != "lines" else {"lines": len(m["lines"]), "last": m["lines"][-1]["text"][:80]} for m in self.messages[-10:]]
            raise AssertionError(f"waited {PATIENCE} s; the latest messages: {latest}") from None

    async def close_code(self) -> int:
        """Reads until the server ends the connection; its code."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.receive()
                except ConnectionClosed as error:
                    return error.rcvd.code if error.rcvd else 1006


_numbers = count(1)


def launch(site: Site, owner: str = "lena") -> str:
    """A Dask cluster that is running, as far as the database knows."""
    environment = site.rows("launch", owner=owner, name=f"c{next(_numbers)}", template="dask")
    for to in ("queued", "provisioning", "running"):
        site.rows("move", environment=environment, to=to)
    return environment
