"""The server's half of SPDY/3.1 framing, as much of it as port-forward uses. No input or output of its own."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterator

_WORDS = (  # noqa: SIM905 - a list of one word a line would be long
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization cache-control "
    "connection content-base content-encoding content-language content-length content-location content-md5 content-range content-type date etag "
    "expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning "
    "www-authenticate method get status "
).split()
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content"
    "301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,"
    "image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch"
    "charset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
_LISTED = [*_WORDS, "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
# The dictionary that both sides of SPDY/3 compress headers with (section 2.6.10.1 of its draft).
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in _LISTED) + _TAIL.encode()

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 9
_FIN = 1
_WINDOW = 64 * 1024
_INITIAL_WINDOW_SIZE = 7
Frame = tuple[str, int, object]  # "open" (headers), "data" (bytes), "end", "reset" or "ping"; stream


class Session:
    """Frames in by `feed`, frames out by `write`, which is awaited one frame at a time."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write
        self._buffer = b""
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._initial = _WINDOW
        self._windows: dict[int, int] = {}
        self._room = asyncio.Condition()
        self._turn = asyncio.Lock()

    # --- in ---

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._buffer += data
        while len(self._buffer) >= 8:
            first, second = struct.unpack(">II", self._buffer[:8])
            size = second & 0xFFFFFF
            if len(self._buffer) < 8 + size:
                return
            body, self._buffer = self._buffer[8 : 8 + size], self._buffer[8 + size :]
            flags = second >> 24
            if first & 0x80000000:
                yield from self._control(first & 0xFFFF, flags, body)
            else:
                yield ("data", first, body)
                if flags & _FIN:
                    yield ("end", first, None)

    def _control(self, kind: int, flags: int, body: bytes) -> Iterator[Frame]:
        if kind == _SYN_STREAM:
            stream = struct.unpack(">I", body[:4])[0] & 0x7FFFFFFF
            self._windows[stream] = self._initial
            yield ("open", stream, self._headers(body[10:]))
            if flags & _FIN:
                yield ("end", stream, None)
        elif kind == _RST_STREAM:
            yield ("reset", struct.unpack(">I", body[:4])[0] & 0x7FFFFFFF, None)
        elif kind == _PING:
            yield ("ping", struct.unpack(">I", body[:4])[0], None)
        elif kind == _WINDOW_UPDATE:
            stream, more = struct.unpack(">II", body[:8])
            self._grow(stream & 0x7FFFFFFF, more & 0x7FFFFFFF)
        elif kind == _SETTINGS:
            self._settings(body)

    def _settings(self, body: bytes) -> None:
        for index in range(struct.unpack(">I", body[:4])[0]):
            key, value = struct.unpack(">II", body[4 + 8 * index : 12 + 8 * index])
            if key & 0xFFFFFF == _INITIAL_WINDOW_SIZE:
                for stream in self._windows:
                    self._windows[stream] += value - self._initial
                self._initial = value

    def _grow(self, stream: int, more: int) -> None:
        if stream in self._windows:
            self._windows[stream] += more

            async def tell() -> None:
                async with self._room:
                    self._room.notify_all()

            task = asyncio.get_running_loop().create_task(tell())
            task.add_done_callback(lambda _: None)

    def _headers(self, data: bytes) -> dict[str, str]:
        plain = self._inflate.decompress(data)
        found: dict[str, str] = {}
        count = struct.unpack(">I", plain[:4])[0]
        at = 4
        for _ in range(count):
            pair = []
            for _ in range(2):
                size = struct.unpack(">I", plain[at : at + 4])[0]
                pair.append(plain[at + 4 : at + 4 + size].decode("latin-1"))
                at += 4 + size
            found[pair[0].lower()] = pair[1]
        return found

    # --- out ---

    async def _control_out(self, kind: int, flags: int, body: bytes) -> None:
        await self._write(struct.pack(">II", 0x80030000 | kind, flags << 24 | len(body)) + body)

    async def reply(self, stream: int) -> None:
        """Accepts a stream, without headers of our own."""
        async with self._turn:  # the compressor's state must match the order on the wire
            block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            await self._control_out(_SYN_REPLY, 0, struct.pack(">I", stream) + block)

    async def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Sends data as the other side has room for it."""
        while data:
            async with self._room:
                await self._room.wait_for(lambda: self._windows.get(stream, 1) > 0)
                size = min(len(data), self._windows.get(stream, len(data)))
                if stream in self._windows:
                    self._windows[stream] -= size
            piece, data = data[:size], data[size:]
            await self._data_out(stream, piece, end=end and not data)
            if not data:
                return
        if end:
            await self._data_out(stream, b"", end=True)

    async def _data_out(self, stream: int, data: bytes, *, end: bool) -> None:
        await self._write(struct.pack(">II", stream, (_FIN << 24 if end else 0) | len(data)) + data)

    async def consumed(self, stream: int, size: int) -> None:
        """Gives the other side room again for what was taken."""
        if size:
            await self._control_out(_WINDOW_UPDATE, 0, struct.pack(">II", stream, size))

    async def pong(self, number: int) -> None:
        await self._control_out(_PING, 0, struct.pack(">I", number))

    def forget(self, stream: int) -> None:
        self._windows.pop(stream, None)
