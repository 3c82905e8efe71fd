"""Runs beside a portal under test, on its database: makes rows through the services when told to.

Reads one JSON list per line, [function, arguments], and answers one JSON line: {"value": ...} or {"error": "..."}.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import timedelta
from typing import Any
from uuid import uuid4

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")


def main() -> None:
    import django

    django.setup()

    from django.db import connections
    from django.utils import timezone

    from portal.domain import outbound, services
    from portal.domain.models import Approval, ApprovalRule, Environment, Template, User
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

    def write(environment: str, **fields: Any) -> None:
        """Fields of the row as a timer or the queue writes them, and the announcement that comes with it. `in_minutes_<field>`: a time from now."""
        moments = {
            name.removeprefix("in_minutes_"): timezone.now() + timedelta(minutes=fields.pop(name)) for name in list(fields) if name.startswith("in_minutes_")
        }
        Environment.objects.filter(pk=environment).update(**fields, **moments)
        outbound.announce(Environment.objects.get(pk=environment), kind="observed")

    def need_approval(template: str) -> None:
        ApprovalRule.objects.get_or_create(template=Template.objects.get(slug=template))

    def self_service() -> None:
        ApprovalRule.objects.all().delete()

    def approval_of(environment: str) -> int:
        return Approval.objects.get(environment=environment, status="pending").pk

    def notify(user: str, message: str, environment: str | None = None) -> None:
        row = Environment.objects.get(pk=environment) if environment else None
        services.notify([User.objects.get(username=user)], "Note", message, row, source=uuid4().hex)

    def offer(copies: int) -> None:
        """A template with every sort of parameter, and copies of it."""
        from pathlib import Path

        from portal.catalogue.loader import load

        load([Path(world.__file__).parent / "catalogue"])
        spec = Template.objects.get(slug="everything").spec
        for number in range(copies):
            services.template_store(spec={**spec, "slug": f"engine-{number}", "title": {"en": f"Engine {number}", "zh-hans": f"引擎 {number}"}})

    known = {
        "offer": offer,
        "write": write,
        "need_approval": need_approval,
        "self_service": self_service,
        "approval_of": approval_of,
        "notify": notify,
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
