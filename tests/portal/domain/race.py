"""A process that competes with others for the same rows: `python -m tests.portal.domain.race MODE THREADS GO_FILE`.

Prints one word per thread. MODE: setup, request, storm, report.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

from portal.celery import app  # noqa: E402
from portal.domain import services  # noqa: E402
from portal.domain.errors import Conflict, QuotaExceeded  # noqa: E402
from portal.domain.models import Environment, Quota, Team, User  # noqa: E402
from tests.portal.world import make_world  # noqa: E402

FIT = 5
# Nobody listens here, and waiting for a Redis that is not there would only make the competitors polite.
app.conf.broker_url = "memory://"
settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def setup() -> None:
    call_command("migrate", verbosity=0)
    world = make_world()
    world.limit("cpu", FIT * 1000)
    print("ready")


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


def report() -> None:
    team = Team.objects.get(slug="vision")
    row = Quota.objects.get(team=team, user=None, resource="cpu")
    held = sum(reserved.get("cpu", 0) for reserved in Environment.objects.values_list("reserved", flat=True))
    print(f"used={row.used} held={held} drifts={len(services.quota_recompute())}")


def main(mode: str, threads: int, go: Path) -> None:
    words: list[str] = [""] * threads

    def compete(index: int) -> None:
        name = f"p{os.getpid()}-{index}"
        while not go.exists():
            time.sleep(0.005)
        try:
            words[index] = {"request": request, "storm": storm}[mode](name)
        except Exception as error:
            traceback.print_exc()
            words[index] = type(error).__name__
        finally:
            connection.close()

    workers = [threading.Thread(target=compete, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    print("waiting", flush=True)
    for worker in workers:
        worker.join()
    print(" ".join(words), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "setup":
        setup()
    elif sys.argv[1] == "report":
        report()
    else:
        main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
