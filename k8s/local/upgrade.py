"""WebSocket upgrades as kubectl asks for them."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .portforward import TUNNEL, TUNNEL_SAFE

_ASKED, _SAFE = TUNNEL.encode(), TUNNEL_SAFE.encode()


class _Renaming:
    """A transport that gives the protocol's name back as the client wrote it, in the answer to the handshake."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._answered = False

    def write(self, data: bytes) -> None:
        if not self._answered:
            self._answered = True
            data = data.replace(_SAFE, _ASKED)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """kubectl's port-forward asks for `SPDY/3.1+portforward.k8s.io`. A slash may not be in a protocol's name, and the WebSocket library refuses
    it, so the name is another one between the parsing of the request and the answer."""

    _asked_for_tunnel: bool | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Renaming(transport))  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        if self._asked_for_tunnel is None:
            self._asked_for_tunnel = _ASKED in data
            data = data.replace(_ASKED, _SAFE)
        super().data_received(data)
