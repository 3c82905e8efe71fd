"""One look at the queue with 200 waiting, 400 running and 100 nodes; and the admission of a single request on an idle cluster.

`python -m tests.bench.queue` prints the seconds of each pass on the database in DATABASE_URL, as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from portal.runtime import ROOT

from .common import Row, timed

NODES, RUNNING, WAITING, PAST = 100, 400, 200, 2000
GPU = "nvidia.com/gpu"


def measure(folder: Path, runs: int) -> list[Row]:
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"DATABASE_URL": f"sqlite:///{folder / 'bench.sqlite3'}", "VAR_DIR": str(folder / "var"), "BENCH_RUNS": str(runs)}
    done = subprocess.run([sys.executable, "-m", "tests.bench.queue"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, list[tuple[float, float]]] = json.loads(done.stdout.splitlines()[-1])
    goals = {"again": "< 1 s", "change": "< 1 s"}
    what = {
        "idle": "queue: one request, idle cluster",
        "first": f"queue: {WAITING} waiting told for the first time",
        "again": "queue: nothing new",
        "change": "queue: ten ended, all move up",
    }
    rows = []
    for key, title in what.items():
        rows.append(Row(what=title, ours=[wall for wall, _ in found[key]], goal=goals.get(key, "")))
        rows.append(Row(what="  the same, processor time", ours=[cpu for _, cpu in found[key]]))
    return rows


def _both(act: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that passed, and seconds of a processor."""
    began = time.process_time()
    return timed(act), time.process_time() - began


def _fill() -> None:
    """Rows as a busy installation has them."""
    from django.utils import timezone

    from portal.domain import services
    from portal.domain.models import Environment, Flavor, Team, Template, Usage, User

    now = timezone.now()
    dask, notebook = Template.objects.get(slug="dask"), Template.objects.get(slug="notebook")
    a100, a100x2, small = (Flavor.objects.select_related("accelerator").get(slug=slug) for slug in ("a100-1", "a100-2", "cpu-small"))
    teams, owner = list(Team.objects.all()), User.objects.get(username="alice")

    def row(number: int, **more: Any) -> Environment:
        cluster = number % 3 == 0
        template = dask if cluster else notebook
        flavor = (a100, a100x2, a100, small)[number % 4]
        count = 4 if cluster else 1
        values = {
            "name": f"e{number}",
            "kind": template.kind,
            "team": teams[number % len(teams)],
            "owner": owner,
            "template": template,
            "template_version": 1,
            "template_spec": template.spec,
            "flavor": flavor,
            "params": {"workers": 4} if cluster else {},
            "workers": 4 if cluster else 0,
            "expires_in": 3600 * (1 + number % 12),
            "reserved": {"environments": 1, "cpu": flavor.cpu_millis * count, "memory": flavor.memory_bytes * count},
        }
        return Environment(**values | more)

    running = [
        row(
            n,
            name=f"r{n}",
            state="running",
            admitted_at=now - timedelta(hours=1),
            started_at=now - timedelta(hours=1),
            expires_at=now + timedelta(minutes=n + 5),
        )
        for n in range(RUNNING)
    ]
    Environment.objects.bulk_create(running)
    Environment.objects.bulk_create([row(n, state="queued", queued_at=now - timedelta(minutes=WAITING - n)) for n in range(WAITING)])
    ended = row(0, name="past", state="stopped", desired="stopped")
    ended.save()
    usage = [
        Usage(environment=each, team=each.team, owner=owner, resource="cpu", amount=1000, started_at=now - timedelta(hours=1), granted_seconds=36000)
        for each in running
    ]
    usage += [
        Usage(
            environment=ended,
            team=teams[n % 2],
            owner=owner,
            resource="cpu",
            amount=1000,
            started_at=now - timedelta(hours=9 + n / 100),
            ended_at=now - timedelta(hours=8 + n / 100) - timedelta(minutes=n % 50),
            granted_seconds=36000,
        )
        for n in range(PAST)
    ]
    Usage.objects.bulk_create(usage)
    services.nodes_observed(_nodes(running))


def _nodes(running: list[Any], gone: int = 0) -> list[dict[str, Any]]:
    """Full nodes, four of ours on each; of the first `gone` nodes all have ended."""
    nodes = []
    for number in range(NODES):
        mine = [] if number < gone else running[number * 4 : number * 4 + 4]
        part = {"cpu": 8000, "memory": 64 << 30, "pods": 1, GPU: 2}
        nodes.append(
            {
                "name": f"node{number:03}",
                "allocatable": {"cpu": 64000, "memory": 1 << 40, "pods": 110, GPU: 8},
                "used": {key: amount * len(mine) for key, amount in part.items()} | {"pods": 10},
                "environments": {str(each.pk): {"roles": {"worker": 1}, "resources": part} for each in mine},
                "labels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"},
            }
        )
    return nodes


def main() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    from portal.celery import app
    from portal.domain import services
    from portal.domain.models import Environment
    from tests.portal.world import make_world

    app.conf.broker_url = "memory://"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    call_command("migrate", verbosity=0)
    world = make_world()
    runs, found = int(os.environ.get("BENCH_RUNS", "5")), {"idle": [], "first": [], "again": [], "change": []}
    services.nodes_observed(_nodes([]))
    for number in range(runs):
        one = world.bring_to(world.request(name=f"idle{number}"), "queued")
        found["idle"].append(_both(lambda one=one: services.queue_admit(one.pk)))
    Environment.objects.all().delete()
    _fill()
    running = list(Environment.objects.filter(state="running").order_by("expires_at"))
    for turn in range(runs):
        Environment.objects.filter(state="queued", admitted_at=None).update(queue={})
        found["first"].append(_both(services.queue_pass))
        found["again"].append(_both(services.queue_pass))
        services.nodes_observed(_nodes(running, gone=turn + 1))
        Environment.objects.filter(pk__in=[each.pk for each in running[turn * 4 : turn * 4 + 4]]).update(state="stopped", admitted_at=None)
        found["change"].append(_both(services.queue_pass))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
