"""Reads container logs: the whole, the end, since a time, and on as they grow."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from k8s.local.documents import parse_time
from k8s.local.errors import StatusError, bad_request

POLL = 0.03  # seconds between looks at a log that is followed
_CHUNK = 256 * 1024


@dataclass(frozen=True)
class LogOptions:
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: bytes = b""  # in the form of the log's own time stamps, which compare as text
    limit: int | None = None
    stream: bytes = b""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> LogOptions:
        """From a request's query. StatusError 400 when a value is wrong."""

        def number(name: str, least: int) -> int | None:
            text = query.get(name)
            if text is None or text == "":
                return None
            try:
                value = int(text)
            except ValueError:
                raise bad_request(f'{name}: Invalid value: "{text}": must be an integer') from None
            if value < least:
                raise _invalid(name, value, f"must be greater than or equal to {least}" if least == 0 else "must be greater than 0")
            return value

        seconds, moment = number("sinceSeconds", 1), query.get("sinceTime")
        if seconds is not None and moment:
            raise bad_request("at most one of `sinceTime` or `sinceSeconds` may be specified")
        try:
            since = parse_time(moment) if moment else datetime.now(UTC) - timedelta(seconds=seconds) if seconds else None
        except ValueError:
            raise bad_request(f'sinceTime: Invalid value: "{moment}": must be RFC 3339') from None
        return cls(
            follow=_flag(query.get("follow")),
            previous=_flag(query.get("previous")),
            timestamps=_flag(query.get("timestamps")),
            tail=number("tailLines", 0),
            since=since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode() if since else b"",
            limit=number("limitBytes", 1),
            stream={"Stdout": b"stdout", "Stderr": b"stderr"}.get(query.get("stream", "All"), b""),
        )


def _flag(text: str | None) -> bool:
    return (text or "").lower() in ("1", "true", "t")


def _invalid(name: str, value: int, why: str) -> StatusError:
    return StatusError(422, "Invalid", f"PodLogOptions is invalid: {name}: Invalid value: {value}: {why}")


class Formatter:
    """Records of the file to what a client gets."""

    def __init__(self, options: LogOptions) -> None:
        self.options = options
        self.left = options.limit
        self._inside = False  # the line before this record goes on
        self._rest = b""

    @property
    def full(self) -> bool:
        return self.left is not None and self.left <= 0

    def feed(self, data: bytes) -> bytes:
        *records, self._rest = (self._rest + data).split(b"\n")
        out = bytearray()
        for record in records:
            stamp, _, tail = record.partition(b" ")
            stream, _, tail = tail.partition(b" ")
            tag, _, text = tail.partition(b" ")
            if tag not in (b"F", b"P") or stamp < self.options.since or (self.options.stream and stream != self.options.stream):
                continue
            if self.options.timestamps and not self._inside:
                out += stamp + b" "
            out += text
            self._inside = tag == b"P"
            if not self._inside:
                out += b"\n"
        if self.left is not None:
            del out[max(0, self.left) :]
            self.left -= len(out)
        return bytes(out)


def _tail_start(fd: int, size: int, lines: int) -> tuple[int, int]:
    """Where the last `lines` whole lines of a file begin, and how many lines were found."""
    if not size or not lines:
        return size, 0
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as view:
        end = view.rfind(b"\n", 0, size)  # a record that is being written is no line yet
        found = 0
        while end >= 0:
            begin = view.rfind(b"\n", 0, end) + 1
            fields = view[begin : min(end, begin + 64)].split(b" ", 3)
            if len(fields) > 2 and fields[2] == b"F":
                found += 1
                if found > lines:
                    return end + 1, lines
            end = begin - 1
        return 0, found


class Tail:
    """The files of one run of one container, from a starting point on, over rotation."""

    def __init__(self, path: Path, options: LogOptions) -> None:
        self.path = path
        self._files = [os.open(item, os.O_RDONLY | os.O_CLOEXEC) for item in (path.with_name("log.1"), path) if item.exists()]
        if options.tail is not None:
            self._skip(options.tail)

    def _skip(self, lines: int) -> None:
        for fd in reversed(self._files):
            start, found = _tail_start(fd, os.fstat(fd).st_size, lines)
            os.lseek(fd, start, os.SEEK_SET)
            lines -= found

    def read(self) -> bytes:
        """The next piece; empty when there is no more for now."""
        while self._files:
            data = os.read(self._files[0], _CHUNK)
            if data:
                return data
            if len(self._files) == 1 and not self._rotated():
                return b""
            os.close(self._files.pop(0))
        if self.path.exists():
            self._files.append(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
        return b""

    def _rotated(self) -> bool:
        try:
            new = os.stat(self.path)
        except FileNotFoundError:
            return False
        old = os.fstat(self._files[0])
        if (old.st_ino, old.st_dev) == (new.st_ino, new.st_dev):
            return False
        rest = os.read(self._files[0], 1)
        if rest:  # something came between the last read and the rotation
            os.lseek(self._files[0], -1, os.SEEK_CUR)
            return False
        self._files.append(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
        return True

    def close(self) -> None:
        for fd in self._files:
            os.close(fd)
        self._files = []


def _ended(directory: Path) -> bool:
    return (directory / "exit.json").exists() or not directory.exists()


async def stream(directory: Path, options: LogOptions) -> AsyncIterator[bytes]:
    """The log of one run, whose files are in `directory`; with `follow` until the container has ended."""
    formatter = Formatter(options)
    tail = Tail(directory / "log", options)
    try:
        while True:
            over = not options.follow or _ended(directory)
            while data := tail.read():
                if out := formatter.feed(data):
                    yield out
                if formatter.full:
                    return
                await asyncio.sleep(0)
            if over:
                return
            await asyncio.sleep(POLL)
    finally:
        tail.close()


def _plain_lines(path: Path) -> Iterator[bytes]:
    formatter = Formatter(LogOptions())
    tail = Tail(path, LogOptions())
    try:
        while data := tail.read():
            yield formatter.feed(data)
    finally:
        tail.close()


def last_text(path: Path, lines: int, most: int) -> str:
    """The end of a log as text: at most `lines` lines and `most` bytes."""
    data = b"".join(_plain_lines(path))
    return b"".join(data.splitlines(keepends=True)[-lines:])[-most:].decode(errors="replace")
