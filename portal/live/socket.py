"""A websocket as plain ASGI. Channels routes and authenticates; its consumers are not used, since they cannot open while Redis is down."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from portal.domain.errors import DomainError, ValidationError

from .access import close_code

log = logging.getLogger(__name__)

ASGIReceive = Callable[[], Awaitable[dict[str, Any]]]
ASGISend = Callable[[dict[str, Any]], Awaitable[None]]
Scope = dict[str, Any]
CLOSE_SECONDS = 2.0
MESSAGE_BYTES = 64 * 1024


class Socket:
    """One open connection. `send` waits while the client is slow to read, so nothing piles up here."""

    def __init__(self, receive: ASGIReceive, send: ASGISend) -> None:
        self._receive, self._send = receive, send
        self.closed = False

    async def accept(self) -> None:
        await self._receive()  # websocket.connect
        await self._send({"type": "websocket.accept"})

    async def send_text(self, text: str) -> None:
        await self._send({"type": "websocket.send", "text": text})

    async def send_json(self, document: dict[str, Any]) -> None:
        await self.send_text(json.dumps(document, ensure_ascii=False))

    async def receive_json(self) -> dict[str, Any]:
        """The next message. Raises ValidationError for what is not a JSON object, ConnectionResetError at the end."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.closed = True
            raise ConnectionResetError
        text = message.get("text") or ""
        try:
            document = json.loads(text) if len(text) <= MESSAGE_BYTES else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ValidationError("expected a JSON object")
        return document

    async def until_closed(self) -> None:
        """Waits for the client to leave; what it says meanwhile is ignored."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self.closed = True
                return

    async def close(self, code: int, reason: str = "") -> None:
        """Says why and ends. A client that does not read cannot be told: the connection then ends without a word."""
        if self.closed:
            return
        self.closed = True
        with suppress(OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._send({"type": "websocket.close", "code": code, "reason": reason[:60]})


async def serve(socket: Socket, *parts: Coroutine[Any, Any, None]) -> None:
    """Runs the parts of a socket until one of them, or the client, ends; the rest are cancelled."""
    tasks = [asyncio.create_task(part) for part in (socket.until_closed(), *parts)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        error = task.exception()
        if isinstance(error, DomainError):
            await socket.close(close_code(error), error.title)
        elif isinstance(error, OSError):
            socket.closed = True  # the client is gone, in uvicorn's words
        elif error is not None:
            log.error("a socket failed", exc_info=error)
            await socket.close(1011, "internal error")
    await socket.close(1000)
