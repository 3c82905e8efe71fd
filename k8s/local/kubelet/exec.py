"""One command run in a container on behalf of a client, with its input and output as asyncio sees them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator
from typing import Any

from k8s.local.kubelet.process import Process, resolve, session, wait_child

_DRAIN = 0.5  # seconds for output that is still to come when the command has ended
_QUEUE = 64  # pieces of output that may wait for a slow client


_REAPING: set[asyncio.Task[int]] = set()  # killed, not yet waited for


class Execution:
    def __init__(self, process: Process, argv: list[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> None:
        self.process = process
        self.argv = argv
        self.tty = tty
        self.wants = (stdin, stdout, stderr)
        self._child: subprocess.Popen[bytes] | None = None
        self._readers: dict[int, int] = {}  # fd -> channel
        self._input = -1
        self._queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._paused: set[int] = set()

    def start(self) -> None:
        stdin, stdout, stderr = self.wants
        if self.tty:
            master, slave = pty.openpty()
            self._child = session(self.process, self.argv, tty=True, stdin=slave, stdout=slave, stderr=slave)
            os.close(slave)
            self._input = master if stdin else -1
            self._readers = {master: 1}
        else:
            given = subprocess.PIPE if stdin else subprocess.DEVNULL
            child = self._child = session(
                self.process,
                self.argv,
                tty=False,
                stdin=given,
                stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
                stderr=subprocess.PIPE if stderr else subprocess.DEVNULL,
            )
            for pipe, channel in ((child.stdout, 1), (child.stderr, 2)):
                if pipe is not None:
                    self._readers[os.dup(pipe.fileno())] = channel
                    pipe.close()
            if child.stdin is not None:
                self._input = os.dup(child.stdin.fileno())
                child.stdin.close()
        loop = asyncio.get_running_loop()
        for fd in {*self._readers, self._input} - {-1}:
            os.set_blocking(fd, False)
        for fd in self._readers:
            loop.add_reader(fd, self._readable, fd)

    def _readable(self, fd: int) -> None:
        try:
            data = os.read(fd, 32768)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal has no user left
            data = b""
        channel = self._readers[fd]
        if not data:
            asyncio.get_running_loop().remove_reader(fd)
            del self._readers[fd]
            if fd != self._input:
                os.close(fd)
        elif self._queue.qsize() > _QUEUE:
            asyncio.get_running_loop().remove_reader(fd)
            self._paused.add(fd)
        self._queue.put_nowait((channel, data))

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1 or 2, bytes) until the command has ended and its output is out."""
        ended: asyncio.Future[Any] = asyncio.ensure_future(self.wait())
        try:
            while self._readers or not self._queue.empty():
                get: asyncio.Future[Any] = asyncio.ensure_future(self._queue.get())
                timeout = _DRAIN if ended.done() else None
                await asyncio.wait([get] if ended.done() else [get, ended], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if not get.done():
                    get.cancel()
                    if timeout:  # something that the command left running keeps the pipe open
                        break
                    continue
                channel, data = get.result()
                if data:
                    yield channel, data
                if self._paused and self._queue.qsize() < _QUEUE // 2:
                    for fd in self._paused:
                        asyncio.get_running_loop().add_reader(fd, self._readable, fd)
                    self._paused.clear()
            await ended
        finally:
            ended.cancel()

    async def write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        while data and self._input >= 0:
            try:
                data = data[os.write(self._input, data) :]
            except BlockingIOError:
                ready: asyncio.Future[None] = loop.create_future()
                fd = self._input
                loop.add_writer(fd, resolve, ready)
                try:
                    await ready
                finally:
                    loop.remove_writer(fd)
            except OSError:  # the command reads no more
                self.end_input()

    def end_input(self) -> None:
        if self._input < 0:
            return
        if self.tty:
            with contextlib.suppress(OSError):
                os.write(self._input, b"\x04")
        else:
            os.close(self._input)
            self._input = -1

    def resize(self, width: int, height: int) -> None:
        if self.tty:
            for fd in self._readers:
                with contextlib.suppress(OSError, struct.error):
                    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def wait(self) -> int:
        return await wait_child(self._child) if self._child is not None else 0

    def close(self) -> None:
        """Ends the command if it still runs, and gives everything back."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
            reaped = asyncio.get_running_loop().create_task(wait_child(self._child))
            _REAPING.add(reaped)
            reaped.add_done_callback(_REAPING.discard)
        for fd in {*self._readers, self._input} - {-1}:
            asyncio.get_running_loop().remove_reader(fd)
            with contextlib.suppress(OSError):
                os.close(fd)
        self._readers, self._input = {}, -1
