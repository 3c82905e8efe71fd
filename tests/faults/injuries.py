"""What is done to an installation while people work on it, chosen by seed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from tests.faultproxy import Asked, Fault, Kind

from .installation import VICTIMS, Installation

KINDS = ("kill", "flush", "treble", "proxy")
STALL_SECONDS = 30.0
QUIET_SECONDS = 10.0  # so long after it was killed a process is let alone: it has to come up to be worth killing


@dataclass(frozen=True)
class Injury:
    """`what`: a victim of SIGKILL, "flush", or a kind of the proxy's faults; after `gap` seconds; lasting `seconds` or away for so long."""

    what: str
    gap: float
    seconds: float


def kinds_of(seed: int) -> tuple[str, ...]:
    """Every seed kills; three in four do something else as well."""
    return (("kill",), ("kill", "proxy"), ("kill", "flush"), ("kill", "treble"))[seed % 4]


def injuries(rng: random.Random, kinds: tuple[str, ...]) -> Callable[[], Injury]:
    """An endless row of them."""
    others = [*(["flush"] * 3 if "flush" in kinds else []), *(list(Kind) if "proxy" in kinds else [])]

    def following() -> Injury:
        what = str(rng.choice(others)) if others and rng.random() < 0.5 else rng.choice(VICTIMS)
        return Injury(what, rng.uniform(0.5, 5.0), rng.uniform(0.0, 1.5) if what in VICTIMS else rng.uniform(1.0, 4.0))

    return following


class Injuries(threading.Thread):
    """Goes on until `finish`, which does one more. `last` is when the last one ended: a process was killed, a fault happened for the last time."""

    def __init__(self, installation: Installation, seed: int, kinds: tuple[str, ...], tell: Callable[[str], None]) -> None:
        super().__init__(name="injuries", daemon=True)
        self.installation, self.tell, self.kinds = installation, tell, kinds
        self.last = time.monotonic()
        self.done: list[str] = []
        self._killed: dict[str, float] = {}
        self._rng = random.Random(f"injuries {seed}")
        self._next = injuries(random.Random(f"which {seed}"), kinds)
        self._ending = threading.Event()

    def run(self) -> None:
        if "treble" in self.kinds:
            self.installation.relay.treble(True)
        while not self._ending.is_set():
            injury = self._next()
            self._ending.wait(injury.gap)
            try:
                self._act(injury)
            except Exception as error:  # told in the log; the others go on
                self.tell(f"!! {injury.what} could not be done: {type(error).__name__}: {error}")
        if "treble" in self.kinds:
            self.installation.relay.treble(False)
            self.last = time.monotonic()

    def finish(self) -> None:
        """One more, at once; returns when it is over."""
        self._ending.set()
        self.join()

    def _act(self, injury: Injury) -> None:
        what, now = injury.what, time.monotonic()
        part = what.partition("-")[0]
        if what in VICTIMS and now - self._killed.get(part, -QUIET_SECONDS) < QUIET_SECONDS:
            return
        self.tell(f"** {what}")
        self.done.append(what)
        if what in VICTIMS:
            self.installation.kill(what, injury.seconds, self._rng)
            self.last = self._killed[part] = now
        elif what == "flush":
            try:
                with self.installation.relay.client() as client:
                    client.flushall()
            except redis.RedisError as error:
                self.tell(f"   not flushed: {type(error).__name__}")
            self.last = time.monotonic()
        else:
            self._proxy(Kind(what), injury.seconds)

    def _proxy(self, kind: Kind, seconds: float) -> None:
        """A fault for some seconds. Who is stalled stays so for 30 s; while that lasts, others go on being hurt."""
        proxy = self.installation.proxy
        fault = proxy.inject(_fault(kind))
        self._ending.wait(seconds)
        proxy.cease(fault)
        self.last = time.monotonic()
        if kind is Kind.STALL and self._ending.is_set():
            while proxy.held:
                time.sleep(0.1)
            self.last = time.monotonic()


def _fault(kind: Kind) -> Fault:
    match kind:
        case Kind.GONE:
            return Fault(kind)
        case Kind.THROTTLED:
            return Fault(kind, share=0.5, seconds=1, match=_not_a_watch)
        case Kind.STALL:
            return Fault(kind, share=0.2, seconds=STALL_SECONDS)
        case Kind.STALE:
            return Fault(kind, seconds=20)
        case Kind.DROP:
            return Fault(kind)
    return Fault(kind, share=0.4)


def _not_a_watch(asked: Asked) -> bool:
    return not asked.watch
