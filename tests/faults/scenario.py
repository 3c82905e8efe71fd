"""One seed: people work, things are killed and hurt, and then everything has to come to rest as it was asked for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.stack import wait_until

from .injuries import Injuries, kinds_of
from .installation import Installation
from .truth import differences
from .users import Person, Wish, wishes

WORK_SECONDS = 240.0  # for everything that people ask for to be accepted
STAYS_SECONDS = 1.5  # what has converged is looked at again


@dataclass
class Row:
    """A line of the table. `seconds` from the last fault, or the last wish if that came later, until everything was as it should be;
    `up` until every process worked again, which is how long it takes to start."""

    seed: int
    kinds: tuple[str, ...]
    injuries: list[str] = field(default_factory=list)
    asked: int = 0
    seconds: float | None = None
    up: float | None = None
    cleanup: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems and self.seconds is not None

    def line(self) -> str:
        counts = " ".join(f"{what}{f'x{count}' if (count := self.injuries.count(what)) > 1 else ''}" for what in dict.fromkeys(self.injuries))
        up, seconds = ("  never" if value is None else f"{value:7.1f}" for value in (self.up, self.seconds))
        return f"{self.seed:5} {len(self.injuries):7} {self.asked:5} {up} {seconds}  {'ok' if self.good else 'FAILED':7} {counts}"


HEAD = f"{'seed':>5} {'faults':>7} {'asked':>5} {'up':>7} {'seconds':>7}  {'verdict':7} what was done"


class Story:
    """What happened when, to be read when a seed fails."""

    def __init__(self, path: Path, echo: Callable[[str], None] | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._echo, self._began = path.open("w"), echo, time.monotonic()

    def tell(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {time.monotonic() - self._began:7.2f}  {text}"
        self._file.write(line + "\n")
        self._file.flush()
        if self._echo:
            self._echo(line)


def play(
    installation: Installation,
    seed: int,
    *,
    limit: float,
    kinds: tuple[str, ...] | None = None,
    brief: bool = False,
    echo: Callable[[str], None] | None = None,
) -> Row:
    """Play one seed. `limit`: seconds to converge, after which it has failed. `brief`: fewer environments and faults, shorter stalls."""
    rng = random.Random(seed)
    row = Row(seed, kinds or kinds_of(seed))
    story = Story(installation.var / "seeds" / f"{seed}.log", echo)
    installation.tell = story.tell
    wanted = wishes(rng, seed, brief=brief)
    people = [Person(wish, installation, random.Random(f"{seed} {wish.name}"), story.tell) for wish in wanted]
    less: dict[str, Any] = {"stall": 5.0, "most": 3} if brief else {}
    injuries = Injuries(installation, seed, row.kinds, story.tell, **less)
    for thread in (*people, injuries):
        thread.start()
    end = time.monotonic() + WORK_SECONDS
    for person in people:
        person.join(max(0.0, end - time.monotonic()))
        if person.is_alive():
            row.problems.append(f"{person.name}: not everything was accepted within {WORK_SECONDS:.0f} s")
    asked = time.monotonic()
    injuries.finish()
    since = max(asked, injuries.last)
    story.tell("-- the last fault is over")
    row.injuries, row.asked = injuries.done, sum(wish.asked for wish in wanted)
    row.problems += [problem for wish in wanted for problem in wish.problems]
    wanted = [wish for wish in wanted if wish.id]
    row.seconds = _converged(installation, wanted, since, limit, story, row)
    row.cleanup = _cleaned(installation, wanted, limit, story, row)
    for problem in row.problems:
        story.tell(f"!! {problem}")
    story.tell(row.line())
    return row


def _converged(installation: Installation, wanted: list[Wish], since: float, limit: float, story: Story, row: Row) -> float | None:
    last: list[str] = []
    first: float | None = None
    down = set(installation.NAMES)
    while time.monotonic() < since + limit:
        now = time.monotonic()
        if down:
            down -= {name for name in down if installation.works(name)}
            row.up = None if down else max(0.0, now - since)
        found = differences(installation, wanted)
        if found != last:
            story.tell("-- " + ("; ".join(found) or "all is as it should be"))
            last = found
        if found:
            first = None
        elif first is None:
            first = now
        elif now - first >= STAYS_SECONDS:
            return first - since
        time.sleep(0.3)
    row.problems += [f"not converged after {limit:.0f} s: {problem}" for problem in last or ["it did not stay so"]]
    return None


def _cleaned(installation: Installation, wanted: list[Wish], limit: float, story: Story, row: Row) -> float | None:
    """Delete everything with its volumes. Nothing may be left: no object, no claim, no server, no process."""
    began = time.monotonic()
    for wish in wanted:
        headers = {"Authorization": f"Bearer {installation.token(wish.user)}"}
        purge = {} if wish.wanted == "deleted" else {"purge": "true"}
        url = f"{installation.url}/api/v1/environments/{wish.id}"
        wait_until(lambda: _deleted(url, headers, purge), f"{wish.name} to be deleted")  # noqa: B023
        wish.wanted = "deleted"
    for user in {wish.user for wish in wanted}:  # volumes that people kept when they deleted a notebook
        headers = {"Authorization": f"Bearer {installation.token(user)}"}
        wait_until(lambda: _volumes_purged(f"{installation.url}/api/v1/volumes", headers), f"the kept volumes of {user} to go")  # noqa: B023
    last: list[str] = []
    while time.monotonic() < began + limit:
        last = differences(installation, wanted)
        if not last:
            last = [f"process of a pod: {process.pid} {' '.join(process.cmdline())[:120]}" for process in installation.pod_processes()]
        if not last:
            story.tell("-- nothing is left")
            return time.monotonic() - began
        time.sleep(0.3)
    row.problems += [f"left after {limit:.0f} s: {problem}" for problem in last]
    return None


def _volumes_purged(url: str, headers: dict[str, str]) -> bool:
    """Ask for every volume that is left to be purged; true when none is."""
    try:
        answer = httpx.get(url, headers=headers, timeout=10, trust_env=False)
        left = answer.json()["results"] if answer.is_success else [None]
        for volume in left:
            if volume and not volume["purge_requested_at"]:
                httpx.delete(f"{url}/{volume['id']}", headers=headers, timeout=10, trust_env=False)
    except httpx.HTTPError:
        return False
    return not left


def _deleted(url: str, headers: dict[str, str], params: dict[str, str]) -> bool:
    try:
        return httpx.delete(url, headers=headers, params=params, timeout=10, trust_env=False).is_success
    except httpx.HTTPError:
        return False
