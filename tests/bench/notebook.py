"""Click to usable notebook, beside a plain JupyterHub with SimpleLocalProcessSpawner and the same proxy."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import httpx

from portal.ops.client import Api, Browser
from tests.stack import free_ports, running, wait_until

from .common import Row

PLAIN = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.ConfigurableHTTPProxy.command = ["{bin}/configurable-http-proxy"]
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.allow_named_servers = True
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.Spawner.cmd = ["{bin}/jupyterhub-singleuser", "--allow-root"]
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}
c.JupyterHub.services = [{{"name": "bench", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers", "access:servers"]}}]
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie"
c.ConfigurableHTTPProxy.pid_file = "{folder}/proxy.pid"
"""


class PlainHub:
    """The peer, as its own documentation sets it up for one machine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port, hub, api = free_ports(3)
        self.token = secrets.token_hex(16)
        self.url = f"http://127.0.0.1:{port}"
        bin_folder = Path(sys.prefix) / "bin"
        (folder / "config.py").write_text(PLAIN.format(port=port, hub=hub, api=api, bin=bin_folder, token=self.token, folder=folder))
        self.process = subprocess.Popen(
            [str(bin_folder / "jupyterhub"), "-f", "config.py"],
            cwd=folder,
            stdout=(folder / "log").open("wb"),
            stderr=subprocess.STDOUT,
            env={**os.environ, "CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(16)},
        )
        self.http = httpx.Client(headers={"Authorization": f"token {self.token}"}, trust_env=False, timeout=30)
        wait_until(lambda: self._get("/hub/api/") == 200, "the plain hub")
        self.browser = httpx.Client(trust_env=False, timeout=30, follow_redirects=True)
        self.browser.get(self.url + "/hub/login").raise_for_status()
        form = {"username": "bench", "password": "x", "_xsrf": self.browser.cookies["_xsrf"]}
        self.browser.post(self.url + "/hub/login", data=form)

    def _get(self, path: str) -> int:
        try:
            return self.http.get(self.url + path).status_code
        except httpx.HTTPError:
            return 0

    def click_to_usable(self, name: str) -> float:
        began = time.perf_counter()
        self.http.post(f"{self.url}/hub/api/users/bench/servers/{name}", json={}).raise_for_status()
        server = f"{self.url}/hub/api/users/bench/servers/{name}"
        wait_until(lambda: self.http.get(server).json().get("ready"), "the plain notebook to be ready")
        wait_until(lambda: _lab_opens(self.browser, f"{self.url}/user/bench/{name}/"), "the plain notebook")
        took = time.perf_counter() - began
        self.http.request("DELETE", f"{self.url}/hub/api/users/bench/servers/{name}", json={"remove": True})
        wait_until(lambda: name not in self.http.get(self.url + "/hub/api/users/bench").json()["servers"], "the plain notebook to stop")
        return took

    def stop(self) -> None:
        self.http.close()
        self.browser.close()
        self.process.terminate()
        self.process.wait(timeout=30)


def _lab_opens(browser: httpx.Client, url: str) -> bool:
    """JupyterLab's page, through the server's own sign-in at its Hub."""
    answer = browser.get(url + "lab")
    return answer.status_code == 200 and str(answer.url).startswith(url)


def ours(api: Api, browser: Browser, name: str) -> float:
    """From the request being sent to JupyterLab answering the signed-in owner through the proxy."""
    began = time.perf_counter()
    made = api.call("POST", "/environments", json={"name": name, "template": "notebook", "flavor": "cpu-small", "team": "vision"})
    found = api.wait_state(made["id"], "running")
    wait_until(lambda: _lab_opens(browser.http, found["url"]), "the notebook")
    took = time.perf_counter() - began
    api.call("DELETE", f"/environments/{made['id']}", params={"purge": "true"})
    api.wait_state(made["id"], "deleted")
    return took


def measure(folder: Path, runs: int) -> list[Row]:
    our_times, peer_times = [], []
    with running(folder / "var") as stack:
        plain = PlainHub(folder / "plain")
        try:
            with Api(stack.url, stack.token()) as api, Browser(stack.url, "alice", stack.credentials()["alice"]) as browser:
                for number in range(runs + 1):  # in turn, so that a drifting machine burdens both; the first pair only warms up
                    our_times.append(ours(api, browser, f"bench-{number}"))
                    peer_times.append(plain.click_to_usable(f"bench-{number}"))
        finally:
            plain.stop()
    return [Row("notebook: click to usable / plain JupyterHub", our_times[1:], peer_times[1:], "<= 1.05")]
