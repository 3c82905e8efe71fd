"""What survives the end of the cluster process."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3
from kubernetes import client as k8s

from .conftest import PATIENCE, Server, pod, processes_with

pytestmark = pytest.mark.integration


@pytest.fixture
def own_server(tmp_path: Path) -> Any:
    found = Server(tmp_path / "cluster")
    found.start()
    yield found
    found.stop()


def wait_for(look: Any) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def first_line(server: Server, name: str) -> str:
    return str(server.core.read_namespaced_pod_log(name, "default")).partition("\n")[0]


def test_containers_run_on_when_the_cluster_is_killed_and_are_found_again(own_server: Server) -> None:
    mark = f"8{os.getpid()}"
    own_server.core.create_namespaced_pod("default", pod("steady", f"echo begun; sleep {mark} & while :; do echo tick; sleep 0.1; done"))
    own_server.core.create_namespaced_pod("default", pod("ends", "echo begun; while [ ! -e /tmp/stop ]; do sleep 0.05; done; exit 4"))
    before = own_server.wait_phase("steady", "Running")
    ends = own_server.wait_phase("ends", "Running")
    (process,) = wait_for(lambda: processes_with(f"sleep\0{mark}"))
    own_server.stop(signal.SIGKILL)
    assert processes_with(f"sleep\0{mark}") == [process]
    (own_server.state / "pods" / ends.metadata.uid / "tmp" / "stop").touch()
    wait_for(lambda: list((own_server.state / "pods" / ends.metadata.uid).glob("containers/main/0/exit.json")))
    own_server.start()
    after = own_server.core.read_namespaced_pod("steady", "default")
    assert after.metadata.uid == before.metadata.uid
    assert after.status.pod_ip == before.status.pod_ip
    assert own_server.wait_phase("ends", "Failed").status.container_statuses[0].state.terminated.exit_code == 4
    assert processes_with(f"sleep\0{mark}") == [process]
    assert own_server.core.read_namespaced_pod("steady", "default").status.container_statuses[0].restart_count == 0
    assert own_server.kubectl("exec", "steady", "--", "echo", "still here").stdout in ("still here\n", "")
    own_server.core.delete_namespaced_pod("steady", "default", grace_period_seconds=0)
    wait_for(lambda: not processes_with(f"sleep\0{mark}"))


def test_a_clean_stop_ends_every_process_and_the_next_start_brings_pods_back(own_server: Server) -> None:
    mark = f"9{os.getpid()}"
    script = f"trap '' TERM; setsid sleep {mark} & echo begun; while :; do sleep 0.1; done"
    own_server.core.create_namespaced_pod("default", pod("again", script, restartPolicy="Always"))
    own_server.core.create_namespaced_pod("default", pod("once", f"sleep {mark}"))
    uid = own_server.wait_phase("again", "Running").metadata.uid
    own_server.wait_phase("once", "Running")
    wait_for(lambda: len(processes_with(f"sleep\0{mark}")) == 2)
    own_server.stop()
    assert processes_with(f"sleep\0{mark}") == []
    assert processes_with(str(own_server.state)) == []
    own_server.start()
    wait_for(lambda: len(processes_with(f"sleep\0{mark}")) == 1)
    found = wait_for(lambda: _restarted(own_server, "again"))
    assert found.metadata.uid == uid
    assert found.status.container_statuses[0].last_state.terminated.exit_code == 255
    assert own_server.wait_phase("once", "Failed").status.container_statuses[0].state.terminated.reason == "Unknown"


def _restarted(server: Server, name: str) -> Any:
    found = server.core.read_namespaced_pod(name, "default")
    status = found.status.container_statuses[0]
    return found if status.restart_count == 1 and status.state.running else None


def test_what_belongs_to_pods_that_went_meanwhile_is_cleared_away(own_server: Server) -> None:
    mark = f"6{os.getpid()}"
    own_server.core.create_namespaced_pod("default", pod("lost", f"sleep {mark}"))
    uid = own_server.wait_phase("lost", "Running").metadata.uid
    wait_for(lambda: processes_with(f"sleep\0{mark}"))
    own_server.stop(signal.SIGKILL)
    with sqlite3.connect(own_server.state / "objects.sqlite3") as database:
        database.execute("DELETE FROM objects WHERE kind = 'pods'")
    own_server.start()
    wait_for(lambda: not processes_with(f"sleep\0{mark}"))
    wait_for(lambda: not (own_server.state / "pods" / uid).exists())


def test_kills_at_any_moment_lose_and_double_nothing(own_server: Server) -> None:
    """What was answered is there after each kill, and in the end there is one process for each pod."""
    mark = f"5{os.getpid()}"
    like = pod("any", f"exec sleep {mark}", restartPolicy="Always")
    template = {"metadata": {"labels": {"app": "set"}}, "spec": like["spec"]}
    spec = {"serviceName": "set", "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": "set"}}, "replicas": 0, "template": template}
    body = {"metadata": {"name": "set"}, "spec": spec}
    k8s.AppsV1Api(own_server.api).create_namespaced_stateful_set("default", body)
    answered: dict[str, str] = {}
    moments = random.Random(7)
    for number in range(5):
        replicas = moments.randint(1, 4)
        k8s.AppsV1Api(own_server.api).patch_namespaced_stateful_set_scale("set", "default", {"spec": {"replicas": replicas}})
        killer = threading.Timer(moments.uniform(0.0, 0.6), own_server.process.kill)
        killer.start()
        try:
            while own_server.process.poll() is None:
                name = f"c{number}-{len(answered)}"
                made = own_server.core.create_namespaced_config_map("default", {"metadata": {"name": name}})
                answered[name] = made.metadata.uid
        except (urllib3.exceptions.HTTPError, k8s.ApiException):
            pass  # it was killed while this waited for an answer
        killer.join()
        own_server.process.wait(PATIENCE)
        own_server.start()
        found = {item.metadata.name: item.metadata.uid for item in own_server.core.list_namespaced_config_map("default").items}
        assert answered.items() <= found.items()
    wait_for(lambda: _ready(own_server) == replicas)
    wait_for(lambda: len(processes_with(f"sleep\0{mark}")) == replicas)
    names = sorted(item.metadata.name for item in own_server.core.list_namespaced_pod("default", label_selector="app=set").items)
    assert names == [f"set-{number}" for number in range(replicas)]
    k8s.AppsV1Api(own_server.api).delete_namespaced_stateful_set("set", "default")
    wait_for(lambda: not processes_with(f"sleep\0{mark}"))


def _ready(server: Server) -> int:
    pods = server.core.list_namespaced_pod("default", label_selector="app=set").items
    running = [item for item in pods if any(each.type == "Ready" and each.status == "True" for each in item.status.conditions or [])]
    return len(running) if len(running) == len(pods) else -1
