"""Contracts: the same assertions against the embedded cluster and, with `--kubeconfig PATH`, against a real Kubernetes.

Against a real one they need the rights of a cluster administrator; everything is made in namespaces of their own, which are deleted afterwards.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

ROOT = Path(__file__).resolve().parents[2]
HOLD = {"atelier.dev/contract-test": "nowhere"}  # a node selector that no node satisfies: pods stay as they were made


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kubeconfig", default="", help="run the contracts against this cluster instead of a fresh embedded one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.contract)


class Embedded:
    """A cluster process of the tests' own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.kubeconfig = state / "kubeconfig"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, port: int = 0) -> None:
        self.kubeconfig.unlink(missing_ok=True)
        command = [sys.executable, "-m", "k8s.local", "--port", str(port), "--state", str(self.state), "--kubeconfig", str(self.kubeconfig)]
        with (self.state.parent / "cluster.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        wait_for(lambda: self.process is not None and (self.process.poll() is not None or self.kubeconfig.exists()), "the cluster to start", 60)
        assert self.process.poll() is None, (self.state.parent / "cluster.log").read_text()[-4000:]

    def stop(self, *, kill: bool = False) -> None:
        assert self.process is not None
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        self.process.wait(30)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The first true value of `condition`; AssertionError naming `what` when it does not come."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    given = request.config.getoption("--kubeconfig", default="")
    if given:
        yield Path(given).resolve()
        return
    cluster = Embedded(tmp_path_factory.mktemp("cluster") / "state")
    cluster.start()
    yield cluster.kubeconfig
    cluster.stop()


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Iterator[client.ApiClient]:
    configuration = client.Configuration()
    config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    with client.ApiClient(configuration) as found:
        yield found


@pytest.fixture(scope="session")
def core(api: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api)


class Answer:
    def __init__(self, code: int, body: bytes, headers: Any) -> None:
        self.code = code
        self.text = body.decode()
        self.headers = headers

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def message(self) -> str:
        return str(self.json.get("message", ""))

    @property
    def warnings(self) -> str:
        return str(self.headers.get("Warning", ""))


class Http:
    """Plain requests with the credentials of the kubeconfig: for codes, headers and bodies that clients hide."""

    def __init__(self, api: client.ApiClient) -> None:
        self.api = api
        self.base = api.configuration.host

    def __call__(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", accept: str = "application/json", authorized: bool = True
    ) -> Answer:
        headers = {"Accept": accept, "User-Agent": "contract/1"}
        if body is not None:
            headers["Content-Type"] = kind
        if authorized:
            for each in self.api.configuration.auth_settings().values():
                headers[each["key"]] = each["value"]
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        found = self.api.rest_client.pool_manager.request(method, self.base + path, body=data, headers=headers, timeout=30)
        return Answer(found.status, found.data, found.headers)


@pytest.fixture(scope="session")
def http(api: client.ApiClient) -> Http:
    return Http(api)


@pytest.fixture
def make_namespace(http: Http) -> Iterator[Callable[..., str]]:
    """Makes a namespace with labels, ready for pods; all are deleted at the end."""
    made: list[str] = []

    def make(**labels: str) -> str:
        name = f"contract-{secrets.token_hex(4)}"
        named = {key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()}
        answer = http("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": named}})
        assert answer.code == 201, answer.text
        made.append(name)
        wait_for(lambda: http("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default").code == 200, "the default service account")
        return name

    yield make
    for name in made:
        http("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def namespace(make_namespace: Callable[..., str]) -> str:
    return make_namespace()


@pytest.fixture
def kubectl(kubeconfig: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not on PATH")

    def run(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        return subprocess.run([str(program), *arguments], input=given, capture_output=True, text=True, env=environment, timeout=60, check=False)

    return run


def pod(name: str, **spec: Any) -> dict[str, Any]:
    """A pod that passes restricted Pod Security and is never scheduled."""
    container = {
        "name": "main", "image": "registry.k8s.io/pause:3.10",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    context = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"nodeSelector": HOLD, "securityContext": context, "automountServiceAccountToken": False, "containers": [container], **spec},
    }


def configmap(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **({"labels": labels} if labels else {})}, "data": data}


def statefulset(name: str, replicas: int = 0) -> dict[str, Any]:
    inner = pod(name)["spec"]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "serviceName": name, "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": inner},
        },
    }  # fmt: skip
