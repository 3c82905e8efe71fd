"""Many passes at once over the same room, in the database in DATABASE_URL: `python -m tests.portal.domain.queue_race`.

Prints, as JSON, what each thread ended with, and who was admitted to which node.
"""

from __future__ import annotations

import json
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402

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


if __name__ == "__main__":
    setup()
    words = race.compete(look)
    connections.close_all()
    print(json.dumps([words, report()]))
