"""One viewer of an environment's logs: history, then what comes, from one replica or all; archives of those that are gone.

Resuming: a client keeps, per replica and container, the `seq` of the last line it got and gives them back. What the ring of a follow no
longer holds is read again from the cluster for this viewer alone; what even the cluster no longer has is a visible gap.
"""

from __future__ import annotations

import asyncio
import heapq
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from k8s.errors import ClusterError, Gone, Rejected
from k8s.loglines import START, Numberer, Position

from .follow import Follow, Key, Line, Status
from .hub import Hub
from .snapshot import Archive, Snapshot, archived_lines
from .watch import Watch, in_database

TAIL_LINES = 1000
MAX_TAIL = 20_000
BATCH_LINES = 500
BATCH_CHARS = 256 * 1024
HISTORY_WAIT_SECONDS = 1.0
LEAVING_SECONDS = 10.0
# Between two looks. The first line after silence goes out at once, the next ones together; many viewers share the processor.
PACE_SECONDS, PACE_PER_VIEWER = 0.01, 0.0005


@dataclass(frozen=True)
class Gap:
    """Lines that this viewer does not get. `missed` is None where nobody can know how many."""

    missed: int | None
    replica: str


@dataclass(frozen=True)
class Notice:
    """A change of a replica (or, with an empty replica, of the whole) that explains why lines come or do not."""

    state: str
    replica: str = ""
    container: str = ""
    reason: str = ""
    message: str = ""
    environment: dict[str, object] = field(default_factory=dict, hash=False)
    events: tuple[dict[str, object], ...] = field(default=(), hash=False)


Item = Line | Gap | Notice
Send = Callable[[Sequence[Item]], Awaitable[None]]


class Cursors:
    """Where to go on. Text form: `seq` alone for every replica, or `replica/container=seq` joined by commas."""

    def __init__(self, given: dict[tuple[str, str], Position] | None = None, default: Position = START) -> None:
        self._given = given or {}
        self._default = default

    @classmethod
    def parse(cls, text: str) -> Cursors:
        """Raises ValueError."""
        if not text:
            return cls()
        if "=" not in text:
            return cls(default=Position.parse(text))
        return cls.of(dict(part.rsplit("=", 1) for part in text.split(",")))

    @classmethod
    def of(cls, document: dict[str, str]) -> Cursors:
        """From {"replica/container": seq}. Raises ValueError."""
        given = {}
        for name, seq in document.items():
            match = re.fullmatch(r"([a-z0-9.-]{1,253})/([a-z0-9-]{1,63})", name)
            if match is None or not isinstance(seq, str):
                raise ValueError("expected replica/container=seq")
            given[match[1], match[2]] = Position.parse(seq)
        return cls(given)

    def __bool__(self) -> bool:
        return bool(self._given) or self._default is not START

    def get(self, replica: str, container: str) -> Position:
        return self._given.get((replica, container), self._default)


@dataclass
class _Stream:
    """This viewer's place in one follow."""

    follow: Follow
    cursor: Position
    index: int = 0
    attached: bool = False
    told: Status | None = None
    leaving_since: float | None = None


class Viewer:
    """Sends items until the environment is done (`until_resting`, or deleted) or the task is cancelled."""

    def __init__(
        self, *, watch: Watch, hub: Hub, send: Send, replica: str = "", container: str = "", after: Cursors | None = None, tail: int = TAIL_LINES
    ) -> None:
        self._watch, self._hub, self._send = watch, hub, send
        self._wake = watch.wake
        self._replica, self._container = replica, container
        self._after = after or Cursors()
        self._tail = max(0, min(tail, MAX_TAIL))
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._cursors: dict[tuple[str, str], Position] = {}  # of replicas that are gone, too
        self._archives: set[int] = set()
        self._seen: Snapshot | None = None
        self._told: tuple[object, ...] = ()

    async def run(self, *, until_resting: bool = False) -> None:
        try:
            await self._first()
            while not self._done(until_resting):
                await self._wake.wait()
                self._wake.clear()
                self._sync()
                await self._drain()
                await self._serve_archives()
                await self._tell()
                crowd = max((len(stream.follow.viewers) for stream in self._streams.values()), default=0)
                await asyncio.sleep(max(PACE_SECONDS, PACE_PER_VIEWER * crowd))
        finally:
            for stream in self._streams.values():
                self._hub.release(stream.follow.key, self._wake)

    def _done(self, until_resting: bool) -> bool:
        snapshot = self._seen
        if snapshot is None or self._streams:
            return False
        return snapshot.resting if until_resting else snapshot.state == "deleted"

    # --- which containers -------------------------------------------------------
    def _wanted(self, replica: str, container: str) -> bool:
        return self._replica in ("", replica) and self._container in ("", container)

    def _cursor(self, pair: tuple[str, str]) -> Position:
        return max(self._cursors.get(pair, START), self._after.get(*pair))

    def _sync(self) -> None:
        """Takes up replicas that appeared and lets go of those that are gone and read to their end."""
        snapshot = self._watch.snapshot
        if snapshot is None:
            return
        wanted = {pair for pair in snapshot.containers if self._wanted(*pair)}
        now = asyncio.get_running_loop().time()
        if snapshot is not self._seen:
            self._seen = snapshot
            for pair in sorted(wanted - self._streams.keys()):
                key = Key(snapshot.namespace, *pair)
                self._streams[pair] = _Stream(self._hub.acquire(key, self._wake), self._cursor(pair))
            for stream in self._streams.values():
                stream.follow.poke()
        for pair, stream in list(self._streams.items()):
            if pair in wanted:
                stream.leaving_since = None
                continue
            stream.leaving_since = stream.leaving_since or now
            follow = stream.follow
            read = not stream.attached or stream.index >= follow.ring.end
            if (follow.status.state == "gone" and read) or now - stream.leaving_since > LEAVING_SECONDS:
                del self._streams[pair]
                self._cursors[pair] = stream.cursor
                self._hub.release(follow.key, self._wake)
                self._wake.set()
            else:
                asyncio.get_running_loop().call_later(0.5, self._wake.set)

    # --- history ------------------------------------------------------------------
    async def _first(self) -> None:
        if self._watch.snapshot is None:
            await self._watch.refresh()
        self._sync()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HISTORY_WAIT_SECONDS
        while any(not stream.follow.ready for stream in self._streams.values()) and loop.time() < deadline:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), max(0.0, deadline - loop.time()))
            except TimeoutError:
                break
        await self._serve_archives()
        for stream in self._streams.values():
            if stream.follow.ready:
                await self._attach(stream)
        await self._send_merged()
        self._wake.set()

    async def _attach(self, stream: _Stream) -> None:
        """Finds this viewer's place in the ring, reading again what comes before it where needed."""
        follow, ring = stream.follow, stream.follow.ring
        stream.attached = True
        stream.cursor = max(stream.cursor, self._cursor((follow.key.replica, follow.key.container)))
        if self._after.get(follow.key.replica, follow.key.container) > START:
            first = ring.first_position()
            if follow.older and first is not None and stream.cursor < first:
                await self._read_again(stream, since=stream.cursor.time)
            stream.index = max(stream.index, ring.after(stream.cursor))
        elif self._tail > ring.end - ring.base and follow.older and stream.cursor is START:
            await self._read_again(stream, tail=self._tail)
            stream.index = max(stream.index, ring.after(stream.cursor))
        else:
            stream.index = max(ring.after(stream.cursor), ring.end - self._tail)

    async def _read_again(self, stream: _Stream, *, since: int | None = None, tail: int | None = None) -> None:
        """Sends lines past the cursor straight from the cluster up to where the ring begins."""
        follow = stream.follow
        key = follow.key
        present = follow.present_container()
        # within the same instance the line we had must still be there; if not, the node dropped it with what followed
        sure = since is not None and present is not None and since // 1_000_000_000 > present.started_at > 0
        for previous in (True, False) if follow.restarted else (False,):
            numberer = Numberer()
            try:
                async for batch in self._hub.client.lines(*key, previous=previous, since=since, tail=tail, unfinished=False):
                    lines = [Line.of(raw, numberer.next(raw.time), key.replica, key.container) for raw in batch]
                    if sure and not previous and lines[0].position.time > stream.cursor.time:
                        await self._send([Gap(None, key.replica)])
                    sure = sure and previous
                    fresh = [line for line in lines if line.position > stream.cursor]
                    if fresh:
                        stream.cursor = fresh[-1].position
                        await self._send_lines(fresh)
                    first = follow.ring.first_position()
                    if first is not None and stream.cursor >= first:
                        return
            except (Rejected, Gone):
                continue  # no previous instance is kept, or it is between two
            except ClusterError:
                break
        first = follow.ring.first_position()
        if first is not None and first > stream.cursor and since is not None:
            await self._send([Gap(None, key.replica)])

    async def _send_merged(self) -> None:
        """The newest lines of all attached replicas, in order of time."""
        slices = []
        for stream in self._streams.values():
            if stream.attached:
                ring = stream.follow.ring
                stream.index = max(stream.index, ring.base)
                lines = ring.slice(stream.index, ring.end - stream.index)
                stream.index += len(lines)
                stream.cursor = max(stream.cursor, lines[-1].position) if lines else stream.cursor
                slices.append(lines)
        lines = list(heapq.merge(*slices, key=lambda line: line.position.time))
        await self._send_lines(lines if self._after else lines[-self._tail :] if self._tail else [])

    async def _serve_archives(self) -> None:
        """Kept logs that were not served yet. Lines this viewer had already are left out."""
        if self._seen is None:
            return
        fresh = [a for a in self._seen.archives if a.id not in self._archives and self._wanted(a.replica, a.container)]
        if not fresh:
            return
        self._archives |= {archive.id for archive in fresh}
        for archive in fresh:
            await self._serve_archive(archive)

    async def _serve_archive(self, archive: Archive) -> None:
        pair = (archive.replica, archive.container)
        stream = self._streams.get(pair)
        cursor = max(self._cursor(pair), stream.cursor if stream else START)
        try:
            lines: Sequence[Line] = await in_database(archived_lines, archive)
        except OSError:
            await self._send([Notice("unreadable", archive.replica, archive.container)])
            return
        if cursor is START:
            fresh = list(lines[-self._tail :]) if self._tail else []
        else:
            fresh = [line for line in lines if line.position > cursor]
            if fresh and len(fresh) == len(lines) and archive.truncated:
                await self._send([Gap(None, archive.replica)])
        if lines:
            self._cursors[pair] = max(cursor, lines[-1].position)
            if stream:
                stream.cursor = self._cursors[pair]
        await self._send_lines(fresh)
        await self._send([Notice("archived", archive.replica, archive.container)])

    # --- what comes -----------------------------------------------------------------
    async def _drain(self) -> None:
        """Sends what is new in every ring, a batch of each in turn."""
        progressed = True
        while progressed:
            progressed = False
            for stream in list(self._streams.values()):
                if not stream.attached:
                    if not stream.follow.ready:
                        if notice := _news(stream):
                            await self._send([notice])
                        continue
                    await self._attach(stream)
                progressed |= await self._send_next(stream)

    async def _send_next(self, stream: _Stream) -> bool:
        follow, ring = stream.follow, stream.follow.ring
        items: list[Item] = []
        if stream.index < ring.base:
            items.append(Gap(ring.base - stream.index, follow.key.replica))
            stream.index = ring.base
        lines = _fitting(ring.slice(stream.index, BATCH_LINES))
        stream.index += len(lines)
        if lines:
            if lines[0].position <= stream.cursor:  # an archive was quicker
                lines = [line for line in lines if line.marker or line.position > stream.cursor]
            if lines:
                stream.cursor = max(stream.cursor, lines[-1].position)
            items += lines
        more = stream.index < ring.end
        if not more and (notice := _news(stream)):
            items.append(notice)
        if items:
            await self._send(items)
        return more

    async def _send_lines(self, lines: list[Line]) -> None:
        start = 0
        while start < len(lines):
            batch = _fitting(lines[start : start + BATCH_LINES])
            start += len(batch)
            await self._send(batch)

    # --- why nothing comes ------------------------------------------------------------
    async def _tell(self) -> None:
        """One notice on the whole whenever it changed; with the latest events while there is nothing to read."""
        snapshot = self._seen
        if snapshot is None:
            return
        states = {stream.follow.status.state for stream in self._streams.values()}
        if "live" in states:
            state = "live"
        elif "interrupted" in states:
            state = "interrupted"
        elif snapshot.resting:
            state = "archived" if self._archives else "ended"
        elif states and states <= {"ended", "gone"}:
            state = "ended"
        else:
            state = "waiting"
        about = {key: snapshot.document[key] for key in ("state", "reason", "message")}
        told = (state, *about.values(), snapshot.last_seq if state == "waiting" else 0)
        if told == self._told:
            return
        self._told = told
        events: Iterable[dict[str, object]] = ()
        if state == "waiting":
            events = await self._watch.events_after(snapshot.last_seq - 5, 5)
        await self._send([Notice(state, environment=about, events=tuple(events))])


def _news(stream: _Stream) -> Notice | None:
    """What changed about the follow since this viewer was told."""
    status, key = stream.follow.status, stream.follow.key
    if status == stream.told:
        return None
    stream.told = status
    return Notice(status.state, key.replica, key.container, status.reason, status.message)


def _fitting(lines: list[Line]) -> list[Line]:
    """As many of the first lines as fit one message; at least one."""
    size = 0
    for count, line in enumerate(lines):
        size += len(line.text)
        if size > BATCH_CHARS and count:
            return lines[:count]
    return lines
