"""Effects outside the database, all after commit. Redis down is logged and otherwise ignored: the sweep finds overdue rows."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

from .models import Environment

logger = logging.getLogger(__name__)


_BROKER_REST = 2.0  # seconds without a try after a failed one, so that many verbs in a row do not each wait for a broker that is down
_rest_until = 0.0


@dataclass(frozen=True)
class _Task:
    """A task to send once the transaction has committed."""

    name: str
    args: tuple[str, ...]

    def __call__(self) -> None:
        global _rest_until
        from portal.celery import app  # reads the settings, so not at import time

        if time.monotonic() < _rest_until:
            logger.debug("task not sent, the broker was down a moment ago: task=%s args=%s", self.name, self.args)
            return
        try:
            app.send_task(self.name, args=list(self.args), ignore_result=True)
        except Exception as error:  # any broker fault; the database row is the truth and the sweep will find it
            _rest_until = time.monotonic() + _BROKER_REST
            logger.warning("task not sent, the sweep will catch up: task=%s args=%s error=%s", self.name, self.args, type(error).__name__)


def _after_commit(name: str, *args: str) -> None:
    task, connection = _Task(name, args), transaction.get_connection()
    # Once per transaction. One that is registered already falls away only with a savepoint around us too, so ours would go with it.
    if not any(pending == task for _, pending, *_ in connection.run_on_commit):
        transaction.on_commit(task)


def nudge(environment_id: UUID | str) -> None:
    """Ask a worker to look at the environment now."""
    _after_commit("workers.converge", str(environment_id))


def hub_revoke(username: str) -> None:
    """Ask a worker to end the user's sessions, tokens and servers at the Hub."""
    _after_commit("workers.revoke_hub_access", username)


def team_sync(team_slug: str) -> None:
    """Ask a worker to bring the team's namespace (quota, policies, volumes to purge) in line."""
    _after_commit("workers.team_sync", team_slug)


def queue_run() -> None:
    """Ask a worker to look at the queue now: there may be room."""
    _after_commit("workers.queue")


def groups_of(environment: Environment) -> tuple[str, str, str]:
    """Channel-layer groups that hear of the environment."""
    return f"environment.{environment.pk}", f"user.{environment.owner_id}", f"team.{environment.team_id}"


def announce(environment: Environment, *, kind: str, seq: int | None = None) -> None:
    """Tell open pages that something changed; they read what from the database. `kind`: "state", "event" or "observed"."""
    groups = groups_of(environment)
    message = {"type": "environment.changed", "environment": str(environment.pk), "seq": environment.last_seq if seq is None else seq, "kind": kind}
    transaction.on_commit(lambda: _group_send(groups, message))


def announce_notification(user_id: int, environment: Environment | None = None) -> None:
    """Tell the user's open pages that his notifications changed."""
    message: dict[str, object] = {"type": "environment.changed", "environment": str(environment.pk) if environment else None, "seq": 0, "kind": "notification"}
    transaction.on_commit(lambda: _group_send((f"user.{user_id}",), message))


def _group_send(groups: tuple[str, ...], message: dict[str, object]) -> None:
    layer = get_channel_layer()
    if layer is None:
        return

    async def send() -> None:
        async with asyncio.timeout(2):  # a page that is told late is better than a request that hangs
            for group in groups:
                await layer.group_send(group, message)

    try:
        async_to_sync(send)()
    except Exception as error:  # pages catch up when they reconnect
        logger.warning("announcement not sent: environment=%s error=%s", message["environment"], type(error).__name__)
