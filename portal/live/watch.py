"""Keeps an eye on one environment for one open socket: what it is like now, and whether the caller may still see it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import DatabaseError

from .access import Caller
from .changes import current_changes
from .snapshot import Snapshot, events_after, take

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

RECHECK_SECONDS = 3.0
_SETTLE_SECONDS = 0.05  # announcements come in bursts
# Threads of their own: hundreds of sockets that look again must not stand in line with pages for Django's one thread.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="live-database")


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `function`, which reads the database, in one of the live room's threads."""
    answer: T = await database_sync_to_async(function, thread_sensitive=False, executor=_threads)(*args, **kwargs)
    return answer


class Watch:
    """`snapshot` is renewed when something is announced and every RECHECK_SECONDS; `wake` is then set if it differs."""

    def __init__(self, caller: Caller, environment_id: UUID, wake: asyncio.Event) -> None:
        self.caller = caller
        self.environment_id = environment_id
        self.wake = wake
        self.snapshot: Snapshot | None = None
        self._dirty = asyncio.Event()

    async def refresh(self) -> Snapshot:
        """Looks now. Raises SignInNeeded or NotFound."""
        snapshot = await in_database(take, self.caller, self.environment_id)
        if snapshot != self.snapshot:
            self.snapshot = snapshot
            self.wake.set()
        return snapshot

    async def events_after(self, seq: int, limit: int) -> list[dict[str, Any]]:
        """Events past `seq`, oldest first. Raises SignInNeeded or NotFound."""
        return await in_database(events_after, self.caller, self.environment_id, seq, limit)

    async def run(self) -> None:
        """Looks again and again; ends only by SignInNeeded or NotFound."""
        with current_changes().listening(f"environment.{self.environment_id}", lambda _: self._dirty.set()):
            while True:
                try:
                    await asyncio.wait_for(self._dirty.wait(), RECHECK_SECONDS)
                    await asyncio.sleep(_SETTLE_SECONDS)
                except TimeoutError:
                    pass
                self._dirty.clear()
                try:
                    await self.refresh()
                except DatabaseError as error:  # keep what is known; look again at the next turn
                    log.warning("cannot look at environment %s now: %s", self.environment_id, type(error).__name__)
