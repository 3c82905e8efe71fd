"""A TCP forwarder: connections to a service's address go on to one of its pods."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable
from typing import cast

log = logging.getLogger(__name__)
Target = tuple[str, int]


class _Half(asyncio.Protocol):
    """One side of a forwarded connection: what comes in goes out at `peer`, no faster than it takes it."""

    def __init__(self) -> None:
        self.peer: _Half | None = None
        self.transport: asyncio.Transport | None = None
        self._waiting: list[bytes] = []
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)
        else:
            self._waiting.append(data)

    def join(self, peer: _Half) -> None:
        self.peer, peer.peer = peer, self
        if peer.transport is not None:
            for data in self._waiting:
                peer.transport.write(data)
            if self._ended and peer.transport.can_write_eof():
                peer.transport.write_eof()
        self._waiting = []
        if self.transport is not None:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.write_eof()
        return True  # the other direction may go on

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()


class _Front(_Half):
    """The side that a client connected to."""

    def __init__(self, pick: Callable[[], list[Target]], live: set[asyncio.Task[None]]) -> None:
        super().__init__()
        self.pick = pick
        self.live = live

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).pause_reading()
        task = asyncio.create_task(self._connect())
        self.live.add(task)
        task.add_done_callback(self.live.discard)

    async def _connect(self) -> None:
        targets = self.pick()
        random.shuffle(targets)
        for host, port in targets:
            try:
                _, back = await asyncio.wait_for(asyncio.get_running_loop().create_connection(_Half, host, port), 10)
            except (OSError, TimeoutError):
                continue
            self.join(back)
            if back.transport is not None and (self.transport is None or self.transport.is_closing()):
                back.transport.close()
            return
        if self.transport is not None:
            self.transport.abort()


class Forwarder:
    """Listens on service addresses while there is a pod to forward to: without one the connection is refused, as in a cluster."""

    def __init__(self) -> None:
        self.targets: dict[Target, list[Target]] = {}
        self._servers: dict[Target, asyncio.Task[asyncio.Server]] = {}
        self._connecting: set[asyncio.Task[None]] = set()

    def set(self, wanted: dict[Target, list[Target]]) -> dict[Target, str]:
        """Takes over what is to listen and where it leads; addresses that cannot be listened on, with why."""
        problems: dict[Target, str] = {}
        self.targets = wanted
        for address in [key for key in self._servers if not wanted.get(key)]:
            self._close(self._servers.pop(address))
        for address, targets in wanted.items():
            if targets and address not in self._servers:
                try:
                    self._listen(address)
                except OSError as error:
                    problems[address] = error.strerror or str(error)
        return problems

    def _listen(self, address: Target) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(512)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        loop = asyncio.get_running_loop()

        def front() -> _Front:
            return _Front(lambda: list(self.targets.get(address, [])), self._connecting)

        self._servers[address] = loop.create_task(loop.create_server(front, sock=sock))

    def _close(self, task: asyncio.Task[asyncio.Server]) -> None:
        def close(done: asyncio.Task[asyncio.Server]) -> None:
            if not done.cancelled() and done.exception() is None:
                done.result().close()

        task.add_done_callback(close)

    def stop(self) -> None:
        for task in self._servers.values():
            self._close(task)
        self._servers = {}
        for connecting in self._connecting:
            connecting.cancel()
