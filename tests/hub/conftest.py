"""A real portal (uvicorn) and a real Hub with its proxy, on free ports, for the tests of this folder."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from jupyterhub import orm
from sqlalchemy.orm import Session

from portal.runtime import ROOT, secret
from tests.migrated import put_database
from tests.shell import Shell
from tests.stack import free_ports, wait_until

PASSWORD = "a long enough pass phrase"


class Site:
    """One portal and one Hub over one VAR_DIR. Processes can be stopped and started one by one."""

    def __init__(self, var: Path, kubeconfig: Path | None = None) -> None:
        self.var = var
        port, hub, hub_api, proxy_api, cluster = free_ports(5)
        self.portal, self.hub, self.hub_api = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{hub}", f"http://127.0.0.1:{hub_api}/hub/api"
        self.service_token = secret(var, "hub_service_token")
        self.env = {
            **{name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "KUBECONFIG")},
            "VAR_DIR": str(var),
            "PORT": str(port),
            "HUB_PORT": str(hub),
            "HUB_API_PORT": str(hub_api),
            "PROXY_API_PORT": str(proxy_api),
            "CLUSTER_PORT": str(cluster),
            "HUB_CONNECT_HOST": "127.0.0.1",
            "BIND": "127.0.0.1",
            "PUBLIC_URL": self.portal,
            "HUB_PUBLIC_URL": self.hub,
            "KUBECONFIG": str(kubeconfig or var / "cluster" / "kubeconfig"),
            "OIDC_CLIENT_ID": "jupyterhub",
            "INSTALL_ID": "test",
            "SERVICE_DOMAIN": "svc.cluster.local",
            "HUB_REFRESH_SECONDS": "2",
            "ATELIER_OIDC_CLIENT_SECRET": secret(var, "oidc_client_secret"),
            "ATELIER_HUB_SERVICE_TOKEN": self.service_token,
            "ATELIER_HUB_CRYPT_KEY": secret(var, "hub_crypt_key", "hex32"),
            "ATELIER_PROXY_AUTH_TOKEN": secret(var, "proxy_auth_token"),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.shell = Shell()

    def run(self, code: str) -> str:
        """What a piece of Python printed, run with the portal's settings."""
        return self.shell.run(code, self.env).strip()

    def start(self, name: str) -> None:
        commands = {
            "portal": ["-m", "uvicorn", "portal.asgi:application", "--host", "127.0.0.1", "--port", self.env["PORT"], "--log-level", "warning"],
            "hub": ["-m", "jupyterhub", "-f", "k8s/hub/jupyterhub_config.py"],
            "cluster": ["-m", "k8s.local", "--port", self.env["CLUSTER_PORT"], "--state", str(self.var / "cluster"), "--kubeconfig", self.env["KUBECONFIG"]],
        }
        with self.log(name).open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *commands[name]], cwd=ROOT, env=self.env, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        urls = {"portal": self.portal + "/accounts/login/", "hub": self.hub + "/hub/health"}

        def answers() -> bool:
            assert self.processes[name].poll() is None, self.log(name).read_text()
            try:
                if name == "cluster":
                    return Path(self.env["KUBECONFIG"]).exists() and self.kube("GET", "/readyz").status_code == 200
                return httpx.get(urls[name], timeout=5, trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(answers, f"{name} to answer")

    def stop(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        self.shell.end()
        for name in list(self.processes):
            self.stop(name)

    def log(self, name: str) -> Path:
        return self.var / f"{name}.log"

    def service(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """A request to the Hub's API with the portal's service token."""
        return httpx.request(method, self.hub_api + path, headers={"Authorization": f"token {self.service_token}"}, timeout=30, trust_env=False, **kwargs)

    def kube(self, method: str, path: str, body: object = None, **kwargs: Any) -> httpx.Response:
        """A request to the cluster's API as its administrator."""
        config = yaml.safe_load(Path(self.env["KUBECONFIG"]).read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        trust = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        headers = {"Authorization": f"Bearer {user['token']}"}
        with httpx.Client(base_url=cluster["server"], headers=headers, timeout=30, trust_env=False, verify=trust) as client:
            return client.request(method, path, **({} if body is None else {"json": body}), **kwargs)

    def user_token(self, name: str) -> str:
        """A Hub token of the user's own, with every right that the user has."""
        with self.hub_database() as db:
            return orm.User.find(db, name).new_api_token(note="test")

    def hub_database(self) -> Session:
        return orm.new_session_factory(f"sqlite:///{self.var / 'hub' / 'jupyterhub.sqlite'}")()

    def browser(self, user: str = "", password: str = PASSWORD) -> Browser:
        return Browser(self, user, password)


class Browser(httpx.Client):
    """Keeps cookies and follows redirects, as a browser does; signed in at the portal when given a user."""

    def __init__(self, site: Site, user: str = "", password: str = PASSWORD) -> None:
        super().__init__(follow_redirects=True, timeout=30, trust_env=False)
        self.site = site
        if user:
            response = self.sign_in(user, password)
            assert response.status_code < 500, response.text
            assert self.cookies.get("atelier_session"), response.text

    def sign_in(self, user: str, password: str = PASSWORD, url: str = "", **fields: str) -> httpx.Response:
        url = url or self.site.portal + "/accounts/login/"
        self.get(url)
        return self.post(url, data={"login": user, "password": password, "csrfmiddlewaretoken": self.csrf(), **fields}, follow_redirects=False)

    def sign_out(self) -> httpx.Response:
        url = self.site.portal + "/accounts/logout/"
        return self.post(url, data={"csrfmiddlewaretoken": self.csrf()})

    def csrf(self) -> str:
        return self.cookies["atelier_csrf"]

    def enter_hub(self) -> httpx.Response:
        """Go where the portal's link to a notebook leads at first: the Hub, which sends one to sign in. The last response."""
        return self.get(self.site.hub + "/hub/login", params={"next": "/hub/health"})

    def hub_user(self) -> str:
        """Name of the user whom the Hub sees; empty for nobody. Signs nobody in."""
        response = self.get(self.site.hub + "/hub/api/user", headers={"X-XSRFToken": self.cookies.get("_xsrf", "")}, follow_redirects=False)
        return response.json()["name"] if response.status_code == 200 else ""


def people(site: Site) -> None:
    """alice in team vision, bob in speech, charlie in none; the inactive dora, the admin ada, and an Alice who is not alice."""
    put_database(site.var / "atelier.sqlite3")
    site.run(
        "from portal.domain.models import Membership, Team, User\n"
        f"make = lambda name, **more: User.objects.create_user(name, password={PASSWORD!r}, **more)\n"
        "alice, bob, charlie = make('alice'), make('bob'), make('charlie')\n"
        "make('dora', is_active=False); make('Alice'); make('ada', is_staff=True)\n"
        "vision = Team.objects.create(slug='vision', name='Vision')\n"
        "Membership.objects.create(team=vision, user=alice)\n"
        "Membership.objects.create(team=Team.objects.create(slug='speech', name='Speech'), user=bob)\n"
    )
    site.run("from portal.identity.clients import hub_client_ensure; hub_client_ensure()")


@pytest.fixture(scope="package")
def site() -> Iterator[Site]:
    """Portal and Hub. There is no cluster and no queue."""
    with tempfile.TemporaryDirectory(prefix="atelier-hub-") as folder:
        site = Site(Path(folder))
        people(site)
        kubeconfig = Path(site.env["KUBECONFIG"])
        kubeconfig.parent.mkdir(parents=True)
        kubeconfig.write_text(_NO_CLUSTER.format(port=free_ports(1)[0]))
        try:
            site.start("portal")
            site.start("hub")
            yield site
        finally:
            site.stop_all()


@pytest.fixture(scope="package")
def live() -> Iterator[Site]:
    """Portal, Hub and an embedded cluster with the namespace of team vision. Each test takes away the servers that it started."""
    with tempfile.TemporaryDirectory(prefix="atelier-hub-") as folder:
        site = Site(Path(folder))
        people(site)
        try:
            site.start("cluster")
            site.start("portal")
            site.start("hub")
            site.kube("POST", "/api/v1/namespaces", {"metadata": {"name": "atelier-vision"}})
            for name in ("alice", "bob"):
                site.service("PUT", f"/atelier/users/{name}").raise_for_status()
            yield site
        finally:
            site.stop_all()


_NO_CLUSTER = """
apiVersion: v1
kind: Config
clusters: [{{name: none, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: none, user: {{token: none}}}}]
contexts: [{{name: none, context: {{cluster: none, user: none}}}}]
current-context: none
"""
