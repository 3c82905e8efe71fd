"""A Dask cluster of 1+2, beside dask-gateway's local backend."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from portal.ops.client import Api
from tests.stack import free_ports, running, wait_until

from .common import Row

CONFIG = """
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "127.0.0.1:{port}"
c.Proxy.address = "127.0.0.1:{public}"
c.Proxy.tcp_address = "127.0.0.1:{tcp}"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.LocalClusterConfig.scheduler_cmd = ["{bin}/dask", "scheduler"]
c.LocalClusterConfig.worker_cmd = ["{bin}/dask", "worker"]
c.LocalBackend.clusters_directory = "{folder}/clusters"
"""
# Runs in its own process: the client keeps an event loop and threads of its own. No collection: a Gateway collected on the loop's thread waits for itself.
CLIENT = """
import gc, sys, time
gc.disable()
from dask_gateway import Gateway
gateway = Gateway(sys.argv[1], proxy_address=sys.argv[2], auth="basic")
for _ in range(int(sys.argv[3])):
    began = time.perf_counter()
    cluster = gateway.new_cluster()
    cluster.scale(2)
    client = cluster.get_client()
    client.wait_for_workers(2)
    print(time.perf_counter() - began, flush=True)
    client.close()
    cluster.shutdown()
"""


def gateway(folder: Path, runs: int) -> list[float]:
    """Seconds from new_cluster() to two workers, each; empty when dask-gateway is not installed."""
    if not importlib.util.find_spec("dask_gateway_server"):
        print("dask-gateway is not installed (uv sync --all-extras --group bench): no peer for Dask")
        return []
    folder.mkdir(parents=True)
    port, public, tcp = free_ports(3)
    bin_folder = Path(sys.prefix) / "bin"
    (folder / "config.py").write_text(CONFIG.format(port=port, public=public, tcp=tcp, bin=bin_folder, folder=folder))
    env = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([bin_folder / "dask-gateway-server", "-f", "config.py"], cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=env)
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{public}/api/health"), "dask-gateway")
        argv = [sys.executable, "-c", CLIENT, f"http://127.0.0.1:{public}", f"gateway://127.0.0.1:{tcp}", str(runs)]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300)
        return [float(line) for line in done.stdout.split()]
    finally:
        server.terminate()
        server.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def ours(api: Api, name: str) -> float:
    began = time.perf_counter()
    made = api.call("POST", "/environments", json={"name": name, "template": "dask", "flavor": "cpu-small", "team": "vision", "params": {"workers": 2}})
    lines = api.log_lines(made["id"], follow="true")
    registered = 0
    for line in lines:  # the same moment as wait_for_workers(2): the scheduler has registered both
        registered += "Register worker" in line
        if registered == 2:
            break
    took = time.perf_counter() - began
    api.call("DELETE", f"/environments/{made['id']}")
    api.wait_state(made["id"], "deleted")
    return took


def measure(folder: Path, runs: int) -> list[Row]:
    with running(folder / "var") as stack, Api(stack.url, stack.token()) as api:
        times = [ours(api, f"bench-{number}") for number in range(runs + 1)][1:]
        peer = gateway(folder / "gateway", runs + 1)[1:]
    return [Row("Dask 1+2 up / dask-gateway local", times, peer, "<= 1.1")]
