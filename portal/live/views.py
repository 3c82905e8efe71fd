"""Logs over plain HTTP: for scripts, and for the page's download button."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from k8s.errors import ClusterError, Gone, Rejected
from k8s.loglines import START, Numberer, Position
from portal.domain.errors import DomainError, NotFound, ValidationError

from .access import Caller
from .consumers import whole_number
from .follow import Key, Line
from .hub import Hub, current_hub
from .snapshot import Snapshot, archived_lines, take
from .viewer import MAX_TAIL, TAIL_LINES, Gap, Item, Viewer
from .watch import Watch, in_database

LINE_BYTES = 64 * 1024  # kept of one line; pages keep less
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")


@dataclass(frozen=True)
class _Wanted:
    replica: str
    container: str
    tail: int | None
    follow: bool
    timestamps: bool
    download: bool


def _problem(error: DomainError) -> JsonResponse:
    body: dict[str, object] = {
        "type": f"urn:atelier:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    if error.errors:
        body["errors"] = error.errors
    response = JsonResponse(body, status=error.status, content_type="application/problem+json")
    if error.status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="atelier"'
    return response


class _NoCluster(DomainError):
    status, code, title = 503, "cluster_unavailable", "Not available now"


async def _check_cluster(snapshot: Snapshot) -> None:
    """A cluster that does not answer is told by a status while there still is one to give."""
    for replica, _ in snapshot.containers[:1]:
        try:
            await current_hub().client.pod(snapshot.namespace, replica)
        except ClusterError as error:
            raise _NoCluster(f"The cluster does not answer: {error}") from error


class _MethodNotAllowed(DomainError):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


def _flag(query: dict[str, str], name: str) -> bool:
    text = query.get(name, "").lower()
    if text not in _YES + _NO:
        raise ValidationError.field(name, "true or false")
    return text in _YES


def _wanted(query: dict[str, str]) -> _Wanted:
    tail = whole_number(query, "tail", -1, MAX_TAIL)
    return _Wanted(
        replica=query.get("replica", ""),
        container=query.get("container", ""),
        tail=None if tail < 0 else tail,
        follow=_flag(query, "follow"),
        timestamps=_flag(query, "timestamps"),
        download=_flag(query, "download"),
    )


def _pairs(snapshot: Snapshot) -> set[tuple[str, str]]:
    return {*snapshot.containers, *((archive.replica, archive.container) for archive in snapshot.archives)}


def _check_names(snapshot: Snapshot, wanted: _Wanted) -> None:
    pairs = _pairs(snapshot)
    replicas = sorted({replica for replica, _ in pairs})
    if wanted.replica and wanted.replica not in replicas:
        raise NotFound(f"There is no such replica. Replicas with a log: {', '.join(replicas[:70]) or 'none yet'}.")
    if wanted.container and wanted.container not in {name for replica, name in pairs if wanted.replica in ("", replica)}:
        raise NotFound("There is no such container.")


@csrf_exempt  # only GET is answered; a POST deserves a 405 rather than a page about cookies
async def environment_logs(request: HttpRequest, environment_id: UUID) -> HttpResponseBase:
    """GET /api/v1/environments/{id}/logs: text/plain, streamed; with `follow=true` until the environment rests or the client leaves."""
    header = request.headers.get("Authorization", "")
    caller = Caller(authorization=header) if header else Caller(session_key=request.session.session_key or "")
    try:
        if request.method != "GET":
            raise _MethodNotAllowed("Only GET is possible here.")
        wanted = _wanted({key: str(value) for key, value in request.GET.items()})
        snapshot = await in_database(take, caller, environment_id)
        _check_names(snapshot, wanted)
        if not wanted.follow:
            await _check_cluster(snapshot)
    except DomainError as error:
        return _problem(error)
    write = _writer(snapshot, wanted)
    body = _followed(caller, environment_id, wanted, write) if wanted.follow else _present(snapshot, wanted, write)
    response = StreamingHttpResponse(body, content_type="text/plain; charset=utf-8")
    response["Cache-Control"] = "no-store"
    response["X-Accel-Buffering"] = "no"
    if wanted.download:
        parts = [str(snapshot.document["name"]), *([wanted.replica] if wanted.replica else [])]
        response["Content-Disposition"] = f'attachment; filename="{"-".join(parts)}.log"'
    return response


Write = Callable[[Item], str]


def _writer(snapshot: Snapshot, wanted: _Wanted) -> Write:
    """How an item reads as text. Lines name their replica unless there can be only one."""
    pairs = _pairs(snapshot)
    several = not wanted.replica and (snapshot.document["kind"] == "cluster" or len({replica for replica, _ in pairs}) > 1)
    crowded = {replica for replica, _ in pairs if sum(1 for other, _ in pairs if other == replica) > 1} if not wanted.container else set()

    def write(item: Item) -> str:
        if isinstance(item, Gap):
            return f"--- {'some' if item.missed is None else item.missed} lines are missing here ---\n"
        if not isinstance(item, Line):
            return ""
        name = f"{item.replica}/{item.container}" if item.replica in crowded else item.replica
        prefix = f"[{name}] " if several or item.replica in crowded else ""
        if item.marker:
            return f"{prefix}--- {item.text} ---\n"
        stamp = f"{item.stamp} " if wanted.timestamps and item.stamp else ""
        cut = f" ... [{item.cut} bytes not shown]" if item.cut else ""
        return f"{prefix}{stamp}{item.text}{cut}\n"

    return write


# --- what there is now --------------------------------------------------------------
async def _present(snapshot: Snapshot, wanted: _Wanted, write: Write) -> AsyncIterator[str]:
    """Archives and present logs of every wanted container, merged by time, a few lines of each in memory."""
    hub = current_hub()
    pairs = sorted(pair for pair in _pairs(snapshot) if wanted.replica in ("", pair[0]) and wanted.container in ("", pair[1]))
    sources = [_container_lines(hub, snapshot, pair, wanted.tail) for pair in pairs]
    try:
        pieces: list[str] = []
        size = 0
        async for item in _merged(sources):
            pieces.append(write(item))
            size += len(pieces[-1])
            if size > 32 * 1024:
                yield "".join(pieces)
                pieces, size = [], 0
        yield "".join(pieces)
    finally:
        for source in sources:
            await source.aclose()  # type: ignore[attr-defined]


async def _merged(sources: Sequence[AsyncIterator[Line | Gap]]) -> AsyncIterator[Line | Gap]:
    heads: dict[int, Line | Gap] = {}
    for number, source in enumerate(sources):
        with suppress(StopAsyncIteration):
            heads[number] = await anext(source)
    while heads:
        number = min(heads, key=lambda n: (item.position.time if isinstance(item := heads[n], Line) else 0, n))
        yield heads.pop(number)
        with suppress(StopAsyncIteration):
            heads[number] = await anext(sources[number])


async def _container_lines(hub: Hub, snapshot: Snapshot, pair: tuple[str, str], tail: int | None) -> AsyncIterator[Line | Gap]:
    live = pair in snapshot.containers
    last = START
    for archive in snapshot.archives:
        if (archive.replica, archive.container) != pair or (live and tail is not None):
            continue
        try:
            lines = await in_database(archived_lines, archive)
        except OSError:
            yield Gap(None, archive.replica)
            continue
        for line in lines[max(0, len(lines) - tail) :] if tail is not None else lines:
            if line.position > last:
                last = line.position
                yield line
    if not live:
        return
    key = Key(snapshot.namespace, *pair)
    try:
        pod = await hub.client.pod(key.namespace, key.replica)
    except ClusterError:
        yield Gap(None, key.replica)
        return
    restarted = bool(pod and (container := pod.containers.get(key.container)) and container.restarts)
    for previous in (True, False) if restarted and tail is None else (False,):
        async for item in _from_cluster(hub, key, previous, tail, last):
            last = item.position if isinstance(item, Line) else last
            yield item


async def _from_cluster(hub: Hub, key: Key, previous: bool, tail: int | None, last: Position) -> AsyncIterator[Line | Gap]:
    numberer = Numberer()
    try:
        async for batch in hub.client.lines(*key, previous=previous, tail=tail, limit=LINE_BYTES):
            for raw in batch:
                line = Line.of(raw, numberer.next(raw.time), key.replica, key.container)
                if line.position > last:
                    yield line
    except (Rejected, Gone):
        return  # not started yet, or gone meanwhile
    except ClusterError:
        yield Gap(None, key.replica)


# --- and what comes -------------------------------------------------------------------
async def _followed(caller: Caller, environment_id: UUID, wanted: _Wanted, write: Write) -> AsyncIterator[str]:
    """The same lines a page gets, through the same shared follows; ends when the caller may no longer see them."""
    watch = Watch(caller, environment_id, asyncio.Event())
    room: asyncio.Queue[str] = asyncio.Queue(maxsize=2)  # a slow client holds up its own viewer only

    async def deliver(items: Sequence[Item]) -> None:
        if text := "".join(write(item) for item in items):
            await room.put(text)

    tail = TAIL_LINES if wanted.tail is None else wanted.tail
    viewer = Viewer(watch=watch, hub=current_hub(), send=deliver, replica=wanted.replica, container=wanted.container, tail=tail)
    tasks: set[asyncio.Task[None]] = {asyncio.create_task(viewer.run(until_resting=True)), asyncio.create_task(watch.run())}
    try:
        while not any(task.done() for task in tasks):
            getter = asyncio.create_task(room.get())
            try:
                await asyncio.wait({getter, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    yield getter.result()
            finally:
                getter.cancel()
        while not room.empty():
            yield room.get_nowait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
