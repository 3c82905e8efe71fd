"""One upstream follow of one container, kept in a bounded ring that any number of viewers read at their own pace.

A viewer is only an index into the ring. One that is slow finds, when it comes back, that the ring has moved on: it is told how many lines
it missed. It never holds lines back from others, and costs no memory of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from k8s.errors import ClusterError, Gone, Rejected
from k8s.loglines import START, Numberer, Position, RawLine, shown
from k8s.logs import Container, LogClient, Pod

log = logging.getLogger(__name__)

RING_LINES = 4000
RING_BYTES = 4 * 1024 * 1024
HISTORY_LINES = 2000  # read when a follow begins
ENDED_POLL_SECONDS = 5.0
SLOWEST_RETRY_SECONDS = 5.0


class Key(NamedTuple):
    """What is followed."""

    namespace: str
    replica: str
    container: str


@dataclass(slots=True)
class Line:
    """One line as viewers get it. A `marker` stands between lines and has no sequence number of its own."""

    position: Position
    replica: str
    container: str
    stamp: str
    text: str
    cut: int = 0
    marker: dict[str, object] | None = None
    _json: str = ""

    @property
    def json(self) -> str:
        """Encoded once, however many viewers there are."""
        if not self._json:
            document: dict[str, object] = {"seq": str(self.position), "ts": self.stamp, "replica": self.replica, "container": self.container}
            document["text"] = self.text
            if self.cut:
                document["cut"] = self.cut
            if self.marker:
                document["marker"] = self.marker
                del document["seq"]
            self._json = json.dumps(document, ensure_ascii=False)
        return self._json

    @classmethod
    def of(cls, raw: RawLine, position: Position, replica: str, container: str) -> Line:
        return cls(position, replica, container, raw.stamp, shown(raw.body, cut=raw.cut > 0), raw.cut)


class Ring:
    """The newest lines, numbered by arrival: `base` is the number of the oldest that is kept, `end` that of the next to come."""

    def __init__(self, lines: int = RING_LINES, size: int = RING_BYTES) -> None:
        self._max_lines, self._max_bytes = lines, size
        self._items: list[Line] = []
        self._bytes = 0
        self.base = 0

    @property
    def end(self) -> int:
        return self.base + len(self._items)

    def append(self, line: Line) -> None:
        self._items.append(line)
        self._bytes += len(line.text) + 200
        if len(self._items) > self._max_lines or self._bytes > self._max_bytes:
            # an eighth at a time: removing from the front of a list moves all the rest
            gone = max(1, len(self._items) // 8)
            self._bytes -= sum(len(item.text) + 200 for item in self._items[:gone])
            del self._items[:gone]
            self.base += gone

    def kept(self) -> Sequence[Line]:
        return self._items

    def slice(self, start: int, count: int) -> list[Line]:
        return self._items[start - self.base : start - self.base + count]

    def after(self, position: Position) -> int:
        """Number of the first line past `position`."""
        return self.base + bisect_right(self._items, position, key=lambda line: line.position)

    def first_position(self) -> Position | None:
        return self._items[0].position if self._items else None


@dataclass(frozen=True)
class Status:
    """Where a follow stands: connecting, waiting (not started, or between restarts), live, interrupted, ended (container), gone (pod)."""

    state: str = "connecting"
    reason: str = ""
    message: str = ""


@dataclass
class Follow:
    """Follows a container through starts, restarts and lost connections until its last viewer leaves."""

    key: Key
    client: LogClient
    ring: Ring = field(default_factory=Ring)
    status: Status = field(default_factory=Status)
    older: bool = False  # lines before the ring exist in the cluster, or did
    ready: bool = False  # history is in the ring, or it is known that there is none yet
    viewers: set[asyncio.Event] = field(default_factory=set)
    pod: Pod | None = None

    def __post_init__(self) -> None:
        self._last = START
        self._instance: tuple[str, int] | None = None  # pod uid and restart count of what is being read
        self._drained = False  # the present instance ended and was read to its end
        self._poked = asyncio.Event()
        self._tries = 0
        self._task = asyncio.create_task(self._run(), name=f"follow {self.key.replica}/{self.key.container}")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def poke(self) -> None:
        """Something about the environment changed: look now rather than at the next poll."""
        self._poked.set()

    @property
    def restarted(self) -> bool:
        return self._instance is not None and self._instance[1] > 0

    def present_container(self) -> Container | None:
        return self.pod.containers.get(self.key.container) if self.pod else None

    # --- the loop -----------------------------------------------------------
    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except Gone:  # deleted between two questions
                await self._pause(0.1)
            except Rejected as error:  # between two instances
                self._tries += 1
                self._set(Status("waiting", error.reason, str(error)))
                await self._pause(min(1.0, 0.1 * self._tries))
            except ClusterError as error:
                self._tries += 1
                self._set(Status("interrupted", error.reason or type(error).__name__, str(error)))
                await self._pause(min(SLOWEST_RETRY_SECONDS, 0.2 * 2 ** min(self._tries, 6)))
            except Exception:  # one odd answer must not leave viewers with a dead follow that looks alive
                log.exception("following %s failed", self.key)
                self._set(Status("interrupted", "InternalError", ""))
                await self._pause(SLOWEST_RETRY_SECONDS)

    async def _step(self) -> None:
        self.pod = pod = await self.client.pod(self.key.namespace, self.key.replica)
        if pod is None:
            self._set(Status("gone", "PodGone", ""))
            await self._pause(ENDED_POLL_SECONDS)
            return
        container = pod.containers.get(self.key.container, Container())
        if not container.printed:
            self._tries += 1
            self._set(Status("waiting", container.reason or pod.reason, container.message or pod.message))
            await self._pause(min(1.0, 0.1 * self._tries))
            return
        instance = (pod.uid, container.restarts)
        if instance != self._instance:
            await self._begin(instance, container)
        elif self._drained:
            state = "waiting" if container.reason == "CrashLoopBackOff" else "ended"
            self._set(Status(state, container.reason, container.message))
            await self._pause(1.0 if state == "waiting" else ENDED_POLL_SECONDS)
            return
        await self._follow(container)

    async def _begin(self, instance: tuple[str, int], container: Container) -> None:
        """Takes up a container instance: first what the one before it printed and we have not seen, then what this one has printed."""
        known, self._instance, self._drained = self._instance, instance, False
        if container.restarts:
            try:
                await self._catch_up(previous=True)
            except (Rejected, Gone):
                pass  # the node no longer has it
            self._mark_restart(container)
        elif known is not None and known[0] != instance[0]:
            self._mark_restart(container)
        if not self.ready or self._last is START:
            await self._catch_up(running=container.running)

    async def _catch_up(self, *, previous: bool = False, running: bool = False) -> None:
        """Reads what there is without following it: from the last known line on, or at first the newest lines only."""
        if self._last is not START:
            numberer = Numberer()
            async for batch in self.client.lines(*self.key, previous=previous, since=self._last.time, unfinished=not running):
                self._take(batch, numberer)
            return
        # A tail may begin amid lines of one time, whose numbers then cannot be known. One line more than wanted is asked for; if it
        # comes, the log is longer than the tail, and the lines of the first time are left out. Until that is known all are kept apart:
        # who waited for the pod reads the follow's own ring already, and would miss lines put before those he has read.
        head, rest = Ring(), Ring()
        count, first, numberer = 0, None, Numberer()
        async for batch in self.client.lines(*self.key, previous=previous, tail=HISTORY_LINES + 1, unfinished=not running):
            first = batch[0].time if not count else first
            count += len(batch)
            for raw in batch:
                ring = head if raw.time == first and not rest.end else rest
                ring.append(Line.of(raw, numberer.next(raw.time), self.key.replica, self.key.container))
        whole = count <= HISTORY_LINES and not head.base and not rest.base
        self.older = self.older or not whole
        for line in (*(head.kept() if whole else ()), *rest.kept()):
            self._last = line.position
            self._append(line)
        self._wake()

    async def _follow(self, container: Container) -> None:
        since = None if self._last is START else self._last.time
        numberer, unseen = Numberer(), since is not None and self._last.time // 1_000_000_000 > container.started_at > 0
        stream = self.client.lines(*self.key, follow=True, since=since)
        self.ready = True
        self._set(Status("live") if container.running else self.status)
        try:
            async for batch in stream:
                self._tries = 0
                if unseen:
                    self._check_rotation(batch)
                    unseen = False
                self._take(batch, numberer)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        if not container.running:
            self._drained = True
        else:
            await self._pause(0.1)  # it ended, or the connection did: the pod's status tells, but may lag a moment

    def _check_rotation(self, batch: list[RawLine]) -> None:
        """A log that no longer reaches back to our last line was rotated while we were away: say that lines are missing."""
        time = batch[0].time
        if time is not None and time > self._last.time:
            self._append(self._marker({"code": "rotated"}, "lines are missing here: the node rotated the log"))
            self._wake()

    # --- what arrives ---------------------------------------------------------
    def _take(self, batch: list[RawLine], numberer: Numberer) -> None:
        fresh = False
        for raw in batch:
            position = numberer.next(raw.time)
            if position > self._last:
                self._last = position
                self._append(Line.of(raw, position, self.key.replica, self.key.container))
                fresh = True
        if fresh:
            self._wake()

    def _append(self, line: Line) -> None:
        self.ring.append(line)
        if self.ring.base:
            self.older = True

    def _marker(self, marker: dict[str, object], text: str) -> Line:
        return Line(self._last, self.key.replica, self.key.container, "", text, marker=marker)

    def _mark_restart(self, container: Container) -> None:
        why = f", exit code {container.exit_code}" if container.exit_code is not None else ""
        marker: dict[str, object] = {"code": "restarted", "restarts": container.restarts, "exit_code": container.exit_code}
        self._append(self._marker(marker, f"the container was started again (restart {container.restarts}{why})"))
        self._wake()

    def _set(self, status: Status) -> None:
        if status.state not in ("live", "interrupted", "connecting"):
            self.ready = True
        if status != self.status:
            self.status = status
            self._wake()

    def _wake(self) -> None:
        for viewer in self.viewers:
            viewer.set()

    async def _pause(self, seconds: float) -> None:
        self._poked.clear()
        try:
            await asyncio.wait_for(self._poked.wait(), seconds)
        except TimeoutError:
            pass
