"""Puts the cluster together and runs it: store, API over TLS on loopback, housekeeping, and the runtime half."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import certs, namespaces, runtime, streams
from .api import Api
from .client import Client
from .documents import encode
from .errors import unauthorized
from .files import token, write_kubeconfig
from .gc import Housekeeper
from .kinds import Kinds
from .metrics import Metrics
from .objects import Objects
from .options import Options
from .store import Store

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
# What a real API server shows to anybody, too.
OPEN_PATHS = {"/healthz", "/livez", "/readyz", "/version"}


class TokenGate:
    """401 without the bearer token, on HTTP and on websockets."""

    def __init__(self, app: ASGIApp, bearer: str) -> None:
        self.app = app
        self.bearer = bearer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"].rstrip("/") in OPEN_PATHS or self._known(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"content-type", b"application/json")]})
            await send({"type": "websocket.http.response.body", "body": encode(unauthorized().status())})
        else:
            await Response(encode(unauthorized().status()), 401, media_type="application/json")(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"authorization":
                kind, _, given = value.partition(b" ")
                return kind.lower() == b"bearer" and secrets.compare_digest(given.strip(), self.bearer.encode())
        return False


class Cluster:
    """Everything that runs in this process."""

    def __init__(self, options: Options) -> None:
        options.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.options = options
        self._lock = (options.state_dir / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another embedded cluster already uses {options.state_dir}") from None
        self.stopping = asyncio.Event()
        self.ready = False
        self.store = Store(options.state_dir / "objects.sqlite3")
        self.objects = Objects(self.store, Kinds(), options.toleration_seconds)
        self.client = Client(self.objects)
        self.certificates = certs.ensure(options.state_dir / "pki")
        self.token = token(options.state_dir / "token")
        self.api = Api(self.objects, self.stopping)
        self.runtime: runtime.Runtime | None = None

    def app(self, extra: list[BaseRoute]) -> ASGIApp:
        async def health(http: HttpRequest) -> Response:
            return PlainTextResponse("ok") if self.ready or http.url.path != "/readyz" else PlainTextResponse("starting", 503)

        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        routes: list[BaseRoute] = [
            *[Route(path, health) for path in ("/healthz", "/livez", "/readyz")],
            *extra,
            Route("/{path:path}", self.api.handle, methods=methods),
        ]
        return TokenGate(Starlette(routes=routes), self.token)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[list[BaseRoute]]:
        """Housekeeping and pods run within; yields the routes of pods' streams and of what they use."""
        authority = self.certificates.authority.read_text()
        keeper = Housekeeper(self.client, authority)
        namespaces.seed(self.client, authority)
        tasks = [
            asyncio.create_task(keeper.run(), name="housekeeping"),
            asyncio.create_task(keeper.expiring(), name="old events"),
            asyncio.create_task(self.store.checkpointing(), name="checkpoints"),
        ]
        try:
            yield await self._start_runtime()
        finally:
            if self.runtime is not None:
                try:
                    # SIGTERM is a node's shutdown: pods end, objects stay.
                    await asyncio.wait_for(self.runtime.stop(kill_pods=True), 7)
                except TimeoutError:
                    log.warning("pods did not stop in time")
            keeper.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.store.close()
            self._lock.close()

    async def _start_runtime(self) -> list[BaseRoute]:
        self.runtime = await runtime.start(self.client, self.options)
        kubelet = self.runtime.kubelet
        return [*streams.routes(self.client, kubelet), *Metrics(self.client, kubelet.meter, kubelet.gpu_meter).routes()]


def listen(port: int) -> socket.socket:
    """A listening socket on loopback; port 0 takes a free one. SystemExit with a clear word when the port is taken."""
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts; without, every answer waits 40 ms for an acknowledgement.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        raise SystemExit(f"port {port} is taken ({error.strerror}): choose another with --port") from None
    found.listen(512)
    return found


async def serve(options: Options, kubeconfig: Path) -> None:
    """Runs until SIGTERM or SIGINT. The kubeconfig is there before /readyz answers."""
    cluster = Cluster(options)
    sock = listen(options.port)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, cluster.stopping.set)
    async with cluster.running() as routes:
        config = uvicorn.Config(
            cluster.app(routes), log_level="warning", access_log=False, lifespan="off",
            ws="k8s.local.upgrade:WebSocketProtocol", ws_max_size=1 << 22, timeout_keep_alive=75,
            ssl_certfile=str(cluster.certificates.certificate), ssl_keyfile=str(cluster.certificates.key), timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = Quiet(config)
        serving = asyncio.create_task(server.serve(sockets=[sock]), name="http")
        stopped = asyncio.create_task(cluster.stopping.wait())
        try:
            while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.01)
            write_kubeconfig(kubeconfig, f"https://{HOST}:{sock.getsockname()[1]}", cluster.certificates.authority, cluster.token)
            cluster.ready = True
            log.info("ready on %s:%d", HOST, sock.getsockname()[1])
            await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            cluster.ready = False
            cluster.stopping.set()
            server.should_exit = True
            await asyncio.gather(serving, stopped, return_exceptions=True)
            sock.close()


class Quiet(uvicorn.Server):
    """Leaves signals to `serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield
