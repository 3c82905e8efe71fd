"""`/ws/notifications/`: how much the caller has not read and how many approvals wait for him, now and after each change. On every page, so it is cheap."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack

from django.db import DatabaseError

from portal.domain import selectors
from portal.domain.errors import DomainError

from .access import Caller, close_code
from .changes import current_changes
from .socket import ASGIReceive, ASGISend, Scope, Socket, serve
from .watch import in_database

log = logging.getLogger(__name__)

RECHECK_SECONDS = 15.0  # also how late a page notices that its session ended
_SETTLE_SECONDS = 0.5  # a busy team announces a lot
_ADMINS_LISTEN_TO = 50  # teams; beyond that an admin's count of approvals follows by the recheck


def _read(caller: Caller) -> tuple[set[str], dict[str, object]]:
    user = caller.user()
    led = list(selectors.teams_led_by(user).values_list("pk", flat=True)[:_ADMINS_LISTEN_TO])
    approvals = selectors.approvals_decidable_by(user).count() if led or user.is_staff else 0
    counts: dict[str, object] = {"unread": selectors.notifications_of(user, unread=True).count(), "approvals": approvals}
    return {f"user.{user.pk}", *(f"team.{pk}" for pk in led)}, {"type": "notifications", **counts}


async def notifications_socket(scope: Scope, receive: ASGIReceive, send: ASGISend) -> None:
    """{"type": "notifications", "unread": n, "approvals": n}. Closed with 4401 when the caller is not signed in any more."""
    socket = Socket(receive, send)
    await socket.accept()
    caller = Caller.of_scope(scope)
    try:
        groups, told = await in_database(_read, caller)
    except DomainError as error:
        await socket.close(close_code(error), error.title)
        return
    await serve(socket, _report(socket, caller, groups, told))


async def _report(socket: Socket, caller: Caller, groups: set[str], told: dict[str, object]) -> None:
    dirty = asyncio.Event()
    with ExitStack() as listening:
        for group in groups:  # as they were when it opened; the recheck covers what changes in who leads what
            listening.enter_context(current_changes().listening(group, lambda _: dirty.set()))
        await socket.send_json(told)
        while True:
            try:
                await asyncio.wait_for(dirty.wait(), RECHECK_SECONDS)
                await asyncio.sleep(_SETTLE_SECONDS)
            except TimeoutError:
                pass
            dirty.clear()
            try:
                _, now = await in_database(_read, caller)
            except DatabaseError as error:  # keep what is known; look again at the next turn
                log.warning("cannot count notifications now: %s", type(error).__name__)
                continue
            if now != told:
                told = now
                await socket.send_json(told)
