"""Probes and lifecycle hooks: one attempt each, and the loop that turns attempts into a verdict."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from k8s.local.documents import Doc, at
from k8s.local.kubelet.process import Process, session

_OUTPUT = 10 * 1024
Attempt = Callable[[], Awaitable[tuple[bool, str]]]


def port_number(container: Doc, port: Any) -> int:
    """A port by number, or by its name in the container. ValueError when there is none."""
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    for item in container.get("ports") or []:
        if item.get("name") == port:
            return int(item["containerPort"])
    raise ValueError(f"no port named {port!r}")


async def run_command(process: Process, argv: list[str], timeout: float) -> tuple[int, str]:
    """Exit code and the beginning of the output of a command in a container; 124 when it took too long and was killed."""
    child = session(process, argv, tty=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, child.communicate)
    try:
        output, _ = await asyncio.wait_for(asyncio.shield(work), timeout)
    except (TimeoutError, asyncio.CancelledError) as error:
        child.kill()
        with contextlib.suppress(Exception):
            await asyncio.shield(work)
        if isinstance(error, asyncio.CancelledError):
            raise
        return 124, f"command timed out after {timeout:g}s"
    return child.returncode, output[:_OUTPUT].decode(errors="replace").strip()


def reason(error: OSError) -> str:
    """In the system's words: asyncio puts the address in its own."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


async def http_get(action: Mapping[str, Any], container: Doc, address: str, timeout: float) -> tuple[bool, str]:
    port = port_number(container, action["port"])
    host, path = action.get("host") or address, action.get("path") or "/"
    path = path if path.startswith("/") else f"/{path}"
    context = None
    if (action.get("scheme") or "HTTP").upper() == "HTTPS":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"{(action.get('scheme') or 'HTTP').lower()}://{host}:{port}{path}"
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/1.36", "Accept": "*/*", "Connection": "close"}
    headers.update({item["name"]: item["value"] for item in action.get("httpHeaders") or []})
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n")
                line = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return False, f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    except OSError as error:
        return False, f'Get "{url}": dial tcp {host}:{port}: connect: {reason(error)}'
    fields = line.split()
    code = int(fields[1]) if len(fields) > 1 and fields[1].isdigit() else 0
    return 200 <= code < 400, f"HTTP probe failed with statuscode: {code}"


async def tcp_connect(action: Mapping[str, Any], container: Doc, address: str, timeout: float) -> tuple[bool, str]:
    port = port_number(container, action["port"])
    host = action.get("host") or address
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
    except TimeoutError:
        return False, f"dial tcp {host}:{port}: i/o timeout"
    except OSError as error:
        return False, f"dial tcp {host}:{port}: connect: {reason(error)}"
    return True, ""


async def act(handler: Mapping[str, Any], container: Doc, process: Process, address: str, timeout: float) -> tuple[bool, str]:
    """One attempt of a probe or hook: whether it went well, and what went wrong."""
    try:
        if handler.get("exec"):
            code, output = await run_command(process, list(handler["exec"].get("command") or []), timeout)
            return code == 0, output
        if handler.get("httpGet"):
            return await http_get(handler["httpGet"], container, address, timeout)
        if handler.get("tcpSocket") or handler.get("grpc"):
            return await tcp_connect(handler.get("tcpSocket") or handler["grpc"], container, address, timeout)
        if handler.get("sleep"):
            await asyncio.sleep(float(handler["sleep"]["seconds"]))
    except ValueError as error:
        return False, str(error)
    return True, ""


async def watch(probe: Doc, attempt: Attempt, verdict: Callable[[bool, str], None], *, begin: bool, failed: Callable[[str], None] | None = None) -> None:
    """Tries again and again and reports each change of mind by `verdict`; `begin` is what holds before the first. Runs until cancelled.

    While something that is not ready is waited for, tries come more often than the period, so that readiness is seen at once; failures count
    once per period all the same.
    """
    period = float(probe.get("periodSeconds") or 10)
    need_good, need_bad = int(probe.get("successThreshold") or 1), int(probe.get("failureThreshold") or 3)
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    state, good, bad = begin, 0, 0
    quick = 0.5 if at(probe, "exec") else 0.1
    counted = time.monotonic() if not begin else 0.0
    while True:
        ok, why = await attempt()
        now = time.monotonic()
        if ok:
            good, bad = good + 1, 0
            if good >= need_good and not state:
                state = True
                verdict(True, "")
        elif now - counted >= period * 0.95:
            counted = now
            good, bad = 0, bad + 1
            if failed:
                failed(why)
            if bad >= need_bad:
                state = False
                verdict(False, why)
        if state or (ok and good < need_good) or need_good > 1:
            await asyncio.sleep(period)
        else:
            await asyncio.sleep(min(period, quick))
            quick = min(quick * 1.3, max(1.0, period / 4))
