"""A proxy in front of a Kubernetes API that misbehaves when told to.

    with FaultProxy(cluster.kubeconfig, tmp_path) as proxy:
        client = Cluster(proxy.kubeconfig)                                   # whoever is to meet faults gets this kubeconfig
        proxy.inject(Fault(Kind.THROTTLED, times=2, seconds=1))              # the next two requests are answered 429, Retry-After 1
        proxy.inject(Fault(Kind.GONE, match=watch_of("pods")))               # every watch of pods, open ones too, is told 410
        stall = proxy.inject(Fault(Kind.STALL, share=0.1, seconds=30))       # one request in ten is held for 30 s
        proxy.withdraw(stall)                                                # ends it, also for those held now
        proxy.clear()
        proxy.hits(Kind.GONE)                                                # what was done to whom

It runs in a thread of its own; every method may be called from any thread. Exec, attach and port forwarding are not passed on.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import socket
import ssl
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from k8s.local import certs
from k8s.local.files import write_kubeconfig

_T = TypeVar("_T")
_HOP = {"connection", "host", "transfer-encoding", "content-length", "accept-encoding", "content-encoding", "keep-alive", "upgrade"}
_SNAPSHOTS, _LISTS = 50, 400  # how many answers are remembered of a list, and of how many lists


class Kind(StrEnum):
    """What is done. By default to every request that can be treated so; `Fault.match` narrows it."""

    GONE = "gone"  # 410: watches end with it, open ones too; other requests, where matched, are answered with it
    THROTTLED = "throttled"  # 429 with Retry-After: `seconds`, at least 1
    ERROR = "error"  # 500
    STALL = "stall"  # held for `seconds`, then passed on; an open watch tells nothing for that long
    CUT = "cut"  # the connection ends: before the request is passed on, or after, the answer lost or half of it; open watches end
    STALE = "stale"  # a list is answered as it was up to `seconds` ago
    DROP = "drop"  # DELETED events of watches do not arrive


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request, as `Fault.match` sees it."""

    method: str
    path: str
    query: dict[str, str]
    watch: bool
    collection: bool  # many objects, not one
    plural: str  # pods, statefulsets, ...


def _any(_: Asked) -> bool:
    return True


def watch_of(plural: str) -> Callable[[Asked], bool]:
    return lambda asked: asked.watch and asked.plural == plural


def list_of(plural: str) -> Callable[[Asked], bool]:
    return lambda asked: _is_list(asked) and asked.plural == plural


def _is_list(asked: Asked) -> bool:
    return asked.method == "GET" and asked.collection and not asked.watch


@dataclass(eq=False)
class Fault:
    """One kind of misbehaviour, until it is withdrawn or has happened `times` times. `share`: of the requests that match."""

    kind: Kind
    share: float = 1.0
    times: int | None = None
    seconds: float = 30.0
    match: Callable[[Asked], bool] = _any
    after: bool | None = None  # of CUT: after the request was passed on; None: now so, now so
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def suits(self, asked: Asked) -> bool:
        if not self.match(asked) or self.times == 0:
            return False
        if self.kind is Kind.GONE and self.match is _any:
            return asked.watch
        if self.kind is Kind.STALE:
            return _is_list(asked)
        return self.kind is not Kind.DROP or asked.watch


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A fault that happened, at a time of `time.monotonic`."""

    at: float
    kind: Kind
    method: str
    path: str


class FaultProxy:
    """`upstream`: kubeconfig of the cluster, with a bearer token. The proxy's own, for its clients, lies at `kubeconfig`."""

    def __init__(self, upstream: Path, folder: Path, *, seed: int | None = None, port: int = 0) -> None:
        self.folder, self.kubeconfig = folder, folder / "proxied.kubeconfig"
        self._upstream, self._port = upstream, port
        self._random = random.Random(seed)
        self._faults: list[Fault] = []
        self._hits: list[Hit] = []
        self._held = 0
        self._watches: dict[asyncio.Queue[Fault], Asked] = {}
        self._lists: OrderedDict[str, deque[tuple[float, bytes]]] = OrderedDict()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faultproxy", daemon=True)

    # --- control -------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, and write the kubeconfig. The cluster's own must be there; the cluster may be away."""
        self._thread.start()
        self._here(self._open)

    def stop(self) -> None:
        self._here(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def inject(self, fault: Fault) -> Fault:
        """From now on. Watches that are open meet GONE, CUT and STALL at once."""

        async def act() -> None:
            self._faults.append(fault)
            if fault.kind in (Kind.GONE, Kind.CUT, Kind.STALL):
                for queue, asked in list(self._watches.items()):
                    if self._drawn(fault, asked):
                        queue.put_nowait(fault)

        self._here(act)
        return fault

    def withdraw(self, *faults: Fault) -> None:
        """It happens no more, and who is held is let go."""

        async def act() -> None:
            for fault in faults:
                fault.ended.set()
                if fault in self._faults:
                    self._faults.remove(fault)

        self._here(act)

    def cease(self, *faults: Fault) -> None:
        """It befalls nobody any more, but who is held stays held for its time."""

        async def act() -> None:
            for fault in faults:
                if fault in self._faults:
                    self._faults.remove(fault)

        self._here(act)

    @property
    def held(self) -> int:
        """Requests and watches that a stall holds now."""
        return self._held

    def clear(self) -> None:
        """Withdraw every fault."""
        self.withdraw(*self._faults)

    def hits(self, *kinds: Kind) -> list[Hit]:
        """What has happened so far, of some kinds or of all."""
        return [hit for hit in list(self._hits) if not kinds or hit.kind in kinds]

    @property
    def watches(self) -> list[Asked]:
        """Watches that are open now."""
        return list(self._watches.values())

    def _here(self, act: Callable[[], Awaitable[_T]]) -> _T:
        async def run() -> _T:
            return await act()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    # --- the server ------------------------------------------------------------------

    async def _open(self) -> None:
        config = yaml.safe_load(self._upstream.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._base = cluster["server"].rstrip("/")
        trust = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        connector = aiohttp.TCPConnector(ssl=trust, limit=0, keepalive_timeout=30)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False, trust_env=False)
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        made = certs.ensure(self.folder / "faultproxy-pki")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(made.certificate, made.key)
        listening = socket.create_server(("127.0.0.1", self._port), backlog=512)
        self._port = listening.getsockname()[1]
        await web.SockSite(self._runner, listening, ssl_context=context).start()
        write_kubeconfig(self.kubeconfig, f"https://127.0.0.1:{self._port}", made.authority, user["token"])

    async def _close(self) -> None:
        for fault in self._faults:
            fault.ended.set()
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = _asked(request)
        if "upgrade" in request.headers.get("Connection", "").lower():
            return _status(501, "NotImplemented", "the fault proxy passes no upgraded connections on")
        body = await request.read()
        fault = self._draw(asked)
        match fault.kind if fault else None:
            case Kind.GONE if not asked.watch:
                return _status(410, "Expired", "The resourceVersion for the provided list is too old.")
            case Kind.THROTTLED:
                assert fault
                seconds = max(1, round(fault.seconds))
                return _status(429, "TooManyRequests", "too many requests, please try again later", {"Retry-After": str(seconds)})
            case Kind.ERROR:
                return _status(500, "InternalError", "an error on the server has prevented the request from succeeding")
            case Kind.STALL:
                assert fault
                await self._hold(fault)
            case Kind.CUT if fault and (asked.watch or not self._after(fault)):
                await _cut(request)
            case Kind.STALE:
                assert fault
                if (old := self._older(str(request.rel_url), fault.seconds)) is not None:
                    return web.Response(body=old, content_type="application/json")
        return await self._passed_on(request, asked, body, fault)

    def _draw(self, asked: Asked) -> Fault | None:
        """The first fault that befalls this request; those of open watches are drawn at each event."""
        return next((fault for fault in self._faults if fault.kind is not Kind.DROP and self._drawn(fault, asked)), None)

    def _drawn(self, fault: Fault, asked: Asked) -> bool:
        if not fault.suits(asked) or self._random.random() >= fault.share:
            return False
        if fault.times is not None:
            fault.times -= 1
        self._hits.append(Hit(at=time.monotonic(), kind=fault.kind, method="WATCH" if asked.watch else asked.method, path=asked.path))
        return True

    def _after(self, fault: Fault) -> bool:
        return self._random.random() < 0.5 if fault.after is None else fault.after

    async def _hold(self, fault: Fault) -> None:
        self._held += 1
        try:
            await asyncio.wait_for(fault.ended.wait(), fault.seconds)
        except TimeoutError:
            pass
        finally:
            self._held -= 1

    # --- passing on --------------------------------------------------------------------

    async def _passed_on(self, request: web.Request, asked: Asked, body: bytes, fault: Fault | None) -> web.StreamResponse:
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        url = URL(self._base + request.raw_path, encoded=True)
        try:
            async with self._session.request(request.method, url, headers=headers, data=body or None, allow_redirects=False) as upstream:
                back = {key: value for key, value in upstream.headers.items() if key.lower() not in _HOP}
                if asked.watch and upstream.status == 200:
                    return await self._watched(request, asked, upstream, back, fault)
                if asked.query.get("follow") in ("true", "1"):
                    return await _streamed(request, upstream, back)
                data = await upstream.read()
        except aiohttp.ClientError:
            await _cut(request)  # the cluster is away: so is the proxy
            raise
        if upstream.status == 200 and _is_list(asked):
            self._remember(str(request.rel_url), data)
        if fault and fault.kind is Kind.CUT:
            await self._half(request, upstream.status, back, data)
        return web.Response(status=upstream.status, headers=back, body=data)

    async def _half(self, request: web.Request, status: int, headers: dict[str, str], data: bytes) -> None:
        """The request was done, but of its answer only half arrives, or nothing."""
        if self._random.random() < 0.5:
            response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(data))})
            await response.prepare(request)
            await response.write(data[: len(data) // 2])
        await _cut(request)

    def _remember(self, key: str, data: bytes) -> None:
        known = self._lists.setdefault(key, deque(maxlen=_SNAPSHOTS))
        self._lists.move_to_end(key)
        if not known or known[-1][1] != data:
            known.append((time.monotonic(), data))
        if len(self._lists) > _LISTS:
            self._lists.popitem(last=False)

    def _older(self, key: str, seconds: float) -> bytes | None:
        """The oldest answer that was still true `seconds` ago, or has come since; None before the first."""
        known = self._lists.get(key)
        if not known:
            return None
        limit = time.monotonic() - seconds
        return next((data for (_, data), (end, _) in zip(known, [*list(known)[1:], (time.monotonic(), b"")], strict=True) if end >= limit), None)

    # --- watches -------------------------------------------------------------------------

    async def _watched(
        self, request: web.Request, asked: Asked, upstream: aiohttp.ClientResponse, headers: dict[str, str], first: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=200, headers=headers)
        await response.prepare(request)
        queue: asyncio.Queue[Fault] = asyncio.Queue()
        if first is not None and first.kind is Kind.GONE:
            queue.put_nowait(first)
        self._watches[queue] = asked
        told, reading = asyncio.ensure_future(queue.get()), asyncio.ensure_future(upstream.content.readany())
        rest = b""
        try:
            while True:
                await asyncio.wait((told, reading), return_when=asyncio.FIRST_COMPLETED)
                if told.done():
                    fault = told.result()
                    if fault.kind is Kind.GONE:
                        await response.write(_event_gone())
                        return response
                    if fault.kind is Kind.CUT:
                        await _cut(request)
                    await self._hold(fault)  # a stall: what comes meanwhile is told afterwards
                    told = asyncio.ensure_future(queue.get())
                    continue
                chunk = reading.result()
                if not chunk:
                    return response
                *lines, rest = (rest + chunk).split(b"\n")
                kept = b"".join(line + b"\n" for line in lines if not self._dropped(asked, line))
                if kept:
                    await response.write(kept)
                reading = asyncio.ensure_future(upstream.content.readany())
        except aiohttp.ClientError:
            await _cut(request)
            raise
        finally:
            self._watches.pop(queue, None)
            told.cancel()
            reading.cancel()

    def _dropped(self, asked: Asked, line: bytes) -> bool:
        if not line.startswith(b'{"type":"DELETED"'):
            return False
        return any(fault.kind is Kind.DROP and self._drawn(fault, asked) for fault in self._faults)


def _asked(request: web.Request) -> Asked:
    parts = request.path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    query = dict(request.query)
    watching = query.get("watch") in ("true", "1", "True")
    return Asked(method=request.method, path=request.path, query=query, watch=watching, collection=len(rest) == 1, plural=rest[0] if rest else "")


async def _cut(request: web.Request) -> None:
    """End the connection without a word. Does not return: the handler is cancelled with it."""
    if request.transport is not None:
        request.transport.abort()
    await asyncio.sleep(10)


async def _streamed(request: web.Request, upstream: aiohttp.ClientResponse, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=upstream.status, headers=headers)
    await response.prepare(request)
    async for chunk in upstream.content.iter_any():
        await response.write(chunk)
    return response


def _status(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=code, headers=headers, body=json.dumps(_status_of(code, reason, message)).encode(), content_type="application/json")


def _status_of(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}


def _event_gone() -> bytes:
    return json.dumps({"type": "ERROR", "object": _status_of(410, "Expired", "too old resource version")}).encode() + b"\n"
