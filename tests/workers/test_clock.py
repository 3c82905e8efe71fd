"""The clock: each tick once, whoever dies; and the sweep that it sets off. Real processes, a real queue, both databases."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from portal.runtime import ROOT
from tests.migrated import put_database
from tests.portal.postgres import postgres_url
from tests.shell import Shell
from tests.stack import Parts, wait_until

__all__ = ["postgres_url"]
pytestmark = pytest.mark.integration

CLOCK = """
import sys, time, django
django.setup()
from workers.clock import Clock, Period
clock = Clock({"one": Period("tests.one", 0.3), "two": Period("tests.two", 0.7)})
clock.start()
print("ticking", flush=True)
sys.stdin.read()
clock.stop()
"""


_NO_CLUSTER = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {token: none}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A database with its tables, and a queue. No other process runs; the cluster does not answer."""
    folder = tmp_path_factory.mktemp("clock")
    more = {"DATABASE_URL": str(request.getfixturevalue("postgres_url"))} if request.param == "postgresql" else {}
    (folder / "kubeconfig").write_text(_NO_CLUSTER)
    stack = Installation(folder / "var", SWEEP_SECONDS="2", KUBECONFIG=str(folder / "kubeconfig"), **more)
    stack.var.mkdir()
    if not more:
        put_database(stack.var / "atelier.sqlite3")
    if more:  # the PostgreSQL of the session may have been used by other tests
        stack.run("from django.db import connection as c\nc.cursor().execute('DROP SCHEMA public CASCADE; CREATE SCHEMA public')")
    try:
        stack.start_part("redis")
        stack.run(SETUP)
        yield stack
    finally:
        stack.shell.end()
        stack.stop()


SETUP = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
from portal.catalogue.loader import load
from portal.domain.models import Team, User
load()
User.objects.create(username="alice")
Team.objects.create(slug="vision", name="Vision")
"""


@pytest.fixture
def stack(installation: Installation) -> Iterator[Installation]:
    """The same without environments, ticks and messages, and with nothing but the queue running."""
    settings = dict(installation.settings)
    installation.run("from portal.domain.models import *\nEnvironment.objects.all().delete()\nTick.objects.all().delete()")
    Queue(installation).redis.flushall()
    yield installation
    for name in [name for name in installation.parts if name != "redis"]:
        installation.kill_part(name)
    installation.settings = settings


class Installation(Parts):
    """Parts, and a process beside them that runs pieces of Python in their settings."""

    def __init__(self, var: Path, **settings: str) -> None:
        super().__init__(var, **settings)
        self.shell = Shell()

    def run(self, code: str) -> str:
        """What a piece of Python printed."""
        return self.shell.run(code, self.env)


class Queue:
    """The messages that wait."""

    def __init__(self, stack: Installation) -> None:
        from portal.runtime import secret, socket_path

        self.redis = redis.Redis(unix_socket_path=str(socket_path(stack.var, "redis.sock")), password=secret(stack.var, "redis_password"))

    def answers(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.RedisError:
            return False

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.redis.lrange("celery", 0, -1)]

    def ids(self, task: str) -> list[str]:
        return [message["headers"]["id"] for message in self.messages() if message["headers"]["task"] == task]

    def arguments(self, task: str) -> list[str]:
        bodies = [json.loads(base64.b64decode(message["body"])) for message in self.messages() if message["headers"]["task"] == task]
        return [body[0][0] for body in bodies]


def clock(stack: Installation) -> subprocess.Popen[bytes]:
    env = {**stack.env, "DJANGO_SETTINGS_MODULE": "portal.settings"}
    process = subprocess.Popen([sys.executable, "-c", CLOCK], cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ticking\n"
    return process


def test_each_tick_is_sent_once_and_goes_on_when_a_clock_is_killed(stack: Installation) -> None:
    queue = Queue(stack)
    clocks = [clock(stack) for _ in range(3)]
    try:
        wait_until(lambda: len(queue.ids("tests.one")) > 15 and len(queue.ids("tests.two")) > 6, "ticks")
        for process in clocks[:2]:
            process.kill()
        before = len(queue.ids("tests.one"))
        wait_until(lambda: len(queue.ids("tests.one")) > before + 10, "ticks of the one that is left")
    finally:
        for process in clocks:
            process.kill()
            process.wait()
    for task in ("tests.one", "tests.two"):
        ids = queue.ids(task)
        assert len(ids) == len(set(ids)), "a tick was sent twice"
    assert all(message["headers"]["expires"] for message in queue.messages() if message["headers"]["task"].startswith("tests."))


def test_time_goes_on_when_database_and_queue_were_away(stack: Installation) -> None:
    queue = Queue(stack)
    process = clock(stack)
    try:
        wait_until(lambda: len(queue.ids("tests.one")) > 2, "ticks")
        stack.kill_part("redis")
        if "DATABASE_URL" not in stack.settings:  # the shared PostgreSQL stays up
            database = stack.var / "atelier.sqlite3"
            database.rename(stack.var / "away")
            wait_until(lambda: database.exists(), "the clock to look for its database")  # SQLite makes an empty one
            database.unlink()
            (stack.var / "away").rename(database)
        stack.start_part("redis")
        wait_until(queue.answers, "the queue")
        before = set(queue.ids("tests.one"))
        wait_until(lambda: len(set(queue.ids("tests.one")) - before) > 3, "ticks again")
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


MAKE = """
from datetime import timedelta
from django.utils import timezone
from portal.domain.models import Team, User
from tests.workers.many import many_environments
rows = many_environments({count}, owner=User.objects.get(username="alice"), team=Team.objects.get(slug="vision"), states=({states}), due={due})
for row in rows: print(row.pk)
"""


def make(stack: Installation, count: int, states: str = "'queued'", due: str = "None") -> list[str]:
    return stack.run(MAKE.format(count=count, states=states + ",", due=due)).split()


LEFT = """
import time
from portal.domain.models import Environment
deadline = time.monotonic() + 120
while Environment.objects.filter(state="requested").exists():
    assert time.monotonic() < deadline, list(Environment.objects.values("state", "reason", "next_check_at", "lease_holder"))
    time.sleep(0.1)
"""


def none_left(stack: Installation) -> None:
    """Wait until each was looked at by a worker."""
    stack.run(LEFT)


def test_a_worker_ticks_by_itself_and_finds_what_lost_its_message(stack: Installation) -> None:
    queue = Queue(stack)
    made = make(stack, 12, states="'requested'")
    stack.run("from workers.tasks import sweep\nsweep()")
    assert sorted(queue.arguments("workers.converge")) == sorted(made)
    queue.redis.flushall()
    assert queue.messages() == []
    stack.start_part("worker")  # there is no cluster: they get as far as the queue
    none_left(stack)


TICKED = """
import time
from portal.domain.models import Tick
def due():
    return Tick.objects.filter(name="sweep").values_list("due_at", flat=True).first()
before, deadline = due(), time.monotonic() + 120
while due() == before:
    assert time.monotonic() < deadline
    time.sleep(0.1)
"""


def test_a_worker_whose_child_was_killed_goes_on_ticking_and_working(stack: Installation) -> None:
    stack.start_part("worker")
    stack.run(TICKED)
    for _ in range(3):
        children = [child for child in psutil.Process(stack.parts["worker"].pid).children() if child.status() != psutil.STATUS_ZOMBIE]
        children[0].kill()
        stack.run(TICKED)
    make(stack, 3, states="'requested'")
    none_left(stack)


def test_a_worker_that_is_told_to_stop_while_its_pool_comes_up_ends(stack: Installation) -> None:
    """A new process of the pool connects to the cluster. A silent one, which is given up after half a minute, must not keep the worker."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        kubeconfig = stack.var / "silent"
        kubeconfig.write_text(_NO_CLUSTER.replace("127.0.0.1:9", f"127.0.0.1:{silent.getsockname()[1]}"))
        stack.settings = {**stack.settings, "KUBECONFIG": str(kubeconfig)}
        out = stack.var / "worker.out"
        before = out.stat().st_size if out.exists() else 0
        stack.start_part("worker")
        worker = stack.parts["worker"]
        wait_until(lambda: b" ready." in out.read_bytes()[before:], "the worker", 240)
        children = psutil.Process(worker.pid).children()
        assert children, "it has a pool"
        worker.terminate()
        wait_until(lambda: worker.poll() is not None, "the worker to end", 25)
        wait_until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), "its pool to end")


CLAIM = """
import json, threading
from django.db import connections
from portal.domain import services
from portal.domain.models import Environment
place = {str(pk): n for n, pk in enumerate(Environment.objects.order_by("next_check_at").values_list("pk", flat=True))}
claims, lock = [], threading.Lock()
def claim():
    while keys := services.environments_claim(40):
        with lock:
            claims.append([place[str(key)] for key in keys])
    connections.close_all()
threads = [threading.Thread(target=claim) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(claims))
"""


def test_sweeps_at_the_same_time_claim_different_ones_the_most_overdue_first(stack: Installation) -> None:
    stack.settings["SWEEP_SECONDS"] = "600"  # claims must not come due again meanwhile
    make(stack, 600, states="'queued', 'stopped', 'deleted'")
    claims = json.loads(stack.run(CLAIM))
    claimed = [place for claim in claims for place in claim]
    assert sorted(claimed) == [place for place in range(600) if place % 3 != 2], "each live one once, no deleted one"
    assert all(claim == sorted(claim) for claim in claims)
    assert len(claims) >= 10


SWEEPS = """
import base64, json, redis
from django.conf import settings
from workers.tasks import sweep
queue = redis.Redis(unix_socket_path=str(settings.REDIS_SOCKET), password=settings.REDIS_PASSWORD)
def sweeps(count):
    for _ in range(count): sweep()
    found = [json.loads(base64.b64decode(json.loads(raw)["body"]))[0][0] for raw in queue.lrange("celery", 0, -1)]
    queue.delete("celery")  # as workers would that keep up
    return found
print(json.dumps([sweeps(8), *(sweeps(4) for _ in range(8))]))
"""


def test_the_queue_is_bounded_and_nobody_starves(stack: Installation) -> None:
    made = make(stack, 900)
    first, *later = json.loads(stack.run(SWEEPS))
    assert len(first) == 400
    assert len(set(first)) == 400, "nobody is in it twice while others were not asked yet"
    assert {key for found in (first, *later) for key in found} == set(made)
