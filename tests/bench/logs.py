"""A line leaving a pod to the websocket of a viewer, beside `kubectl logs -f`. Both read the same pod at the same time."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

from websockets.sync.client import connect

from portal.ops.client import Api, Browser
from tests.stack import running, wait_until

from .common import Row

LINES = 200
# Printed by the notebook's server process itself would need an extension; a kernel's parent pipe is not the pod's stdout, /proc/1's is not reachable
# everywhere either. The scheduler of a Dask cluster prints through its own logger on request, into the pod's stdout.
PRINT = """
import json, time
from pathlib import Path
from dask.distributed import Client
clusters = json.loads(Path("/etc/atelier/clusters.json").read_text())
address = next(c["env"]["DASK_SCHEDULER_ADDRESS"] for c in clusters)
def speak(n):
    import time
    for i in range(n):
        print(f"stamp {time.time_ns()}", flush=True)
        time.sleep(0.01)
with Client(address, timeout=30) as client:
    client.run_on_scheduler(speak, %d)
print("spoken")
"""


def measure(folder: Path, runs: int) -> list[Row]:
    ours: list[float] = []
    peer: list[float] = []
    with (
        running(folder / "var") as stack,
        Api(stack.url, stack.token()) as api,
        Browser(stack.url, "alice", stack.credentials()["alice"]) as browser,
    ):
        make = {"flavor": "cpu-small", "team": "vision"}
        notebook = api.call("POST", "/environments", json={**make, "name": "speaker", "template": "notebook"})["id"]
        dask = api.call("POST", "/environments", json={**make, "name": "printer", "template": "dask", "params": {"workers": 1}})["id"]
        cluster = api.wait_state(dask, "running")
        lab = browser.open_notebook(api.wait_state(notebook, "running")["url"])
        pod = next(replica["name"] for replica in cluster["replicas"] if replica["role"] == "scheduler")
        wait_until(
            lambda: "True" in lab.run("from pathlib import Path; p = Path('/etc/atelier/clusters.json'); print(p.exists() and 'printer' in p.read_text())"),
            "the address",
        )
        follow = threading.Thread(target=_kubectl, args=(stack.var / "cluster" / "kubeconfig", pod, peer), daemon=True)
        follow.start()
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.http.cookies.jar)
        address = f"{stack.url.replace('http', 'ws')}/ws/environments/{dask}/logs/?replica={pod}"
        with connect(address, additional_headers={"Cookie": cookies}, origin=stack.url, proxy=None) as socket:  # type: ignore[arg-type]
            reader = threading.Thread(target=_websocket, args=(socket, ours), daemon=True)
            reader.start()
            lab.run(PRINT % LINES)
            wait_until(lambda: len(ours) >= LINES and (len(peer) >= LINES or not shutil.which("kubectl")), "every line on both sides")
    row = Row("log line to viewer / kubectl logs -f", ours, peer, "peer + 0.020 at the median")
    return [row]


def _stamp(text: str) -> float | None:
    if "stamp " not in text:
        return None
    return (time.time_ns() - int(text.rsplit("stamp ", 1)[1].split()[0])) / 1e9


def _websocket(socket: object, into: list[float]) -> None:
    for message in socket:  # type: ignore[attr-defined]
        for line in json.loads(message).get("lines", ()):
            delay = _stamp(line["text"])
            if delay is not None:
                into.append(delay)


def _kubectl(kubeconfig: Path, pod: str, into: list[float]) -> None:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        return
    argv = [kubectl, "--kubeconfig", str(kubeconfig), "-n", "atelier-vision", "logs", "-f", "--tail=0", pod]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout is not None
        for line in process.stdout:
            delay = _stamp(line)
            if delay is not None:
                into.append(delay)
            if len(into) >= LINES:
                process.terminate()
