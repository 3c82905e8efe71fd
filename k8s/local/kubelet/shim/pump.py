"""Container output to a log file in the format of container runtimes: `<RFC 3339 nano> stdout F text`."""

from __future__ import annotations

import os
import time

LINE = 16 * 1024  # longer lines are written in parts, as containerd does


def stamp() -> bytes:
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % nanos


class LogFile:
    """Appends to `path`; at `limit` bytes the file becomes `path.1` and a new one begins, so at most twice the limit is kept."""

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self.limit = limit
        self._open()

    def _open(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size

    def write(self, data: bytes) -> None:
        try:
            if self.size and self.size + len(data) > self.limit:
                os.rename(self.path, self.path + ".1")
                os.close(self.fd)
                self._open()
            os.write(self.fd, data)
        except OSError:
            return  # a full disk or a removed pod must not stop the container
        self.size += len(data)


class Stream:
    """One output stream of a container, cut into lines."""

    def __init__(self, fd: int, name: str, log: LogFile) -> None:
        self.fd = fd
        self.head = b" " + name.encode()
        self.log = log
        self.rest = b""

    def read(self) -> bool:
        """Copies what is there; False at the end."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return True
        except OSError:  # EIO: the last user of a terminal has gone
            data = b""
        if not data:
            self.finish()
            return False
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        now = stamp()
        full, part = now + self.head + b" F ", now + self.head + b" P "
        *lines, rest = (self.rest + data).split(b"\n")
        out = bytearray()
        for line in lines:
            while len(line) > LINE:
                out += part + line[:LINE] + b"\n"
                line = line[LINE:]
            out += full + line + b"\n"
        while len(rest) > LINE:
            out += part + rest[:LINE] + b"\n"
            rest = rest[LINE:]
        self.rest = rest
        if out:
            self.log.write(bytes(out))

    def finish(self) -> None:
        if self.rest:
            self.log.write(stamp() + self.head + b" F " + self.rest + b"\n")
            self.rest = b""
