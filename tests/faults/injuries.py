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
MOST = 8  # while people ask; one more follows when everything is asked for
QUIET_SECONDS = 2.0  # a process that was killed is let alone until it has come up again, and for so long after that


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
        return Injury(what, rng.uniform(0.3, 3.0), rng.uniform(0.0, 1.5) if what in VICTIMS else rng.uniform(1.0, 4.0))

    return following


class Injuries(threading.Thread):
    """Goes on until `finish`, which does one more. `last` is when the last one ended: a process was killed, a fault happened for the last time."""

    def __init__(
        self, installation: Installation, seed: int, kinds: tuple[str, ...], tell: Callable[[str], None], *, stall: float = STALL_SECONDS, most: int = MOST
    ) -> None:
        super().__init__(name="injuries", daemon=True)
        self.installation, self.tell, self.kinds, self.stall, self.most = installation, tell, kinds, stall, most
        self.last = time.monotonic()
        self.done: list[str] = []
        self._up: dict[str, float] = {}  # part -> since when it is known to be up
        self._rng = random.Random(f"injuries {seed}")
        self._next = injuries(random.Random(f"which {seed}"), kinds)
        self._ending = threading.Event()

    def run(self) -> None:
        self._up = dict.fromkeys(self.installation.NAMES, 0.0)
        if "treble" in self.kinds:
            self.installation.relay.treble(True)
        over = done = False
        while not (over and done):
            injury = self._next()
            over = self._ending.wait(injury.gap if len(self.done) < self.most else None)
            try:
                done = self._act(injury)
            except Exception as error:  # told in the log; the others go on
                self.tell(f"!! {injury.what} could not be done: {type(error).__name__}: {error}")
            if over and not done:
                time.sleep(0.3)
        if "treble" in self.kinds:
            self.installation.relay.treble(False)
            self.last = time.monotonic()

    def finish(self) -> None:
        """One more, at once; returns when it is over."""
        self._ending.set()
        self.join()

    def _act(self, injury: Injury) -> bool:
        """False when it was not the moment: what is to be killed is not up."""
        what, now = injury.what, time.monotonic()
        part = what.partition("-")[0]
        if what in VICTIMS and not self._may_kill(part, now):
            return False
        self.tell(f"** {what}")
        self.done.append(what)
        if what in VICTIMS:
            self.installation.kill(what, injury.seconds, self._rng)
            self.last = now
            self._up.pop(part, None)
        elif what == "flush":
            try:
                with self.installation.relay.client() as client:
                    client.flushall()
            except redis.RedisError as error:
                self.tell(f"   not flushed: {type(error).__name__}")
            self.last = time.monotonic()
        else:
            self._proxy(Kind(what), injury.seconds)
        return True

    def _may_kill(self, part: str, now: float) -> bool:
        for name in self.installation.NAMES:
            if name not in self._up and self.installation.works(name):
                self._up[name] = now
        return part in self._up and (now - self._up[part] >= QUIET_SECONDS or self._ending.is_set())

    def _proxy(self, kind: Kind, seconds: float) -> None:
        """A fault for some seconds. Who is stalled stays so for its time; while that lasts, others go on being hurt."""
        proxy = self.installation.proxy
        fault = proxy.inject(_fault(kind, self.stall))
        self._ending.wait(seconds)
        proxy.cease(fault)
        self.last = time.monotonic()
        if kind is Kind.STALL and self._ending.is_set():
            while proxy.held:
                time.sleep(0.1)
            self.last = time.monotonic()


def _fault(kind: Kind, stall: float) -> Fault:
    match kind:
        case Kind.GONE:
            return Fault(kind)
        case Kind.THROTTLED:
            return Fault(kind, share=0.5, seconds=1, match=_not_a_watch)
        case Kind.STALL:
            return Fault(kind, share=0.2, seconds=stall)
        case Kind.STALE:
            return Fault(kind, seconds=20)
        case Kind.DROP:
            return Fault(kind)
    return Fault(kind, share=0.4)


def _not_a_watch(asked: Asked) -> bool:
    return not asked.watch
