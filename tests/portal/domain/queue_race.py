"""Many passes at once over the same room, in the database in DATABASE_URL: `python -m tests.portal.domain.queue_race`.

Prints, as JSON, what each thread ended with, and who was admitted to which node.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402
from django.utils import timezone  # noqa: E402

from portal.domain import services  # noqa: E402
from portal.domain.models import Environment, Usage, User  # noqa: E402
from tests.portal.domain import race  # noqa: E402  (sets up the broker and the channel layer)
from tests.portal.world import make_world, node  # noqa: E402

ROOM, WAIT = 5, 24


def setup() -> None:
    call_command("migrate", verbosity=0)
    make_world()
    services.nodes_observed([node("a", cpu=2, gib=64), node("b", cpu=3, gib=64)])
    for number in range(WAIT):
        who, team = (("alice", "vision"), ("bob", "speech"))[number % 2]
        actor = User.objects.get(username=who)
        made = services.environment_request(actor=actor, name=f"w{number}", template="notebook", flavor="cpu-small", team=team)
        services.environment_move(made.pk, "queued")


def look(name: str) -> str:
    """Passes, single admissions and changing nodes, all at once, while owners stop what waits."""
    thread = int(name.rsplit("-", 1)[1])
    admitted = 0
    for turn in range(4):
        if thread % 4 == 3:
            services.nodes_observed([node("a", cpu=2, gib=64), node("b", cpu=3, gib=64)])
        elif thread % 4 == 2:
            one = Environment.objects.get(name=f"w{(thread * 5 + turn) % WAIT}")
            services.queue_admit(one.pk)
        else:
            admitted += len(services.queue_pass())
    return "done" if admitted >= 0 else "never"


def report() -> dict[str, object]:
    rows = Environment.objects.filter(admitted_at__isnull=False)
    nodes: dict[str, int] = {}
    for row in rows:
        for name, roles in row.placement["nodes"].items():
            nodes[name] = nodes.get(name, 0) + sum(roles.values())
    told = [row.queue["position"] for row in Environment.objects.filter(admitted_at=None)]
    return {"admitted": rows.count(), "nodes": nodes, "positions": sorted(told), "usage": Usage.objects.filter(resource="cpu", ended_at=None).count()}


def press() -> dict[str, object]:
    """Everyone who runs may be stopped, somebody urgent comes, and there is history to estimate by."""
    now = timezone.now()
    for row in Environment.objects.filter(admitted_at__isnull=False):
        row.template_spec["scheduling"] = {"preemptible": True, "preempt_grace": "2m"}
        row.save(update_fields=["template_spec"])
    past = Environment.objects.filter(admitted_at=None)[0]
    Usage.objects.bulk_create(
        Usage(
            environment=past,
            team=past.team,
            owner=past.owner,
            resource="cpu",
            amount=1,
            started_at=now - timedelta(hours=n + 2),
            ended_at=now - timedelta(hours=n, minutes=90),
            granted_seconds=36000,
        )
        for n in range(9)
    )
    lena = User.objects.get(username="lena")
    urgent = services.environment_request(actor=lena, name="urgent", template="notebook", flavor="cpu-small", team="vision", priority="high")
    services.environment_move(urgent.pk, "queued")
    services.queue_pass()
    urgent.refresh_from_db()
    marked = list(Environment.objects.filter(preempted_for=urgent.pk))
    eta = urgent.queue["eta"]
    return {
        "marked": len(marked),
        "grace": all(timedelta(0) < row.preempt_at - now < timedelta(minutes=3) for row in marked),
        "position": urgent.queue["position"],
        "range": eta["earliest"] <= eta["latest"],
    }


if __name__ == "__main__":
    setup()
    words = race.compete(look)
    connections.close_all()
    print(json.dumps([words, report(), press()]))
