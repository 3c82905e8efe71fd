"""Between the processes and their broker: passes everything on and, when told to, delivers every task three times in shuffled order.

Published messages (`LPUSH` to Celery's queue) are put under another key; from there each comes back three times, each copy at a moment
of its own. Nothing of the product knows.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import uuid
from pathlib import Path

import redis

QUEUE, ASIDE = b"celery", b"aside"
COPIES = 3
SPREAD_SECONDS = 2.0  # within this a message's copies are delivered


class Relay:
    """`url` is what the processes get as REDIS_URL."""

    def __init__(self, path: Path, password: str, seed: int = 0) -> None:
        self.path, self.password = path, password
        self.delivered = 0  # copies so far
        self._aside = False
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop.run_forever, name="relay", daemon=True),
            threading.Thread(target=self._deliver, name="copies", daemon=True),
        ]

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """Straight to the server."""
        return redis.Redis(unix_socket_path=str(self.path), password=self.password, socket_timeout=5, socket_connect_timeout=2)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

        async def listen() -> int:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
            return server.sockets[0].getsockname()[1]

        self.port = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(10)

    def stop(self) -> None:
        self._ending.set()
        self._threads[1].join(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._threads[0].join(10)

    def treble(self, on: bool) -> None:
        """From now on every task is delivered three times, or as it is published."""
        self._aside = on

    # --- passing on ------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_unix_connection(str(self.path))
        except OSError:
            writer.transport.abort()
            return
        sides = [asyncio.ensure_future(self._requests(reader, forth)), asyncio.ensure_future(_answers(back, writer))]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            writer.transport.abort()
            forth.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, forth: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readline():
                raw, parts = [head], []
                for _ in range(int(head[1:])):  # clients send arrays of strings and nothing else
                    size = await reader.readline()
                    part = await reader.readexactly(int(size[1:]) + 2)
                    raw += [size, part]
                    parts.append(part[:-2])
                if self._aside and parts[:2] == [b"LPUSH", QUEUE]:
                    parts[1] = ASIDE
                    raw = [b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)]
                forth.write(b"".join(raw))
                await forth.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            return

    # --- copies ------------------------------------------------------------------------

    def _deliver(self) -> None:
        """Take what was put aside; hand it out again and again, each copy when its moment has come."""
        due: list[tuple[float, bytes]] = []
        client, now = self.client(), 0.0
        while not self._ending.wait(0.05):
            now += 0.05
            try:
                for message in client.lpop(ASIDE.decode(), 100) or []:
                    due += [(now + self._random.uniform(0, SPREAD_SECONDS), _copy(message)) for _ in range(COPIES)]
                ready = [entry for entry in due if entry[0] <= now]
                self._random.shuffle(ready)
                for entry in ready:
                    client.lpush(QUEUE.decode(), entry[1])
                    due.remove(entry)
                    self.delivered += 1
            except redis.RedisError:
                continue  # it was killed, and comes back


def _copy(message: bytes) -> bytes:
    """The same task under a delivery tag of its own, as a broker that delivers again would send it."""
    document = json.loads(message)
    document["properties"]["delivery_tag"] = str(uuid.uuid4())
    return json.dumps(document).encode()


async def _answers(back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await back.read(65536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        return
