"""The Hub knows when a server was last used, and sees a kernel that computes in silence."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import uuid
from datetime import datetime
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from tests.hub.conftest import Site
from tests.hub.test_servers import lab, ordered, remove, start_and_wait
from tests.stack import wait_until

pytestmark = pytest.mark.integration


class Notebook:
    """A server of alice, used through a browser of hers."""

    def __init__(self, site: Site, server: str) -> None:
        self.site, self.server = site, server
        self.path = f"/user/alice/{server}/"
        self.browser = site.browser("alice")
        lab(self.browser, server)

    def _post(self, path: str, **body: Any) -> httpx.Response:
        xsrf = {"X-XSRFToken": self.browser.cookies.get("_xsrf", path=self.path) or ""}
        return self.browser.post(f"{self.site.hub}{self.path}{path}", headers=xsrf, timeout=90, **body)

    def run(self, code: str) -> str:
        """Starts a kernel that runs a cell, and does not wait for its end; the kernel's id."""
        made = self._post("api/kernels", json={"name": "python3"})
        assert made.status_code == 201, made.text
        kernel = str(made.json()["id"])
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        header = {"msg_id": uuid.uuid4().hex, "username": "", "session": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}
        cookies = {each.name: each.value for each in self.browser.cookies.jar if self.path.startswith(each.path)}
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        address = f"{self.site.hub.replace('http', 'ws')}{self.path}api/kernels/{kernel}/channels?_xsrf={cookies.get('_xsrf', '')}"
        with connect(address, additional_headers=headers, proxy=None, open_timeout=60) as socket:
            socket.send(json.dumps(message))
            self._until_busy(socket)
        return kernel

    @staticmethod
    def _until_busy(socket: Any) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            message = socket.recv(timeout=90)
            if isinstance(message, str) and json.loads(message)["header"]["msg_type"] == "execute_input":
                return
        raise AssertionError("the cell did not begin")

    def interrupt(self, kernel: str) -> None:
        self._post(f"api/kernels/{kernel}/interrupt").raise_for_status()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def activity(site: Site, server: str) -> dict[str, Any]:
    """What the Hub tells the portal's service about a server of alice."""
    answer = site.service("GET", "/atelier/activity")
    assert answer.status_code == 200, answer.text
    (found,) = [each for each in answer.json()["servers"] if (each["user"], each["server"]) == ("alice", server)]
    return dict(found)


def test_a_running_cell_is_seen_though_it_says_nothing_and_being_asked_is_no_use(live: Site) -> None:
    server, options = ordered("active")
    start_and_wait(live, server, options)
    wait_until(lambda: activity(live, server)["kernels_busy"] == 0, "the server to say that no kernel is busy")
    first = activity(live, server)["last"]
    assert moment(first).tzinfo is not None
    assert activity(live, server)["last"] == first
    kernel = Notebook(live, server).run("import time\nwhile True:\n    time.sleep(0.1)")
    wait_until(lambda: activity(live, server)["kernels_busy"] == 1, "the kernel to be seen busy")
    during = activity(live, server)["last"]
    assert moment(during) > moment(first)
    # Signing out takes the browser's rights, and the Hub's own way of asking goes on.
    assert live.service("DELETE", "/atelier/users/alice/sessions").status_code == 204
    wait_until(lambda: activity(live, server)["kernels_busy"] == 1, "the kernel to be seen busy again")
    # The cell prints nothing: by what the server itself calls activity it was not used any more.
    assert activity(live, server)["last"] == during
    Notebook(live, server).interrupt(kernel)
    wait_until(lambda: activity(live, server)["kernels_busy"] == 0, "the kernel to be idle")
    remove(live, server)
    assert server not in {each["server"] for each in live.service("GET", "/atelier/activity").json()["servers"]}


def test_a_server_that_does_not_answer_is_not_called_idle(live: Site) -> None:
    server, options = ordered("frozen")
    start_and_wait(live, server, options)
    wait_until(lambda: activity(live, server)["kernels_busy"] == 0, "the server to answer")
    (pid,) = notebooks_of(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        found = activity(live, server)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert found["kernels_busy"] is None
    assert found["last"]
    remove(live, server)


def test_nobody_but_the_service_may_ask(site: Site) -> None:
    token = site.user_token("alice") if site.service("PUT", "/atelier/users/alice").status_code in (200, 201) else ""
    for headers in ({"Authorization": f"token {token}"}, {}):
        assert httpx.get(f"{site.hub_api}/atelier/activity", headers=headers, timeout=30, trust_env=False).status_code == 403


def notebooks_of(server: str) -> list[int]:
    """Processes of jupyterhub-singleuser that serve `server`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "jupyterhub-singleuser" in " ".join(process.cmdline()) and process.environ().get("JUPYTERHUB_SERVER_NAME") == server:
                found.append(process.pid)
    return found
