"""Client of the Hub's API, with the portal's service token. Its errors are `HubError`s; nothing of httpx leaves this module."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from django.conf import settings

from k8s import names
from k8s.status import Server

_TIMEOUT = httpx.Timeout(15.0, connect=3.0)
_PAGE = 100  # users
_SILENCE_SECONDS = 30.0  # the Hub sends an empty line every 8 s


class HubError(Exception):
    """Base. `retryable` tells whether waiting may help."""

    retryable = False


class HubUnreachable(HubError):
    """No answer, or an answer that says to come back later (429, 5xx)."""

    retryable = True


class HubRefused(HubError):
    """The Hub does not do what was asked; the message says why."""


class HubAbsent(HubError):
    """The Hub knows no such user or server."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One message of a server's start. `is_pod_event`: it repeats an event that Kubernetes recorded for the pod."""

    percent: int
    message: str
    is_pod_event: bool = False
    ready: bool = False
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class HubServer:
    """An active server as the Hub lists it; what it was ordered for is empty for one that this portal did not order."""

    user: str
    name: str
    environment: str = ""
    install: str = ""
    pending: str = ""


class Hub:
    """Connections are kept; safe for threads. Server names are `EnvironmentSpec.base_name`."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"token {token}"}, timeout=_TIMEOUT, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def user_ensure(self, username: str) -> None:
        """Make the Hub's user if absent."""
        self._call("PUT", f"/atelier/users/{_quoted(username)}")

    def sessions_end(self, username: str) -> None:
        """End every session and token that the user has at the Hub. An unknown user has none."""
        try:
            self._call("DELETE", f"/atelier/users/{_quoted(username)}/sessions")
        except HubAbsent:
            pass

    def server_get(self, username: str, name: str) -> Server | None:
        """The server as the Hub knows it now; None where it knows none. One that was stopped but not forgotten is inactive."""
        try:
            model = self._call("GET", _server(username, name)).json()
        except HubAbsent:
            return None
        return Server(ready=bool(model.get("ready")), pending=model.get("pending") or "", url=model.get("url") or "")

    def servers(self) -> Iterator[HubServer]:
        """Every server that runs, starts or stops, of all users."""
        offset: int | None = 0
        while offset is not None:
            path = f"/users?state=active&offset={offset}&limit={_PAGE}"
            page = self._call("GET", path, headers={"Accept": "application/jupyterhub-pagination+json"}).json()
            for user in page["items"]:
                for server in (user.get("servers") or {}).values():
                    yield _listed(str(user.get("name", "")), server)
            following = (page.get("_pagination") or {}).get("next")
            offset = following["offset"] if following else None

    def activity(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Of every running server, by user and server name: `{"last": rfc3339 | None, "kernels_busy": n | None}`; busy None: it did not say."""
        found = self._call("GET", "/atelier/activity").json()["servers"]
        return {(each["user"], each["server"]): {"last": each.get("last"), "kernels_busy": each.get("kernels_busy")} for each in found}

    def server_start(self, username: str, name: str, options: Mapping[str, Any]) -> None:
        """Ask for the server; returns before it is up. A server that runs or starts already is fine."""
        try:
            self._call("POST", _server(username, name), body=options)
        except HubRefused as error:
            if "already running" not in str(error) and "pending spawn" not in str(error):
                raise

    def server_stop(self, username: str, name: str) -> None:
        """Ask for the server to be stopped and forgotten; returns before it is down. An unknown server is fine."""
        try:
            self._call("DELETE", _server(username, name), body={"remove": True})
        except HubAbsent:
            pass

    def failure(self, username: str, name: str) -> str:
        """Why the server's last start failed, in the Hub's words; empty when it did not fail or the Hub does not remember."""
        try:
            for progress in self.progress(username, name):
                return progress.message.removeprefix("Spawn failed: ") if progress.failed else ""
        except (HubAbsent, HubRefused):
            pass
        return ""

    def progress(self, username: str, name: str) -> Iterator[Progress]:
        """Messages of a server that is starting, until it is ready or has failed. Raises HubRefused when it is not starting."""
        timeout = httpx.Timeout(_SILENCE_SECONDS, connect=3.0)
        try:
            with self._http.stream("GET", _server(username, name) + "/progress", timeout=timeout, headers={"Accept": "text/event-stream"}) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _error(response)
                for line in response.iter_lines():
                    if line.startswith("data:"):
                        yield _progress(json.loads(line[5:]))
        except httpx.HTTPError as error:
            raise HubUnreachable(f"JupyterHub does not answer: {type(error).__name__}") from error

    def _call(self, method: str, path: str, *, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise HubUnreachable(f"JupyterHub does not answer: {type(error).__name__}") from error
        if response.status_code >= 400:
            raise _error(response)
        return response


_shared: dict[int, Hub] = {}


def connect() -> Hub:
    """The process's own client. Connections must not cross a fork, hence the pid."""
    pid = os.getpid()
    if pid not in _shared:
        _shared.clear()
        _shared[pid] = Hub(settings.HUB_API_URL, settings.HUB_SERVICE_TOKEN)
    return _shared[pid]


def _quoted(name: str) -> str:
    return quote(name, safe="@")


def _server(username: str, name: str) -> str:
    return f"/users/{_quoted(username)}/servers/{_quoted(name)}"


def _listed(user: str, server: Mapping[str, Any]) -> HubServer:
    options = server.get("user_options") or {}
    pod = options.get("pod") if isinstance(options, Mapping) else None
    labels = ((pod or {}).get("metadata") or {}).get("labels") or {} if isinstance(pod, Mapping) else {}
    return HubServer(
        user=user,
        name=str(server.get("name", "")),
        environment=str(options.get("environment", "")) if labels else "",
        install=str(labels.get(names.INSTALL, "")),
        pending=str(server.get("pending") or ""),
    )


def _progress(event: Mapping[str, Any]) -> Progress:
    return Progress(
        percent=int(event.get("progress", 0)),
        message=str(event.get("message", "")),
        is_pod_event="type" in event,
        ready=bool(event.get("ready")),
        failed=bool(event.get("failed")),
    )


def _error(response: httpx.Response) -> HubError:
    try:
        message = str(response.json().get("message", ""))
    except (ValueError, AttributeError):
        message = ""
    message = message or f"HTTP {response.status_code}"
    if response.status_code == 404:
        return HubAbsent(message)
    if response.status_code == 429 or response.status_code >= 500:
        return HubUnreachable(f"JupyterHub cannot do it now: {message}")
    return HubRefused(message)
