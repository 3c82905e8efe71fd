"""Processes and threads that compete for the same rows of the database in DATABASE_URL: `python -m tests.portal.domain.race`.

Prints, as JSON, what each thread of two competitions ended with, and the books after each.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Callable

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

from portal.celery import app  # noqa: E402
from portal.domain import services  # noqa: E402
from portal.domain.errors import Conflict, QuotaExceeded  # noqa: E402
from portal.domain.models import Environment, Quota, User  # noqa: E402
from tests.portal.world import make_world  # noqa: E402

PROCESSES, THREADS, FIT = 2, 8, 5
# Nobody listens here, and waiting for a Redis that is not there would only make the competitors polite.
app.conf.broker_url = "memory://"
settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def setup() -> None:
    call_command("migrate", verbosity=0)
    world = make_world()
    world.limit("cpu", FIT * 1000)


def request(name: str) -> str:
    try:
        services.environment_request(actor=User.objects.get(username="alice"), name=name, template="notebook", flavor="cpu-small", team="vision")
    except QuotaExceeded:
        return "exceeded"
    return "made"


def storm(name: str) -> str:
    """Request, stop, start and delete one's own environments beside others who do the same, and let everybody's oldest one fail."""
    alice = User.objects.get(username="alice")
    oldest = Environment.objects.filter(name__startswith="p").order_by("created_at")[0].pk
    word = "won" if services.environment_move(oldest, "failed") else "late"
    for turn in range(3):
        try:
            environment = services.environment_request(actor=alice, name=f"{name}-{turn}", template="notebook", flavor="cpu-small", team="vision")
        except QuotaExceeded:
            continue
        services.environment_stop(actor=alice, environment_id=environment.pk)
        for state in ("stopping", "stopped"):
            services.environment_move(environment.pk, state)
        try:
            services.environment_start(actor=alice, environment_id=environment.pk)
        except (QuotaExceeded, Conflict):
            pass
        services.environment_delete(actor=alice, environment_id=environment.pk, purge=True)
        services.environment_move(environment.pk, "deleting")
        if turn % 2:
            services.environment_move(environment.pk, "deleted")
    return word


def report() -> dict[str, int]:
    row = Quota.objects.get(team__slug="vision", user=None, resource="cpu")
    held = sum(reserved.get("cpu", 0) for reserved in Environment.objects.values_list("reserved", flat=True))
    return {"used": row.used, "held": held, "drifts": len(services.quota_recompute())}


def compete(verb: Callable[[str], str]) -> list[str]:
    """Fork, start the threads of each process, let all loose together, and collect every thread's word."""
    connections.close_all()  # a connection must not be shared by two processes
    gate, opened = os.pipe()
    pipes = []
    for process in range(PROCESSES):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(opened)
            os.write(writer, " ".join(_threads(verb, process, gate)).encode())
            os._exit(0)
        os.close(writer)
        pipes.append(reader)
    os.close(opened)  # the gate is open: every reader sees the end of the pipe
    words: list[str] = []
    for reader in pipes:
        with os.fdopen(reader) as stream:
            words += stream.read().split()
        os.wait()
    os.close(gate)
    return sorted(words)


def _threads(verb: Callable[[str], str], process: int, gate: int) -> list[str]:
    words = [""] * THREADS
    barrier = threading.Barrier(THREADS)

    def run(index: int) -> None:
        try:
            if barrier.wait() == 0:
                os.read(gate, 1)
            barrier.wait()
            words[index] = verb(f"p{process}-{index}")
        except Exception as error:
            traceback.print_exc()
            words[index] = type(error).__name__
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return words


if __name__ == "__main__":
    setup()
    print(json.dumps([compete(request), report(), compete(storm), report()]))
