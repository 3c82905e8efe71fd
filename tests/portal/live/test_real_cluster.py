"""The whole way of a line: printed by a process in a pod of the embedded cluster, through its log API and a real portal, to a websocket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes import client, config

from portal.runtime import ROOT
from tests.stack import wait_until

from .site import PATIENCE, Client, Site

pytestmark = pytest.mark.integration
NAMESPACE = "atelier-vision"
LINES = 1500
END = "no newline at the end"
NASTY = r"""
import sys, time
write, flush = sys.stdout.buffer.write, sys.stdout.flush
write(b"\x1b[31mred\x1b[0m \x1b]8;;http://evil/\x07link\x1b[2J\n"); write(b"crlf\r\n"); write(b"\xff\x00bin\n"); write(b"<script>alert(1)</script>\n")
write(b"m" * 1048576 + b"\n"); write(b" 1%\r 50%\r100%\n"); flush()
for number in range(LINES):
    write(b"line %d\n" % number); flush(); time.sleep(0.01)
write(b"no newline at the end"); flush()
""".replace("LINES", str(LINES))
NASTY_SHOWN = ["\x1b[31mred\x1b[0m link", "crlf", "\ufffd\u2400bin", "<script>alert(1)</script>", "m" * 16384, "100%"]
FLOOD = r"""
import sys, time
time.sleep(1)
for number in range({lines}):
    sys.stdout.write("%d " % number + "x" * 300 + "\n")
sys.stdout.write("done\n"); sys.stdout.flush(); time.sleep(600)
"""


class Wire:
    """A TCP relay before the cluster's API that can be cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> int:
        """Resets every connection; how many there were."""
        count = len(self._open)
        for writer in self._open:
            writer.transport.abort()
        return count

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, there}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        try:
            await asyncio.gather(pump(reader, there), pump(there_reader, writer))
        finally:
            self._open -= {writer, there}


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("cluster")
    with (state / "out.log").open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "k8s.local", "--port", "0", "--state", str(state)], cwd=ROOT, stdout=out, stderr=out)
    path = state / "kubeconfig"
    try:
        wait_until(path.exists, "the embedded cluster's kubeconfig")
        yield path
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="module")
def core(kubeconfig: Path) -> client.CoreV1Api:
    api = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))
    wait_until(lambda: _answers(api), "the embedded cluster to answer")
    api.create_namespace({"metadata": {"name": NAMESPACE}})
    return api


def _answers(api: client.CoreV1Api) -> bool:
    try:
        return bool(api.list_node().items)
    except Exception:
        return False


@pytest.fixture
async def wire(site: Site, kubeconfig: Path, core: client.CoreV1Api) -> AsyncIterator[Wire]:
    """Between the portal and the cluster. The portal's kubeconfig is written anew."""
    document = yaml.safe_load(kubeconfig.read_text())
    server = document["clusters"][0]["cluster"]
    wire = Wire(urlsplit(server["server"]).port or 0)
    await wire.start()
    server["server"] = f"https://127.0.0.1:{wire.port}"
    Path(site.env["KUBECONFIG"]).write_text(yaml.safe_dump(document))
    yield wire
    await wire.stop()


def run_pod(core: client.CoreV1Api, name: str, script: str) -> None:
    container = {"name": "main", "image": "python:3.11", "command": ["python3", "-c", script]}
    core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": name}, "spec": {"restartPolicy": "Never", "containers": [container]}})


def remove_pod(core: client.CoreV1Api, name: str) -> None:
    core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)

    def gone() -> bool:
        try:
            core.read_namespaced_pod(name, NAMESPACE)
        except client.ApiException as error:
            return error.status == 404
        return False

    wait_until(gone, f"{name} to be gone")


async def test_nasty_lines_arrive_once_and_in_order_over_connections_that_break_and_are_kept_when_the_pod_is_gone(
    site: Site, environment: str, core: client.CoreV1Api, wire: Wire
) -> None:
    session = site.rows("sign_in", name="lena")
    path = f"/ws/environments/{environment}/logs/?tail=20000"
    site.rows("observe", environment=environment, replicas=["nasty"])
    lines: list[dict[str, Any]] = []

    async def read(count: int, *, cut: bool) -> None:
        """Reads `count` more lines over a connection of its own, going on after the last; optionally the portal loses the cluster meanwhile."""
        after = f"&after=nasty/main={lines[-1]['seq']}" if lines else ""
        async with site.socket(path + after, session) as viewer:
            if cut:
                await viewer.until(lambda: len(viewer.lines) >= count // 2 or viewer.texts[-1:] == [END])
                wire.cut()
            await viewer.until(lambda: len(viewer.lines) >= count or viewer.texts[-1:] == [END])
            lines.extend(viewer.lines)

    async with site.socket(path, session) as early:
        await early.until(lambda: any(m["type"] == "status" and m["state"] in ("waiting", "gone") for m in early.messages))
        await asyncio.to_thread(run_pod, core, "nasty", NASTY)
        await early.until(lambda: len(early.lines) >= 10)
        lines.extend(early.lines)
    await read(60, cut=True)
    await read(60, cut=False)
    await read(60, cut=True)
    expected = [*NASTY_SHOWN, *(f"line {n}" for n in range(LINES)), END]
    while len(lines) < len(expected):
        await read(1, cut=False)
    assert [line["text"] for line in lines] == expected
    assert lines[4]["cut"] == 1048576 - 16384
    assert len({line["seq"] for line in lines}) == len(lines)

    kept = await asyncio.to_thread(
        lambda: core.read_namespaced_pod_log("nasty", NAMESPACE, timestamps=True, _preload_content=False).data.decode(errors="replace")
    )
    site.rows("archive", environment=environment, replica="nasty", text=kept)
    await asyncio.to_thread(remove_pod, core, "nasty")
    site.rows("observe", environment=environment, replicas=[])
    for to in ("stopping", "stopped"):
        site.rows("move", environment=environment, to=to)

    async def archived(after: str) -> Client:
        async with site.socket(path + after, session) as viewer:
            await viewer.until(lambda: any(m["type"] == "status" and m["state"] == "archived" and not m["replica"] for m in viewer.messages))
            return viewer

    whole = await archived("")
    assert [line["seq"] for line in whole.lines] == [line["seq"] for line in lines]
    assert [text for text in whole.texts if "\ufffd" not in text] == [text for text in expected if "\ufffd" not in text]
    assert (await archived(f"&after=nasty/main={lines[200]['seq']}")).texts == expected[201:]


async def test_a_viewer_that_does_not_read_misses_lines_that_are_counted_while_another_gets_them_all(
    site: Site, environment: str, core: client.CoreV1Api, wire: Wire
) -> None:
    total = 60_000
    session = site.rows("sign_in", name="lena")
    site.rows("observe", environment=environment, replicas=["flood"])
    path = f"/ws/environments/{environment}/logs/"
    await asyncio.to_thread(run_pod, core, "flood", FLOOD.format(lines=total))
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)  # or the kernel would take it all
    narrow.connect(("127.0.0.1", int(site.port)))
    narrow.setblocking(False)
    try:
        async with site.socket(path, session, sock=narrow, compression=None) as slow, site.socket(path, session, compression=None) as quick:
            for viewer in (slow, quick):
                await viewer.until(lambda v=viewer: any(m["type"] == "status" and m["state"] == "live" for m in v.messages))  # type: ignore[misc]
            async with asyncio.timeout(PATIENCE * 3):
                while quick.texts[-1:] != ["done"]:
                    await quick.receive()
            async with asyncio.timeout(PATIENCE * 3):
                while slow.texts[-1:] != ["done"]:
                    await slow.receive()
    finally:
        await asyncio.to_thread(remove_pod, core, "flood")
    for viewer in (slow, quick):
        missed = sum(m["missed"] for m in viewer.messages if m["type"] == "gap")
        assert missed + len(viewer.texts) == total + 1
    assert any(m["type"] == "gap" for m in slow.messages)
