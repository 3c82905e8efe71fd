"""When each running server was last used, and whether a kernel of it is busy.

JupyterHub itself only knows when a server last said that it was used, and a cell that computes for hours without printing says nothing. So the
Hub asks the server, with a token that reaches this one server and nobody else ever sees: the portal's service learns two facts and gets no
access to anybody's notebook.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jupyterhub import objects, orm
from jupyterhub.utils import isoformat
from tornado.httpclient import AsyncHTTPClient, HTTPClientError

from .handlers import ACTIVITY_SCOPE, ACTIVITY_TOKEN_NOTE, ScopedHandler

_TOKEN_SECONDS = 3600
_AT_ONCE = 20  # servers asked at the same time
_SECONDS = 5.0  # for one answer
_ALTOGETHER = 12.0  # who has not answered by then is not known; the portal waits 15 s


@dataclass(frozen=True)
class Server:
    """A running server, taken from the database before anything is awaited."""

    user: str
    name: str
    url: str
    last: str | None
    token: str


class ActivityHandler(ScopedHandler):
    """GET: `{"servers": [{"user", "server", "last", "kernels_busy"}]}` of every running server. `kernels_busy` null: it did not say."""

    scope = ACTIVITY_SCOPE
    _tokens: dict[tuple[str, str], tuple[str, float]] = {}  # of this process: (user, server) -> token, end of its use

    async def get(self) -> None:
        self.require_scope()
        servers = self._servers()
        gate = asyncio.Semaphore(_AT_ONCE)
        tasks = [asyncio.create_task(self._ask(server, gate)) for server in servers]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_ALTOGETHER)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        found = []
        for server, task in zip(servers, tasks, strict=True):
            last, busy = (None, None) if task.cancelled() or task.exception() else task.result()
            found.append({"user": server.user, "server": server.name, "last": last or server.last, "kernels_busy": busy})
        self.write({"servers": found})

    def _servers(self) -> list[Server]:
        found = []
        for spawner in self.db.query(orm.Spawner).filter(orm.Spawner.server_id.isnot(None)):
            last = isoformat(spawner.last_activity.replace(tzinfo=UTC)) if spawner.last_activity else None
            url = objects.Server(orm_server=spawner.server).url
            found.append(Server(spawner.user.name, spawner.name, url, last, self._token(spawner)))
        alive = {(server.user, server.name) for server in found}
        for gone in self._tokens.keys() - alive:
            del self._tokens[gone]
        return found

    def _token(self, spawner: Any) -> str:
        key = (spawner.user.name, spawner.name)
        token, until = self._tokens.get(key, ("", 0.0))
        if time.monotonic() >= until:
            scopes = [f"access:servers!server={spawner.user.name}/{spawner.name}"]
            token = spawner.user.new_api_token(scopes=scopes, note=ACTIVITY_TOKEN_NOTE, expires_in=_TOKEN_SECONDS)
            self._tokens[key] = (token, time.monotonic() + _TOKEN_SECONDS * 0.8)
        return token

    async def _ask(self, server: Server, gate: asyncio.Semaphore) -> tuple[str | None, int | None]:
        async with gate:
            try:
                status = await _get(server, "api/status")
                kernels = await _get(server, "api/kernels")
            except HTTPClientError as error:
                if error.code in (401, 403):  # its token went with the user's sessions
                    self._tokens.pop((server.user, server.name), None)
                return None, None
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.log.debug("No activity from %s: %r", server.url, error)
                return None, None
        if status is None and kernels is None:  # no Jupyter server: JupyterHub's own record is all there is
            return None, 0
        busy = sum(kernel.get("execution_state") == "busy" for kernel in kernels or [])
        # The server's own word, where it gives one: what the Hub has is older, or is the proxy's, which counts open pages.
        return (_utc(status["last_activity"]) if status else None), busy


async def _get(server: Server, path: str) -> Any:
    """The answer's JSON, None where the server has no such address. Being asked is no activity."""
    url = f"{server.url}{path}?no_track_activity=1"
    headers = {"Authorization": f"token {server.token}"}
    answer = await AsyncHTTPClient().fetch(url, headers=headers, request_timeout=_SECONDS, connect_timeout=_SECONDS, raise_error=False, follow_redirects=False)
    if answer.code == 404:
        return None
    if answer.code != 200:
        raise HTTPClientError(answer.code)
    return json.loads(answer.body)


def _utc(text: str) -> str:
    return isoformat(datetime.fromisoformat(text).astimezone(UTC))
