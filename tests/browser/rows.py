"""Runs beside a portal under test, on its database: makes rows through the services when told to.

Reads one JSON list per line, [function, arguments], and answers one JSON line: {"value": ...} or {"error": "..."}.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")


def main() -> None:
    import django

    django.setup()

    from django.db import connections

    from portal.domain import services
    from portal.domain.models import Environment, User
    from tests.web import world

    def launch(owner: str, name: str, **more: Any) -> str:
        return str(world.launch(User.objects.get(username=owner), name, **more).pk)

    def shape(name: str, environment: str) -> None:
        getattr(world, name)(Environment.objects.get(pk=environment))

    def move(environment: str, to: str, reason: str = "", message: str = "") -> bool:
        return services.environment_move(environment, to, reason=reason, message=message)

    def state(environment: str) -> list[Any]:
        row = Environment.objects.get(pk=environment)
        return [row.state, row.desired, row.workers, row.name, row.purge]

    def event(environment: str, kind: str, code: str, message: str) -> bool:
        return services.event_record(environment, kind, code, message)

    def remove(environment: str) -> None:
        """As when its owner deleted it and everything of it is gone."""
        row = Environment.objects.get(pk=environment)
        services.environment_delete(actor=row.owner, environment_id=row.pk, purge=True)
        services.environment_move(row.pk, "deleting")
        services.environment_move(row.pk, "deleted")

    def expire_sessions() -> None:
        from django.contrib.sessions.models import Session

        Session.objects.all().delete()

    known = {
        "make_world": lambda: world.make_world() and None,
        "launch": launch,
        "shape": shape,
        "move": move,
        "state": state,
        "event": event,
        "remove": remove,
        "expire_sessions": expire_sessions,
    }
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"value": known[name](**arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        connections.close_all()
        print(json.dumps(answer), flush=True)


main()
