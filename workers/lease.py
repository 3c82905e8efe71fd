"""The lease on one environment while a worker is at it: short, renewed by a thread, and asked before every step."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from types import TracebackType
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections

from portal.domain import services

logger = logging.getLogger(__name__)

# Short, so that the next sweep goes on where a killed worker was; long enough for three renewals on a busy machine.
SECONDS = 10.0
_RENEW_SECONDS = 3.0


class LeaseLost(Exception):
    """Another worker may be at it: do nothing more."""


def new_holder() -> str:
    """A name that no other try has, in this process or elsewhere."""
    return f"{socket.gethostname()[:50]}:{os.getpid()}:{secrets.token_hex(4)}"


class Lease:
    """Renewed while the `with` block runs; `check` before every effect. Taken at `since` (time.monotonic) or a little later."""

    def __init__(self, environment_id: UUID, holder: str, since: float, seconds: float) -> None:
        self.environment_id, self.holder, self.seconds = environment_id, holder, seconds
        self._until = since + seconds
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        """Raise LeaseLost unless the lease is held. By this process's own clock, which runs on when the process was stopped meanwhile."""
        if not self._lost and time.monotonic() >= self._until:
            self._renew()
        if self._lost:
            raise LeaseLost(f"the lease on {self.environment_id} went to another worker")

    def _renew(self) -> None:
        before = time.monotonic()
        if services.lease_renew(self.environment_id, self.holder, self.seconds):
            self._until = before + self.seconds
        else:
            self._lost = True

    def _keep(self) -> None:
        while not self._ended.wait(min(_RENEW_SECONDS, self.seconds / 3)):
            try:
                self._renew()
                if self._lost:
                    break
            except (OperationalError, InterfaceError) as error:
                # `check` asks again when it has run out; a database that is away keeps others from taking it too.
                logger.warning("lease not renewed: environment=%s error=%s", self.environment_id, type(error).__name__)
                connections.close_all()
        connections.close_all()  # this thread's own
