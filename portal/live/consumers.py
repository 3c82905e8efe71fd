"""The three websockets: one environment, all of mine, and logs. docs/live.md describes their messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from urllib.parse import parse_qs

from portal.domain import selectors
from portal.domain.errors import DomainError, ValidationError
from portal.domain.lifecycle import State
from portal.domain.models import Team

from .access import Caller, close_code
from .changes import current_changes
from .follow import Line
from .hub import current_hub
from .socket import ASGIReceive, ASGISend, Scope, Socket, serve
from .viewer import MAX_TAIL, TAIL_LINES, Cursors, Gap, Item, Notice, Viewer
from .watch import RECHECK_SECONDS, Watch, in_database

EVENTS_AT_ONCE = 200
RESUME_SECONDS = 10


def _query(scope: Scope) -> dict[str, str]:
    return {key: values[-1] for key, values in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).items()}


def whole_number(query: dict[str, str], name: str, default: int, largest: int) -> int:
    """A number of a query. Raises ValidationError."""
    text = query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or int(text[:20]) > largest:
        raise ValidationError.field(name, f"a whole number from 0 to {largest}")
    return int(text)


# --- one environment ------------------------------------------------------------
async def environment_socket(scope: Scope, receive: ASGIReceive, send: ASGISend) -> None:
    """`/ws/environments/{id}/?after=SEQ`: its state now and after each change, and every event past SEQ, once."""
    socket = Socket(receive, send)
    await socket.accept()
    try:
        after = whole_number(_query(scope), "after", 0, 2**31)
        watch = Watch(Caller.of_scope(scope), scope["url_route"]["kwargs"]["environment_id"], asyncio.Event())
        await watch.refresh()
    except DomainError as error:
        await socket.close(close_code(error), error.title)
        return
    await serve(socket, watch.run(), _report(socket, watch, after))


async def _report(socket: Socket, watch: Watch, seq: int) -> None:
    document: dict[str, Any] = {}
    while True:
        snapshot = watch.snapshot
        assert snapshot is not None  # noqa: S101  refreshed before
        if snapshot.document != document:
            document = snapshot.document
            await socket.send_json({"type": "state", "seq": snapshot.last_seq, **document})
        while seq < snapshot.last_seq:
            events = await watch.events_after(seq, EVENTS_AT_ONCE)
            if not events:
                break
            for event in events:
                await socket.send_json(event)
            seq = events[-1]["seq"]
        await watch.wake.wait()
        watch.wake.clear()


# --- all of mine ------------------------------------------------------------------
async def environments_socket(scope: Scope, receive: ASGIReceive, send: ASGISend) -> None:
    """`/ws/environments/`: {"type": "changed", "environment", "state"} whenever one that is visible to the caller changed."""
    socket = Socket(receive, send)
    await socket.accept()
    listing = _Listing(Caller.of_scope(scope))
    try:
        await listing.look()  # from here on changes count
    except DomainError as error:
        await socket.close(close_code(error), error.title)
        return
    await serve(socket, listing.run(socket))


async def unknown_socket(scope: Scope, receive: ASGIReceive, send: ASGISend) -> None:
    """Any other address, an id that cannot be one included."""
    socket = Socket(receive, send)
    await socket.accept()
    await socket.close(4404, "Not found")


Seen = dict[str, tuple[object, ...]]
_FULL_LOOK_EVERY = 5  # rechecks


class _Listing:
    """What the caller was last told of each environment, and the groups in which changes are announced."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._seen: Seen = {}
        self._groups: set[str] = set()
        self._heard: set[str] = set()
        self._missed = False
        self._dirty = asyncio.Event()

    def _read(self, ids: set[str] | None) -> tuple[set[str], Seen]:
        user = self._caller.user()
        teams = Team.objects.all() if user.is_staff else selectors.teams_led_by(user)
        groups = {f"user.{user.pk}", *(f"team.{pk}" for pk in teams.values_list("pk", flat=True))}
        query = selectors.environments_visible_to(user).select_related(None)
        query = query.exclude(state=State.DELETED) if ids is None else query.filter(pk__in=ids)
        return groups, {str(pk): tuple(rest) for pk, *rest in query.values_list("pk", "state", "last_seq", "observed_at", "queue")}

    async def look(self, ids: set[str] | None = None) -> list[dict[str, object]]:
        """What changed since the last look, among `ids` or at all. Raises SignInNeeded."""
        groups, now = await in_database(self._read, ids)
        if ids is None and (gone := self._seen.keys() - now.keys()):  # deleted, or out of sight
            now |= (await in_database(self._read, set(gone)))[1]
        self._follow(groups)
        changed = [pk for pk, row in now.items() if self._seen.get(pk) != row]
        lost = (self._seen.keys() if ids is None else self._seen.keys() & ids) - now.keys()
        self._seen |= now
        for pk in [pk for pk, row in self._seen.items() if pk in lost or row[0] == State.DELETED]:
            del self._seen[pk]
        told: list[dict[str, object]] = [{"type": "changed", "environment": pk, "state": now[pk][0]} for pk in changed]
        return told + [{"type": "changed", "environment": pk, "state": None} for pk in lost]

    def _follow(self, groups: set[str]) -> None:
        for name in self._groups - groups:
            current_changes().remove(name, self._hear)
        for name in groups - self._groups:
            current_changes().add(name, self._hear)
        self._groups = groups

    def _hear(self, environment: str | None) -> None:
        if environment is None:
            self._missed = True
        else:
            self._heard.add(environment)
        self._dirty.set()

    async def run(self, socket: Socket) -> None:
        turns = 0
        try:
            while True:
                try:
                    await asyncio.wait_for(self._dirty.wait(), RECHECK_SECONDS)
                    await asyncio.sleep(0.1)
                except TimeoutError:
                    turns += 1
                full = self._missed or turns % _FULL_LOOK_EVERY == 0
                ids, self._heard, self._missed = self._heard, set(), False
                self._dirty.clear()
                for message in await self.look(None if full else ids):
                    await socket.send_json(message)
        finally:
            self._follow(set())


# --- logs ---------------------------------------------------------------------------
async def logs_socket(scope: Scope, receive: ASGIReceive, send: ASGISend) -> None:
    """`/ws/environments/{id}/logs/?replica=&container=&after=&tail=`: history, then what comes."""
    socket = Socket(receive, send)
    await socket.accept()
    query = _query(scope)
    watch = Watch(Caller.of_scope(scope), scope["url_route"]["kwargs"]["environment_id"], asyncio.Event())
    try:
        await watch.refresh()
        tail = whole_number(query, "tail", TAIL_LINES, MAX_TAIL)
        after = await _resume_point(socket, query)
    except DomainError as error:
        await socket.close(close_code(error), error.title)
        return
    except (ConnectionError, TimeoutError):
        await socket.close(4400, "no resume message came")
        return

    async def deliver(items: Sequence[Item]) -> None:
        for text in encoded(items):
            await socket.send_text(text)

    replica, container = query.get("replica", ""), query.get("container", "")
    viewer = Viewer(watch=watch, hub=current_hub(), send=deliver, replica=replica, container=container, after=after, tail=tail)
    await serve(socket, watch.run(), viewer.run())


async def _resume_point(socket: Socket, query: dict[str, str]) -> Cursors:
    """From `after=`, or with `after=message` from the client's first message: {"after": {"replica/container": seq}}, for which a URL may be too short."""
    try:
        if query.get("after") != "message":
            return Cursors.parse(query.get("after", ""))
        async with asyncio.timeout(RESUME_SECONDS):
            after = (await socket.receive_json()).get("after")
        return Cursors.of(after if isinstance(after, dict) else {})
    except ValueError as error:
        raise ValidationError.field("after", str(error)) from error


def encoded(items: Sequence[Item]) -> list[str]:
    """Messages for `items`; neighbouring lines share one."""
    messages = []
    for kind, group in groupby(items, key=type):
        if kind is Line:
            messages.append('{"type":"lines","lines":[' + ",".join(line.json for line in group if isinstance(line, Line)) + "]}")
        else:
            messages += [json.dumps(_document(item), ensure_ascii=False) for item in group if not isinstance(item, Line)]
    return messages


def _document(item: Gap | Notice) -> dict[str, object]:
    if isinstance(item, Gap):
        return {"type": "gap", "missed": item.missed, "replica": item.replica}
    about = {"state": item.state, "replica": item.replica, "container": item.container, "reason": item.reason, "message": item.message}
    if not item.replica:
        about = {"state": item.state, "replica": ""}
    return {"type": "status", **about, **({"environment": item.environment, "events": list(item.events)} if not item.replica else {})}
