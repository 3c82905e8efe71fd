"""The cluster as a process: what survives its end, what it leaves behind, what it refuses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from tests.contracts.conftest import ROOT, Embedded, Http, configmap, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Embedded]:
    found = Embedded(tmp_path / "state")
    found.start()
    yield found
    assert found.process is not None
    if found.process.poll() is None:
        found.stop()


def connect(cluster: Embedded) -> Http:
    configuration = client.Configuration()
    config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    return Http(client.ApiClient(configuration))


MINE = "/api/v1/namespaces/default/configmaps"


def test_what_was_answered_survives_a_killed_process(cluster: Embedded) -> None:
    http = connect(cluster)
    made = [http("POST", MINE, configmap(f"kept-{number}", x="1")).json["metadata"] for number in range(20)]
    http("DELETE", f"{MINE}/kept-0")
    cluster.stop(kill=True)
    cluster.start()
    http = connect(cluster)
    assert http("GET", f"{MINE}/kept-0").code == 404
    for each in made[1:]:
        found = http("GET", f"{MINE}/{each['name']}").json["metadata"]
        assert (found["uid"], found["resourceVersion"]) == (each["uid"], each["resourceVersion"])


def test_revisions_go_on_after_a_restart_and_old_watches_must_list_again(cluster: Embedded) -> None:
    http = connect(cluster)
    before = http("POST", MINE, configmap("first")).json["metadata"]["resourceVersion"]
    cluster.stop()
    cluster.start()
    http = connect(cluster)
    after = http("POST", MINE, configmap("second")).json["metadata"]["resourceVersion"]
    assert int(after) > int(before)
    answer = http("GET", f"{MINE}?watch=true&resourceVersion={before}&timeoutSeconds=1")
    assert '"code":410' in answer.text


def test_the_token_stays_the_same_and_is_for_the_owner_only(cluster: Embedded) -> None:
    token = (cluster.state / "token").read_text()
    for path in (cluster.kubeconfig, cluster.state / "token", cluster.state / "pki" / "server.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert cluster.process is not None
    assert token not in Path(f"/proc/{cluster.process.pid}/cmdline").read_text()
    cluster.stop()
    cluster.start()
    assert (cluster.state / "token").read_text() == token


def test_it_answers_readiness_to_anybody_and_nothing_else(cluster: Embedded) -> None:
    http = connect(cluster)
    assert http("GET", "/readyz", authorized=False).text == "ok"
    for path in ("/api", "/api/v1/pods", "/apis", "/openapi/v2", "/api/v1/namespaces/default/pods/x/log"):
        assert http("GET", path, authorized=False).code == 401


def test_it_leaves_at_once_while_watches_are_open(cluster: Embedded) -> None:
    http = connect(cluster)
    headers = {each["key"]: each["value"] for each in http.api.configuration.auth_settings().values()}
    watch = http.api.rest_client.pool_manager.request("GET", f"{http.base}{MINE}?watch=true", headers=headers, preload_content=False)
    assert cluster.process is not None
    cluster.process.terminate()
    assert cluster.process.wait(20) == 0
    watch.close()


def _second(state: Path, port: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "k8s.local", "--port", str(port), "--state", str(state)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ))


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = _second(tmp_path / "state", port)
    assert done.returncode != 0
    assert f"port {port} is taken" in done.stderr


def test_two_processes_never_share_a_state(cluster: Embedded) -> None:
    done = _second(cluster.state, 0)
    assert done.returncode != 0
    assert "another embedded cluster already uses" in done.stderr


def test_a_stale_definition_of_types_is_noticed() -> None:
    pytest.importorskip("kubernetes_validate")
    done = subprocess.run([sys.executable, "-m", "k8s.local.schema_build", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_namespaces_objects_are_gone_with_it_on_the_disk_too(cluster: Embedded) -> None:
    http = connect(cluster)
    http("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "brief"}})
    http("POST", "/api/v1/namespaces/brief/configmaps", configmap("c"))
    http("DELETE", "/api/v1/namespaces/brief")
    wait_for(lambda: http("GET", "/api/v1/namespaces/brief").code == 404, "the namespace to go")
    cluster.stop(kill=True)
    cluster.start()
    assert connect(cluster)("GET", "/api/v1/namespaces/brief/configmaps/c").code == 404
