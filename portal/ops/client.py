"""A person at work, as a program: the REST API with a token, and a notebook's kernel over the Hub after signing in by form.

Used by `manage.py demo`, the integration tests and the benchmarks. Speaks only what a browser or script would.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from websockets.sync.client import connect


class StepFailed(Exception):
    """Something did not go as it should; the text says what was seen."""


class Api:
    """The REST API under `/api/v1` with a bearer token."""

    def __init__(self, base: str, token: str) -> None:
        self.http = httpx.Client(base_url=base.rstrip("/") + "/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.close()

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """The JSON of a 2xx answer; anything else raises StepFailed with the problem's words."""
        answer = self.http.request(method, path, **kwargs)
        if answer.is_success:
            return answer.json() if answer.headers.get("content-type", "").startswith("application/json") else answer.text
        raise StepFailed(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")

    def environment(self, identifier: str) -> dict[str, Any]:
        return self.call("GET", f"/environments/{identifier}")

    def wait_state(self, identifier: str, *states: str, timeout: float = 180, seen: Callable[[str, dict[str, Any]], None] | None = None) -> dict[str, Any]:
        """Poll until the environment is in one of `states`; `seen` is told each new state on the way."""
        deadline, last = time.monotonic() + timeout, ""
        while True:
            found = self.environment(identifier)
            if found["state"] != last:
                last = found["state"]
                if seen:
                    seen(last, found)
            if last in states:
                return found
            if last == "failed" or time.monotonic() > deadline:
                raise StepFailed(f"wanted {' or '.join(states)}, is {last}: {found.get('reason')} {found.get('message', '')}")
            time.sleep(0.05)

    def log_lines(self, identifier: str, **params: Any) -> Iterator[str]:
        """Lines of the log, streamed with `follow=true`."""
        with self.http.stream("GET", f"/environments/{identifier}/logs", params=params, timeout=httpx.Timeout(30, read=120)) as answer:
            if not answer.is_success:
                answer.read()
                raise StepFailed(f"logs answered {answer.status_code}: {answer.text[:300]}")
            yield from answer.iter_lines()


class Browser:
    """A signed-in person: cookies of the portal and of the Hub, as a browser would hold them."""

    def __init__(self, base: str, user: str, password: str) -> None:
        self.base, self.user = base.rstrip("/"), user
        self.http = httpx.Client(follow_redirects=True, timeout=60, trust_env=False)
        page = self.http.get(self.base + "/accounts/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        if not token:
            raise StepFailed(f"no sign-in form at {page.url} ({page.status_code})")
        form = {"csrfmiddlewaretoken": token[1], "login": user, "password": password}
        answer = self.http.post(page.url, data=form, headers={"Referer": str(page.url)})
        if "/accounts/login" in str(answer.url):
            raise StepFailed(f"sign-in of {user} was refused")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.http.close()

    def open_notebook(self, url: str) -> Notebook:
        """Follow the one click to JupyterLab at an environment's `url`: the Hub asks the portal who this is; there is no second form."""
        answer = self.http.get(f"{url}lab")
        if answer.status_code != 200 or not str(answer.url).startswith(url):
            raise StepFailed(f"JupyterLab did not open: {answer.url} answered {answer.status_code}")
        return Notebook(self, url)


class Notebook:
    """A running notebook server, reached through the Hub's proxy."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.http, self.url, self.path = browser.http, url, urlsplit(url).path

    def _headers(self) -> dict[str, str]:
        tokens = [cookie.value or "" for cookie in self.http.cookies.jar if cookie.name == "_xsrf" and self.path.startswith(cookie.path)]
        return {"X-XSRFToken": tokens[-1] if tokens else ""}

    def run(self, code: str, *, timeout: float = 120) -> str:
        """Run `code` in a new kernel; returns what it printed. An exception in the code raises StepFailed with its traceback."""
        answer = self.http.post(self.url + "api/kernels", json={"name": "python3"}, headers=self._headers())
        if answer.status_code != 201:
            raise StepFailed(f"no kernel: {answer.status_code} {answer.text[:300]}")
        kernel = answer.json()["id"]
        try:
            return self._execute(kernel, code, timeout)
        finally:
            self.http.delete(self.url + f"api/kernels/{kernel}", headers=self._headers())

    def _execute(self, kernel: str, code: str, timeout: float) -> str:
        parts = urlsplit(self.url)
        address = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{parts.path}api/kernels/{kernel}/channels"
        request = httpx.Request("GET", self.url + f"api/kernels/{kernel}/channels")
        self.http.cookies.set_cookie_header(request)
        identifier = uuid.uuid4().hex
        header = {"msg_id": identifier, "msg_type": "execute_request", "username": "", "session": uuid.uuid4().hex, "version": "5.3", "date": ""}
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}
        printed: list[str] = []
        deadline = time.monotonic() + timeout
        with connect(address, additional_headers={"Cookie": request.headers["cookie"]}, max_size=None, open_timeout=60, proxy=None) as socket:
            socket.send(json.dumps(message))
            while True:
                reply = json.loads(socket.recv(timeout=max(0.1, deadline - time.monotonic())))
                if reply.get("parent_header", {}).get("msg_id") != identifier:
                    continue
                kind, body = reply["msg_type"], reply["content"]
                if kind == "stream":
                    printed.append(body["text"])
                elif kind == "error":
                    raise StepFailed("the kernel raised " + re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(body["traceback"]))[-2000:])
                elif kind == "status" and body["execution_state"] == "idle":
                    return "".join(printed)
