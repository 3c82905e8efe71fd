"""People at work, as programs: each asks through the REST API for one environment and what follows, and tries again as a real client would."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from .installation import Installation

PATIENCE = 120.0  # seconds for one wish to be accepted


@dataclass
class Act:
    """Something to ask for, `after` so many seconds; or, with `until`, earlier: as soon as it runs."""

    verb: str  # request, scale, stop, start, delete
    after: float
    until: bool = False
    workers: int = 0


@dataclass
class Wish:
    """One environment: what is to be done with it, and what its owner wants in the end."""

    user: str
    team: str
    name: str
    template: str
    workers: int
    acts: list[Act]
    id: str = ""
    wanted: str = ""  # running, stopped, deleted
    problems: list[str] = field(default_factory=list)
    asked: int = 0


def wishes(rng: random.Random, seed: int, *, brief: bool = False) -> list[Wish]:
    """The same for the same seed."""
    made = [_wish(rng, "alice", "vision", f"s{seed}-desk", "desk")]
    for number in range(1 if brief else rng.randint(2, 3)):
        user, team = rng.choice([("alice", "vision"), ("bob", "speech")])
        made.append(_wish(rng, user, team, f"s{seed}-crew-{number}", "crew"))
    return made


def _wish(rng: random.Random, user: str, team: str, name: str, template: str) -> Wish:
    acts = [Act("request", rng.uniform(0, 2))]
    state, workers = "running", rng.randint(1, 3)
    wish = Wish(user=user, team=team, name=name, template=template, workers=workers, acts=acts)
    for _ in range(rng.randint(1, 4)):
        choices = {"running": ["stop", "stop", "delete"] + ["scale"] * 4 * (template == "crew"), "stopped": ["start"] * 5 + ["delete"]}
        verb = rng.choice(choices[state])
        after, until = rng.choice([(rng.uniform(0, 2), False), (rng.uniform(0, 4), False), (20.0, True)])
        acts.append(Act(verb, after, until and state == "running", rng.randint(1, 4) if verb == "scale" else 0))
        state = {"stop": "stopped", "start": "running", "delete": "deleted"}.get(verb, state)
        if state == "deleted":
            break
    return wish


class Person(threading.Thread):
    """Goes through the acts of a wish. What it is told that no client should be told is a problem."""

    def __init__(self, wish: Wish, installation: Installation, rng: random.Random, tell: Callable[[str], None]) -> None:
        super().__init__(name=wish.name, daemon=True)
        self.wish, self.rng, self.tell = wish, rng, tell
        headers = {"Authorization": f"Bearer {installation.token(wish.user)}"}
        self.http = httpx.Client(base_url=installation.url + "/api/v1", headers=headers, timeout=15, trust_env=False)

    def run(self) -> None:
        try:
            for act in self.wish.acts:
                self._wait(act)
                self._do(act)
        except Exception as error:  # told in the table
            self.wish.problems.append(f"{self.wish.name}: {type(error).__name__}: {error}")
        finally:
            self.http.close()

    def _wait(self, act: Act) -> None:
        end = time.monotonic() + act.after
        while time.monotonic() < end:
            if act.until and self._state() == "running":
                return
            time.sleep(min(0.3, max(0.0, end - time.monotonic())))

    def _state(self) -> str:
        try:
            return self.http.get(f"/environments/{self.wish.id}").json()["state"]
        except (httpx.HTTPError, ValueError, KeyError):
            return ""

    def _do(self, act: Act) -> None:
        """Ask until it is accepted. A 409 says that it cannot be now (it is still being stopped, say): asked anew a little later."""
        wish, deadline = self.wish, time.monotonic() + PATIENCE
        while True:
            answer = self._ask(*self._request(act))
            if answer.is_success:
                break
            if answer.status_code != 409 or time.monotonic() > deadline:
                msg = f"{act.verb} was answered {answer.status_code}: {answer.text[:300]}"
                raise AssertionError(msg)
            time.sleep(0.3)
        wish.asked += 1
        if act.verb == "request":
            wish.id = answer.json()["id"]
        if act.verb == "scale":
            wish.workers = act.workers
        wish.wanted = {"stop": "stopped", "delete": "deleted"}.get(act.verb, "running")
        self.tell(f"{wish.name}: {act.verb}{f' to {act.workers}' if act.workers else ''}, was {answer.json()['state']}")

    def _request(self, act: Act) -> tuple[str, str, dict[str, Any] | None]:
        wish = self.wish
        match act.verb:
            case "request":
                params = {"workers": wish.workers} if wish.template == "crew" else {}
                return "POST", "/environments", {"name": wish.name, "template": wish.template, "flavor": "cpu-small", "team": wish.team, "params": params}
            case "scale":
                return "PATCH", f"/environments/{wish.id}", {"workers": act.workers}
            case "delete":
                return "DELETE", f"/environments/{wish.id}", None
        return "POST", f"/environments/{wish.id}/{act.verb}", None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        """The answer. The same request, with the same key, is repeated for as long as there is none."""
        # now and then a client that hangs up at once: whether its request was done it cannot know
        patience = self.rng.choice([15.0, 15.0, self.rng.uniform(0.02, 0.4)])
        told, key, deadline = False, str(uuid.UUID(int=self.rng.getrandbits(128))), time.monotonic() + PATIENCE
        while True:
            try:
                answer = self.http.request(method, path, json=body, headers={"Idempotency-Key": key} if method == "POST" else {}, timeout=patience)
                if answer.status_code < 500:
                    return answer
                self.wish.problems.append(f"{self.wish.name}: {method} {path} was answered {answer.status_code}: {answer.text[:200]}")
            except httpx.HTTPError as error:
                if not told:
                    self.tell(f"{self.wish.name}: {method} got no answer ({type(error).__name__}), asked again")
                told = True
            patience = 15.0
            assert time.monotonic() < deadline, f"{method} {path} was not answered for {PATIENCE:.0f} s"
            time.sleep(0.3)
