"""What flows: a pod's log over HTTP, exec, attach and port-forward over WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .documents import Doc, at, meta, name_of
from .errors import StatusError, bad_request, not_found
from .kubelet.exec import Execution
from .kubelet.logs import LogOptions, stream
from .portforward import PORT_PROTOCOLS, TUNNEL_SAFE, forward_channels, forward_tunnel

if TYPE_CHECKING:
    from .client import Client
    from .kubelet.manager import Kubelet
    from .kubelet.process import Process

_EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_PULL_REASONS = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"}


def find_pod(client: Client, namespace: str, name: str) -> Doc:
    pod = client.get("Pod", namespace, name)
    if pod is None:
        raise not_found("", "pods", name)
    return pod


def reach(kubelet: Kubelet, pod: Doc) -> None:
    """StatusError 500, in the API server's words, when the pod's node is cut off."""
    node = pod["spec"].get("nodeName")
    if node and kubelet.unreachable(node):
        raise StatusError(500, "InternalError", f'Get "https://{node}:10250/pods": dial tcp {node}:10250: connect: no route to host')


def choose_container(pod: Doc, wanted: str) -> str:
    """The container that a request means. StatusError 400 when it does not say, or says wrong."""
    spec = pod["spec"]
    mains = [item["name"] for item in spec["containers"]]
    inits = [item["name"] for item in spec.get("initContainers") or []]
    if wanted:
        if wanted not in mains + inits:
            raise bad_request(f"container {wanted} is not valid for pod {name_of(pod)}")
        return wanted
    if len(mains) == 1:
        return str(mains[0])
    text = f"a container name must be specified for pod {name_of(pod)}, choose one of: [{' '.join(mains)}]"
    raise bad_request(text + (f" or one of the init containers: [{' '.join(inits)}]" if inits else ""))


def run_directory(pod: Doc, container: str, base: Path, *, previous: bool) -> Path:
    """Where the log of a container's current or previous run is. StatusError 400, in the kubelet's words, when there is none."""
    known = [*at(pod, "status.containerStatuses", []), *at(pod, "status.initContainerStatuses", [])]
    found: Doc = next((item for item in known if item["name"] == container), {})
    restarts = int(found.get("restartCount") or 0)
    if previous:
        directory = base / str(restarts - 1)
        if "terminated" not in (found.get("lastState") or {}) or not directory.exists():
            raise bad_request(f'previous terminated container "{container}" in pod "{name_of(pod)}" not found')
        return directory
    waiting = at(found, "state.waiting")
    if waiting is not None and "terminated" not in (found.get("lastState") or {}):
        reason = waiting.get("reason", "")
        why = "trying and failing to pull image" if reason in _PULL_REASONS else reason
        raise bad_request(f'container "{container}" in pod "{name_of(pod)}" is waiting to start: {why}')
    directory = base / str(restarts)
    if not found or not directory.exists():
        raise bad_request(f'container "{container}" in pod "{name_of(pod)}" is not available')
    return directory


def routes(client: Client, kubelet: Kubelet) -> list[BaseRoute]:
    async def log(request: Request) -> Response:
        try:
            pod = find_pod(client, request.path_params["namespace"], request.path_params["name"])
            container = choose_container(pod, request.query_params.get("container", ""))
            options = LogOptions.parse(request.query_params)
            if not pod["spec"].get("nodeName"):
                return Response(b"", media_type="text/plain")
            reach(kubelet, pod)
            directory = run_directory(pod, container, kubelet.directory(pod, container), previous=options.previous)
        except StatusError as error:
            return JSONResponse(error.status(), status_code=error.code)
        return StreamingResponse(stream(directory, options), media_type="text/plain")

    async def refuse_spdy(request: Request) -> Response:
        # Clients fall back to this when a WebSocket was refused: the reason is the same then.
        try:
            reach(kubelet, find_pod(client, request.path_params["namespace"], request.path_params["name"]))
            error = bad_request("unable to upgrade: only WebSocket is supported here, not SPDY")
        except StatusError as why:
            error = why
        return JSONResponse(error.status(), status_code=error.code)

    async def execute(socket: WebSocket) -> None:
        await _with_process(socket, client, kubelet, _execute)

    async def attach(socket: WebSocket) -> None:
        await _with_process(socket, client, kubelet, _attach)

    async def forward(socket: WebSocket) -> None:
        await _forward(socket, client, kubelet)

    base = "/api/v1/namespaces/{namespace}/pods/{name}"
    found: list[BaseRoute] = [Route(f"{base}/log", log, methods=["GET"])]
    for verb, endpoint in (("exec", execute), ("attach", attach), ("portforward", forward)):
        found.append(WebSocketRoute(f"{base}/{verb}", endpoint))
        found.append(Route(f"{base}/{verb}", refuse_spdy, methods=["GET", "POST"]))
    return found


def running_process(kubelet: Kubelet, pod: Doc, container: str) -> Process:
    """The process of a running container. StatusError when it does not run."""
    if at(pod, "status.phase") in ("Succeeded", "Failed"):
        raise bad_request(f"cannot exec in or attach to a container in a completed pod; current phase is {pod['status']['phase']}")
    reach(kubelet, pod)
    running = kubelet.process(pod, container)
    if running is None or not running.alive:
        raise StatusError(500, "InternalError", f'unable to upgrade connection: container not found ("{container}")')
    return running


async def _deny(socket: WebSocket, error: StatusError) -> None:
    await socket.send_denial_response(JSONResponse(error.status(), status_code=error.code))


def _protocol(socket: WebSocket, known: tuple[str, ...]) -> str:
    offered = socket.scope.get("subprotocols") or []
    chosen = next((item for item in known if item in offered), None)
    if chosen is None and offered:
        raise bad_request(f"unable to upgrade: none of the protocols {', '.join(offered)} is supported")
    return chosen or known[-1]


async def _with_process(socket: WebSocket, client: Client, kubelet: Kubelet, work: Callable[..., Any]) -> None:
    """Finds the running container that a request means, accepts the socket, and does the work."""
    params = socket.path_params
    try:
        pod = find_pod(client, params["namespace"], params["name"])
        container = choose_container(pod, socket.query_params.get("container", ""))
        running = running_process(kubelet, pod, container)
        protocol = _protocol(socket, _EXEC_PROTOCOLS)
    except StatusError as error:
        await _deny(socket, error)
        return
    offered = bool(socket.scope.get("subprotocols"))
    await socket.accept(subprotocol=protocol if offered else None)
    await work(socket, running, protocol)


def _wants(socket: WebSocket, name: str) -> bool:
    return socket.query_params.get(name, "").lower() in ("1", "true")


async def _execute(socket: WebSocket, running: Process, protocol: str) -> None:
    argv = socket.query_params.getlist("command")
    execution = Execution(
        running, argv, tty=_wants(socket, "tty"), stdin=_wants(socket, "stdin"), stdout=_wants(socket, "stdout"), stderr=_wants(socket, "stderr")
    )
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        execution.start()
        output = asyncio.create_task(_send_output(socket, execution))
        receive = asyncio.create_task(_receive_input(socket, execution, protocol))
        try:
            # A client that goes away takes its command with it; one that has merely nothing more to send does not.
            await asyncio.wait([output, receive], return_when=asyncio.FIRST_COMPLETED)
            if not output.done():
                return
            code = await execution.wait()
            await socket.send_bytes(b"\x03" + json.dumps(exit_status(code)).encode())
            await socket.close()
        finally:
            for task in (output, receive):
                task.cancel()
            await asyncio.gather(output, receive, return_exceptions=True)
            execution.close()


async def _send_output(socket: WebSocket, execution: Execution) -> None:
    async for channel, data in execution.output():
        await socket.send_bytes(bytes([channel]) + data)


async def _receive_input(socket: WebSocket, execution: Execution, protocol: str) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes") or (message.get("text") or "").encode()
        if not data:
            continue
        channel, payload = data[0], data[1:]
        if channel == 0:
            await execution.write(payload)
        elif channel == 4:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                size = json.loads(payload)
                execution.resize(int(size["Width"]), int(size["Height"]))
        elif channel == 255 and protocol.startswith("v5") and payload[:1] == b"\x00":
            execution.end_input()


def exit_status(code: int) -> Doc:
    """The Status object that ends an exec."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def _attach(socket: WebSocket, running: Process, protocol: str) -> None:
    """Output from now on; input does not reach a container here."""

    async def send() -> None:
        parts: AsyncIterator[bytes] = stream(running.directory, LogOptions(follow=True, tail=0))
        async for data in parts:
            await socket.send_bytes(b"\x01" + data)
        ended = await running.wait()
        await socket.send_bytes(b"\x03" + json.dumps(exit_status(ended.code)).encode())
        await socket.close()

    async def receive() -> None:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass

    tasks = [asyncio.create_task(send()), asyncio.create_task(receive())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(socket: WebSocket, client: Client, kubelet: Kubelet) -> None:
    params = socket.path_params
    try:
        pod = find_pod(client, params["namespace"], params["name"])
        ip = at(pod, "status.podIP", "")
        if at(pod, "status.phase") != "Running" or not ip or meta(pod).get("deletionTimestamp"):
            raise bad_request(f"unable to forward port because pod is not running. Current status={at(pod, 'status.phase', 'Pending')}")
        reach(kubelet, pod)
        protocol = _protocol(socket, (TUNNEL_SAFE, *PORT_PROTOCOLS))
        ports = [int(item) for text in socket.query_params.getlist("ports") for item in text.split(",") if item]
    except ValueError:
        await _deny(socket, bad_request('query parameter "ports" must be numbers'))
        return
    except StatusError as error:
        await _deny(socket, error)
        return
    await socket.accept(subprotocol=protocol if socket.scope.get("subprotocols") else None)
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        if protocol == TUNNEL_SAFE:
            await forward_tunnel(socket, ip)
        else:
            await forward_channels(socket, ip, ports)
