"""Port-forward over WebSocket, in both ways that clients speak it.

The older one numbers channels: for each port one of data and one of errors, each beginning with the port. kubectl 1.30 and later tunnels SPDY
through the WebSocket instead, one pair of streams for each connection (see `spdy`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.websockets import WebSocket

from .spdy import Session

TUNNEL = "SPDY/3.1+portforward.k8s.io"
TUNNEL_SAFE = TUNNEL.replace("/", "-")  # what the WebSocket library sees, see `upgrade`
PORT_PROTOCOLS = ("v4.channel.k8s.io", "portforward.k8s.io")
_CHUNK = 32768


async def forward_channels(socket: WebSocket, ip: str, ports: list[int]) -> None:
    """Channel 2n carries data of the n-th port, 2n+1 an error message."""
    writers: dict[int, asyncio.StreamWriter] = {}
    tasks: list[asyncio.Future[Any]] = []

    async def pump(number: int, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await socket.send_bytes(bytes([2 * number]) + data)

    try:
        for number, port in enumerate(ports):
            head = struct.pack("<H", port)
            await socket.send_bytes(bytes([2 * number]) + head)
            await socket.send_bytes(bytes([2 * number + 1]) + head)
            try:
                reader, writers[number] = await asyncio.open_connection(ip, port)
            except OSError as error:
                await socket.send_bytes(bytes([2 * number + 1]) + refusal(ip, port, error))
                continue
            tasks.append(asyncio.create_task(pump(number, reader)))
        receive: asyncio.Future[Any] = asyncio.ensure_future(_receive_channels(socket, writers))
        tasks.append(receive)
        pumps = tasks[:-1]
        if pumps:
            # Over when the client is gone, or when every connection has ended at the other side.
            everything: asyncio.Future[Any] = asyncio.gather(*pumps, return_exceptions=True)
            await asyncio.wait([receive, everything], return_when=asyncio.FIRST_COMPLETED)
        if not receive.done():
            await socket.close()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers.values():
            writer.close()


async def _receive_channels(socket: WebSocket, writers: dict[int, asyncio.StreamWriter]) -> None:
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        data = message.get("bytes") or b""
        if len(data) > 1 and data[0] % 2 == 0 and data[0] // 2 in writers:
            writer = writers[data[0] // 2]
            with contextlib.suppress(OSError):
                writer.write(data[1:])
                await writer.drain()


def reason(error: OSError) -> str:
    """In the system's words: asyncio puts the address in its own."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def refusal(ip: str, port: int, error: OSError) -> bytes:
    return f"an error occurred forwarding {port} -> {port}: dial tcp4 {ip}:{port}: connect: {reason(error)}".encode()


@dataclass
class _Pair:
    """The two streams of one forwarded connection."""

    data: int = 0
    error: int = 0
    port: int = 0
    incoming: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)


class Tunnel:
    """SPDY through a WebSocket: each connection is a stream of data and one of errors with the same `requestid`."""

    def __init__(self, socket: WebSocket, ip: str) -> None:
        self.socket = socket
        self.ip = ip
        self.session = Session(self.socket.send_bytes)
        self.pairs: dict[str, _Pair] = {}
        self.by_stream: dict[int, _Pair] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        try:
            while True:
                message = await self.socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                for frame in self.session.feed(message.get("bytes") or b""):
                    await self._take(*frame)
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _take(self, kind: str, stream: int, value: object) -> None:
        if kind == "open":
            await self._open(stream, cast(dict[str, str], value))
        elif kind == "data":
            data = cast(bytes, value)
            pair = self.by_stream.get(stream)
            if pair is not None and pair.data == stream:
                pair.incoming.put_nowait(data)
            else:
                await self.session.consumed(stream, len(data))
        elif kind in ("end", "reset"):
            pair = self.by_stream.get(stream)
            if pair is not None and pair.data == stream:
                pair.incoming.put_nowait(None)
        elif kind == "ping":
            await self.session.pong(stream)

    async def _open(self, stream: int, headers: dict[str, str]) -> None:
        await self.session.reply(stream)
        pair = self.pairs.setdefault(headers.get("requestid", ""), _Pair())
        pair.port = int(headers.get("port") or 0)
        self.by_stream[stream] = pair
        if headers.get("streamtype") == "error":
            pair.error = stream
        else:
            pair.data = stream
        if pair.data and pair.error:
            self.pairs.pop(headers.get("requestid", ""), None)
            task = asyncio.create_task(self._connect(pair))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _connect(self, pair: _Pair) -> None:
        try:
            reader, writer = await asyncio.open_connection(self.ip, pair.port)
        except OSError as error:
            await self.session.send(pair.error, refusal(self.ip, pair.port, error), end=True)
            await self.session.send(pair.data, b"", end=True)
            return
        up = asyncio.create_task(self._upstream(pair, writer))
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(_CHUNK):
                    await self.session.send(pair.data, data)
            await self.session.send(pair.data, b"", end=True)
            await self.session.send(pair.error, b"", end=True)
        finally:
            up.cancel()
            writer.close()
            for stream in (pair.data, pair.error):
                self.by_stream.pop(stream, None)
                self.session.forget(stream)

    async def _upstream(self, pair: _Pair, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while (data := await pair.incoming.get()) is not None:
                writer.write(data)
                await writer.drain()
                await self.session.consumed(pair.data, len(data))
            writer.write_eof()


async def forward_tunnel(socket: WebSocket, ip: str) -> None:
    await Tunnel(socket, ip).run()
