"""Announcements of the channel layer, received once per group and process and passed on to every open socket.

They are hints. When Redis is down none arrive, and sockets go on by looking at the database every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer

log = logging.getLogger(__name__)

# Called with the environment's id, or None when announcements may have been missed.
Listener = Callable[[str | None], None]


@dataclass
class _Group:
    name: str
    listeners: list[Listener] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.task = asyncio.create_task(self._run(), name=f"listen {self.name}")

    def tell(self, environment: str | None) -> None:
        for listener in tuple(self.listeners):
            listener(environment)

    async def _run(self) -> None:
        delay = 0.5
        while True:
            try:
                await self._listen()
            except Exception as error:  # whatever Redis has: sockets poll meanwhile
                log.warning("no announcements for now: group=%s error=%s", self.name, type(error).__name__)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10)

    async def _listen(self) -> None:
        layer = get_channel_layer()
        if layer is None:
            await asyncio.Event().wait()
        channel = await layer.new_channel()
        try:
            await layer.group_add(self.name, channel)
            self.tell(None)  # what changed before we listened
            while True:
                message = await layer.receive(channel)
                self.tell(message.get("environment"))
        finally:
            with suppress(Exception):
                await layer.group_discard(self.name, channel)


class Changes:
    """Who listens to which group. Belongs to one event loop."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    @contextmanager
    def listening(self, name: str, listener: Listener) -> Iterator[None]:
        """`listener` hears of `name` inside the block."""
        self.add(name, listener)
        try:
            yield
        finally:
            self.remove(name, listener)

    def add(self, name: str, listener: Listener) -> None:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(name)
        group.listeners.append(listener)

    def remove(self, name: str, listener: Listener) -> None:
        group = self._groups[name]
        group.listeners.remove(listener)
        if not group.listeners:
            del self._groups[name]
            group.task.cancel()


_all: WeakKeyDictionary[asyncio.AbstractEventLoop, Changes] = WeakKeyDictionary()


def current_changes() -> Changes:
    """The announcements of the running event loop."""
    loop = asyncio.get_running_loop()
    changes = _all.get(loop)
    if changes is None:
        changes = _all[loop] = Changes()
    return changes
