"""Processes that race for the same environments on the database in DATABASE_URL: `python -m tests.workers.racing KUBECONFIG FOLDER`.

First many hold one lease in turn, and one of them is killed with it. Then every message of a worker is delivered three times, in an
order of chance, to several workers at once. Prints what came of it as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

from k8s import names  # noqa: E402
from k8s.cluster import Cluster  # noqa: E402
from portal.celery import app  # noqa: E402
from portal.domain import services  # noqa: E402
from portal.domain.models import Environment, Event, Quota  # noqa: E402
from workers.converge import converge  # noqa: E402
from workers.hub import Hub  # noqa: E402
from workers.lease import Lease, LeaseLost, new_holder  # noqa: E402

from .conftest import make_world, only_runs  # noqa: E402

PROCESSES, TURNS = 4, 12
SLEEP = ["python", "-c", "import time; time.sleep(3600)"]
app.conf.broker_url = "memory://"
settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def forked(work: Callable[[int], list[str]], count: int) -> list[str]:
    """What `work` gave in each of `count` processes."""
    connections.close_all()  # a connection must not be shared by two processes
    pipes = []
    for number in range(count):
        reader, writer = os.pipe()
        if os.fork() == 0:
            words = ["crashed"]
            try:
                words = work(number)
            except BaseException:
                traceback.print_exc()
            finally:
                os.write(writer, " ".join(words).encode())
                os._exit(0)
        os.close(writer)
        pipes.append(reader)
    words: list[str] = []
    for reader in pipes:
        with os.fdopen(reader) as stream:
            words += stream.read().split()
        os.wait()
    return words


# --- the lease alone ------------------------------------------------------------


def contend(environment_id: str, mark: Path, seconds: float) -> list[str]:
    """Hold the lease some times; "double" when somebody else is inside too."""
    words: list[str] = []
    while len(words) < TURNS:
        holder, since = new_holder(), time.monotonic()
        if services.lease_take(environment_id, holder, seconds) is None:
            time.sleep(random.uniform(0.001, 0.02))
            continue
        with contextlib.suppress(LeaseLost), Lease(Environment(pk=environment_id).pk, holder, since, seconds) as lease:
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                words.append("double")
                continue
            # Longer than the lease, now and then: it has to be renewed.
            time.sleep(seconds * 1.5 if random.random() < 0.1 else 0.005)
            lease.check()
            mark.unlink()
            words.append("held")
        services.lease_release(environment_id, holder, 0)
    connections.close_all()
    return words


def killed_with_the_lease(environment_id: str, seconds: float) -> dict[str, Any]:
    """A holder is killed: nobody gets in before its lease ends, and somebody does soon after."""
    reader, writer = os.pipe()
    connections.close_all()
    child = os.fork()
    if child == 0:
        holder, since = new_holder(), time.monotonic()
        taken = services.lease_take(environment_id, holder, seconds)
        with Lease(Environment(pk=environment_id).pk, holder, since, seconds):
            os.write(writer, b"1" if taken else b"0")
            time.sleep(60)
    held = os.read(reader, 1) == b"1"
    renewed_past = time.monotonic() + seconds * 1.5
    early = 0
    while time.monotonic() < renewed_past:
        early += services.lease_take(environment_id, "other", seconds) is not None
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 60
    while services.lease_take(environment_id, "other", seconds) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    row = Environment.objects.get(pk=environment_id)
    services.lease_release(environment_id, "other", 0)
    return {"held": held, "early": early, "taken_over": row.lease_holder == "other"}


# --- every message three times ---------------------------------------------------


def deliver(cluster: Cluster, hub: Hub, keys: list[str]) -> list[str]:
    """Each message three times, in any order, to four threads."""
    messages = keys * 3
    random.shuffle(messages)
    lock, words = threading.Lock(), []

    def worker() -> None:
        try:
            while True:
                with lock:
                    if not messages:
                        return
                    key = messages.pop()
                done = converge(key, cluster=cluster, hub_client=hub)
                with lock:
                    words.append("done" if done else "refused")
        except Exception as error:
            traceback.print_exc()
            words.append(type(error).__name__)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return words


def until(cluster: Cluster, hub: Hub, keys: list[str], state: str) -> set[str]:
    words: set[str] = set()
    deadline = time.monotonic() + 150
    while set(Environment.objects.filter(pk__in=keys).values_list("state", flat=True)) != {state}:
        if time.monotonic() > deadline:
            return words | {"late"}
        words |= set(deliver(cluster, hub, keys))
    return words


def storm(kubeconfig: Path) -> dict[str, Any]:
    world = make_world()
    cluster, hub = Cluster(kubeconfig), Hub("http://127.0.0.1:9/hub/api", "none")
    keys = []
    for number in range(3):
        made = world.request(f"grid-{number}", params={"workers": 1})
        for role in made.template_spec["roles"]:
            only_runs(role, SLEEP)
        Environment.objects.filter(pk=made.pk).update(template_spec=made.template_spec)
        keys.append(str(made.pk))
    words = until(cluster, hub, keys, "running")
    pods = len(cluster.list_labelled("atelier-vision", {names.ROLE: "worker"}))
    for key in keys:
        services.environment_delete(actor=world.alice, environment_id=key)
    words |= until(cluster, hub, keys, "deleted")
    history = [list(Event.objects.filter(environment=key, kind="state").order_by("seq").values_list("to_state", flat=True)) for key in keys]
    left = [item for key in keys for item in cluster.list_labelled("atelier-vision", {names.ENVIRONMENT: key})]
    used = sum(Quota.objects.values_list("used", flat=True))
    return {"words": sorted(words), "worker_objects": pods, "history": history, "left": len(left), "used": used}


def main() -> None:
    kubeconfig, folder = Path(sys.argv[1]), Path(sys.argv[2])
    call_command("migrate", verbosity=0)
    result: dict[str, Any] = {"storm": storm(kubeconfig)}
    key = str(Environment.objects.order_by("created_at")[0].pk)
    Environment.objects.filter(pk=key).update(attempts=0, lease_until=None)
    words = forked(lambda _: contend(key, folder / "inside", 1.0), PROCESSES)
    result["contention"] = {word: words.count(word) for word in sorted(set(words))}
    result["killed"] = killed_with_the_lease(key, 1.0)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
