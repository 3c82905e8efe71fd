"""What pods use, as `metrics.k8s.io` and kubectl show it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k8s.local.kubelet.devices import Devices, Gpu, GpuMeter
from k8s.local.kubelet.usage import Target, read_all
from k8s.local.quantity import parse

from .conftest import PATIENCE, Server, World, pod

pytestmark = pytest.mark.integration
PODS = "/apis/metrics.k8s.io/v1beta1/pods"
BUSY = "while :; do :; done"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("measured"), ATELIER_CLUSTER_METRICS_WINDOW="1")
    found.start()
    sized = {"resources": {"limits": {"cpu": "500m", "memory": "256Mi"}}}
    # A grandchild does the work, and its parent has ended.
    found.core.create_namespaced_pod("default", pod("busy", f"(({BUSY}) &); exec sleep 1000", container=sized, labels={"kind": "busy"}))
    found.core.create_namespaced_pod("default", pod("idle", "exec sleep 1000", container=sized, nodeSelector={"kubernetes.io/hostname": "sim-gpu-1"}))
    script = "data = bytearray(b'x') * 67108864\nimport time\nprint('here', flush=True)\ntime.sleep(1000)"
    found.core.create_namespaced_pod("default", pod("large", "", container={"image": "python:3", "command": ["python3", "-c", script]}))
    for name in ("busy", "idle", "large"):
        found.wait_phase(name, "Running")
    yield found
    found.stop()


def wait_for(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def raw(server: Server, path: str) -> Any:
    done = server.kubectl("get", "--raw", path)
    return json.loads(done.stdout) if done.returncode == 0 else None


def use(server: Server, name: str) -> tuple[float, int]:
    """Cores and bytes, once there are some."""
    found = wait_for(lambda: raw(server, f"/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/{name}"))
    (container,) = found["containers"]
    assert container["name"] == "main"
    assert container["usage"]["cpu"].endswith("n")
    assert container["usage"]["memory"].endswith("Ki")
    assert found["window"].endswith("s")
    return float(parse(container["usage"]["cpu"])), int(parse(container["usage"]["memory"]))


def test_a_busy_pod_uses_the_processor_and_a_sleeping_one_does_not(measured: Server) -> None:
    wait_for(lambda: use(measured, "busy")[0] > 0.1)
    wait_for(lambda: use(measured, "idle")[0] < 0.02)


def test_memory_that_a_pod_has_for_itself_is_counted(measured: Server) -> None:
    wait_for(lambda: use(measured, "large")[1] > 60 * 2**20)
    assert use(measured, "idle")[1] < 30 * 2**20


def test_lists_are_selected_by_label_and_namespace(measured: Server) -> None:
    use(measured, "busy")
    use(measured, "idle")
    assert {item["metadata"]["name"] for item in raw(measured, PODS)["items"]} >= {"busy", "idle"}
    selected = raw(measured, f"{PODS}?labelSelector=kind%3Dbusy")["items"]
    assert [item["metadata"]["name"] for item in selected] == ["busy"]
    assert selected[0]["metadata"]["labels"] == {"kind": "busy"}
    assert raw(measured, "/apis/metrics.k8s.io/v1beta1/namespaces/kube-system/pods")["items"] == []
    assert "not found" in measured.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/none").stderr


def test_kubectl_top_shows_pods_and_nodes(measured: Server) -> None:
    wait_for(lambda: use(measured, "busy")[0] > 0.1)
    done = measured.kubectl("top", "pod", "busy", "--no-headers")
    name, cpu, memory = done.stdout.split()
    assert (name, cpu[-1], memory[-2:]) == ("busy", "m", "Mi")
    assert int(cpu[:-1]) >= 50
    nodes = measured.kubectl("top", "node", "--no-headers")
    assert {line.split()[0] for line in nodes.stdout.splitlines()} >= {"local", "sim-gpu-1", "sim-gpu-2", "sim-npu-1"}, nodes.stderr


def test_a_pod_that_does_not_run_is_not_measured(measured: Server) -> None:
    measured.core.create_namespaced_pod("default", pod("over", "exit 0"))
    measured.wait_phase("over", "Succeeded")
    assert raw(measured, "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/over") is None


def test_simulated_accelerators_are_not_measured_rather_than_idle(measured: Server) -> None:
    done = measured.kubectl("get", "--raw", "/metrics")
    assert "# TYPE DCGM_FI_DEV_GPU_UTIL gauge" in done.stdout
    assert "sim-gpu" not in done.stdout


def test_processor_time_of_ended_children_is_not_lost() -> None:
    """Without control groups: a shell that starts one program after the other has used their time, too."""
    script = "for i in 1 2 3 4 5; do python3 -c 'sum(range(2000000))'; done; echo done; read wait"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(["sh", "-c", f'sh -c "{script}"; true'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"PATH": path}) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"done\n"
        (reading,) = read_all([Target(("uid", "main", 0), child.pid, ())]).values()
        child.kill()
    assert reading.cpu > 0.1


async def test_a_gpu_shows_its_busiest_moment_and_who_has_it(world: World) -> None:
    devices = Devices(world.client, [Gpu(0, "GPU-a", "H100", 81920), Gpu(1, "GPU-b", "H100", 81920)], world.state / "pods")
    devices.given["uid-1"] = ["GPU-a"]
    meter = GpuMeter(devices)
    assert meter.read() == []
    for percent in (90, 0, 0):
        meter._samples["GPU-a"].append(percent)
    assert [(gpu.uuid, percent, uid) for gpu, percent, uid in meter.read()] == [("GPU-a", 90, "uid-1")]
