"""Logs, exec and port-forward over HTTP, with the official client and kubectl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
import websocket
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward, stream

from tests.stack import free_ports

from .conftest import PATIENCE, Server, pod, pod_ip_env

pytestmark = pytest.mark.integration
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def logs(server: Server, name: str, **query: Any) -> str:
    return str(server.core.read_namespaced_pod_log(name, "default", _preload_content=False, **query).data.decode(errors="replace"))


@pytest.fixture(scope="module")
def talker(server: Server) -> Server:
    """A pod that has printed some lines and ended, one that goes on, and one that serves HTTP."""
    script = r"echo one; echo two >&2; printf 'bytes \377\000\r\n'; head -c 40000 /dev/zero | tr '\0' x; echo; printf last"
    server.core.create_namespaced_pod("default", pod("done", script))
    server.core.create_namespaced_pod("default", pod("live", "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.05; done"))
    serve = {"image": "python:3", "command": ["python3", "-m", "http.server", "8000", "--bind", "$(POD_IP)", "--directory", "/etc"], "env": pod_ip_env()}
    serve["readinessProbe"] = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
    server.core.create_namespaced_pod("default", pod("web", "", container=serve))
    server.wait_phase("done", "Succeeded")
    server.wait_phase("live", "Running")
    end = time.monotonic() + PATIENCE
    while not server.core.read_namespaced_pod("web", "default").status.container_statuses[0].ready:
        assert time.monotonic() < end
        time.sleep(0.05)
    return server


def test_a_log_is_whole_whatever_is_in_it(talker: Server) -> None:
    raw = talker.core.read_namespaced_pod_log("done", "default", _preload_content=False).data
    assert sorted(raw.split(b"\n")) == sorted([b"one", b"two", b"bytes \xff\x00\r", b"x" * 40000, b"last", b""])


def test_the_end_of_a_log_can_be_asked_for(talker: Server) -> None:
    assert logs(talker, "done", tail_lines=1) == "last\n"
    assert logs(talker, "done", tail_lines=2) == "x" * 40000 + "\nlast\n"
    assert logs(talker, "done", tail_lines=0) == ""
    assert logs(talker, "done", limit_bytes=2) in ("on", "tw")
    assert logs(talker, "done", since_seconds=100_000).count("\n") == 5


def test_time_stamps_come_first_and_can_be_asked_from(talker: Server) -> None:
    first, second = logs(talker, "live", timestamps=True, limit_bytes=4000).splitlines()[:2]
    stamp, _, text = second.partition(" ")
    assert text == "line 1"
    assert first.endswith(" line 0")
    later = logs(talker, "live", timestamps=True).splitlines()[-1].partition(" ")[0]
    base = f"{talker.api.configuration.host}/api/v1/namespaces/default/pods/live/log?timestamps=1&sinceTime={later}"
    context = ssl.create_default_context(cafile=talker.api.configuration.ssl_ca_cert)
    request = urllib.request.Request(base, headers={"Authorization": f"Bearer {(talker.state / 'token').read_text()}"})
    with urllib.request.urlopen(request, context=context) as answer:
        since = answer.read().decode().splitlines()
    assert since[0].startswith(later[:26])
    assert stamp < later


def test_following_a_log_ends_with_the_container(talker: Server) -> None:
    talker.core.create_namespaced_pod("default", pod("short", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"))
    talker.wait_phase("short", "Running", "Succeeded")
    found = talker.core.read_namespaced_pod_log("short", "default", follow=True, _preload_content=False)
    assert b"".join(found.stream()) == b"1\n2\n3\n4\n5\n"


@pytest.mark.parametrize(
    ("name", "query", "code", "message"),
    [
        ("nobody", {}, 404, 'pods "nobody" not found'),
        ("done", {"container": "other"}, 400, "container other is not valid for pod done"),
        ("done", {"previous": True}, 400, 'previous terminated container "main" in pod "done" not found'),
        ("pair", {}, 400, "a container name must be specified for pod pair, choose one of: [main second]"),
        ("pair", {"container": "second"}, 400, 'container "second" in pod "pair" is waiting to start: trying and failing to pull image'),
    ],
)
def test_logs_that_cannot_be_had_are_refused_in_kubernetes_words(talker: Server, name: str, query: dict[str, Any], code: int, message: str) -> None:
    if name == "pair" and "container" not in query:
        pair = pod("pair", "sleep 1000")
        pair["spec"]["containers"].append({"name": "second", "image": "nobody/nothing:1"})
        talker.core.create_namespaced_pod("default", pair)
        talker.kubectl("wait", "pod/pair", "--for=jsonpath={.status.containerStatuses[1].state.waiting.reason}=ImagePullBackOff", "--timeout=60s")
    with pytest.raises(ApiException) as caught:
        logs(talker, name, **query)
    assert caught.value.status == code
    assert message in caught.value.body.decode() if isinstance(caught.value.body, bytes) else message in str(caught.value.body).replace('\\"', '"')


def test_a_stranger_gets_no_logs_and_no_exec(talker: Server) -> None:
    configuration = talker.api.configuration
    base = f"{configuration.host}/api/v1/namespaces/default/pods/live"
    for path in ("log", "exec?command=id&stdout=1"):
        request = urllib.request.Request(f"{base}/{path}", headers={"Authorization": "Bearer wrong"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, context=ssl.create_default_context(cafile=configuration.ssl_ca_cert))
        assert caught.value.code == 401
    address = base.replace("https:", "wss:") + "/exec?command=id&stdout=1"
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(address, header=["Authorization: Bearer wrong"], sslopt={"ca_certs": configuration.ssl_ca_cert})
    assert refused.value.status_code == 401


def run(server: Server, *command: str, name: str = "live", **more: Any) -> Any:
    options = {"stderr": True, "stdin": False, "stdout": True, "tty": False, "_preload_content": False, **more}
    return stream(server.core.connect_get_namespaced_pod_exec, name, "default", command=list(command), **options)


def test_exec_tells_output_errors_and_exit_code_apart(talker: Server) -> None:
    found = run(talker, "sh", "-c", "echo out; echo err >&2; hostname; exit 7")
    found.run_forever(timeout=PATIENCE)
    assert (found.read_stdout(), found.read_stderr(), found.returncode) == ("out\nlive\n", "err\n", 7)


def test_exec_reads_input(talker: Server) -> None:
    found = run(talker, "sh", "-c", "read line; echo got $line", stdin=True)
    found.write_stdin("this\n")
    found.run_forever(timeout=PATIENCE)
    assert found.read_stdout() == "got this\n"
    assert found.returncode == 0


def test_exec_in_a_pod_that_has_ended_is_refused(talker: Server) -> None:
    with pytest.raises(ApiException) as caught:
        run(talker, "id", name="done")
    assert "completed pod" in str(caught.value) or "400" in str(caught.value)


def test_the_official_client_forwards_ports(talker: Server) -> None:
    found = portforward(talker.core.connect_get_namespaced_pod_portforward, "web", "default", ports="8000")
    connection = found.socket(8000)
    connection.setblocking(True)
    connection.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
    answer = b""
    while data := connection.recv(4096):
        answer += data
    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert answer.endswith(b"web\n")


@needs_kubectl
def test_kubectl_forwards_ports_through_its_tunnel(talker: Server) -> None:
    (port,) = free_ports(1)
    command = ["kubectl", "--kubeconfig", str(talker.kubeconfig), "port-forward", "--address", "127.0.0.1", "pod/web", f"{port}:8000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        assert "Forwarding from" in process.stdout.readline()
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/services", timeout=PATIENCE) as answer:
                assert b"https" in answer.read()
    finally:
        process.terminate()
        process.wait(PATIENCE)


@needs_kubectl
def test_kubectl_executes_and_reads_logs(talker: Server) -> None:
    found = talker.kubectl("exec", "live", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (found.stdout, found.returncode) == ("out\n", 3)
    assert found.stderr.startswith("err\n")
    assert talker.kubectl("exec", "-i", "live", "--", "cat", input="typed\n" * 20000).stdout == "typed\n" * 20000
    assert talker.kubectl("logs", "done", "--tail=1").stdout == "last\n"
    missing = talker.kubectl("exec", "live", "--", "no-such-command")
    assert missing.returncode != 0
    assert "executable file not found" in missing.stderr


@needs_kubectl
def test_a_terminal_is_one_with_the_size_of_the_client(talker: Server) -> None:
    found = subprocess.run(
        ["script", "-qec", f"stty rows 33 cols 99; kubectl --kubeconfig {talker.kubeconfig} exec -it live -- sh -c 'tty; sleep 0.3; stty size'", "/dev/null"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert "/dev/pts/" in found.stdout
    assert "33 99" in found.stdout
