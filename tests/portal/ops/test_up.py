"""`make up` and `make demo` as a user runs them: real processes, real ports, a real Ctrl-C."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.ops.client import Api
from portal.runtime import ROOT
from tests.stack import Stack, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "var")
    yield stack
    stack.stop()


def test_a_taken_port_is_named_with_the_remedy(stack: Stack) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(stack.settings["HUB_PORT"])))
        taken.listen()
        done = subprocess.run([sys.executable, "manage.py", "up"], cwd=ROOT, env=stack.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert f"Port {stack.settings['HUB_PORT']} on 127.0.0.1 (HUB_PORT) cannot be used" in done.stderr
    assert "make up HUB_PORT=" in done.stderr


def test_a_missing_kubeconfig_is_named(stack: Stack) -> None:
    env = {**stack.env, "KUBECONFIG": "/nonexistent/kubeconfig"}
    done = subprocess.run([sys.executable, "manage.py", "up"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "KUBECONFIG: there is no file /nonexistent/kubeconfig" in done.stderr


def test_ctrl_c_leaves_no_process_and_a_second_start_brings_environments_back(stack: Stack) -> None:
    stack.start()
    credentials = stack.var / "credentials.json"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    passwords = stack.credentials()
    with Api(stack.url, stack.token()) as api:
        body = {"name": "keeper", "template": "dask", "flavor": "cpu-small", "team": "vision", "params": {"workers": 1}}
        identifier = api.call("POST", "/environments", json=body)["id"]
        api.wait_state(identifier, "running")
    assert _pods(stack), "pods count among its processes"
    stack.interrupt()
    assert stack.process is not None
    assert stack.process.returncode == 0, stack.output.read_text()
    assert stack.processes() == []

    stack.start()
    assert stack.credentials() == passwords
    with Api(stack.url, stack.token()) as api:
        wait_until(lambda: _pods(stack) and _serving(api.environment(identifier)), "both replicas to be ready again, which the row may have said all the time")
    stack.interrupt()
    assert stack.processes() == []


def _pods(stack: Stack) -> bool:
    return any("dask" in " ".join(process.cmdline()) for process in stack.processes())


def _serving(environment: dict) -> bool:
    return environment["state"] == "running" and len(environment["replicas"]) == 2 and all(replica["ready"] for replica in environment["replicas"])


@pytest.mark.runs("template:notebook", "template:dask")
def test_the_demo_does_the_main_job_and_leaves_nothing(stack: Stack) -> None:
    done = subprocess.run([sys.executable, "manage.py", "demo"], cwd=ROOT, env=stack.env, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("provisioning", "first log line", "computed 332833500", "cluster of 1+2 up", "on 2 workers", "deleted", "nothing is left"):
        assert line in done.stdout
    assert stack.processes() == []
