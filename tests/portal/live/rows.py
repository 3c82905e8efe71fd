"""Runs beside a portal under test, on its database: does through the services what users, leads and the observer do.

Reads one JSON list per line, [function, arguments], and answers one JSON line: {"value": ...} or {"error": "..."}.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")


def functions() -> dict[str, Callable[..., Any]]:
    from django.conf import settings
    from django.contrib.sessions.backends.db import SessionStore
    from django.test import Client

    from portal.domain import services
    from portal.domain.models import ApiToken, Environment, User
    from tests.web import world

    def person(name: str) -> User:
        return User.objects.get(username=name)

    def launch(owner: str, name: str, **more: Any) -> str:
        return str(world.launch(person(owner), name, **more).pk)

    def observe(environment: str, replicas: list[str], container: str = "main") -> bool:
        seen = [{"name": name, "role": "worker", "state": "running", "ready": True, "containers": [container]} for name in replicas]
        return services.environment_observe(environment, {"replicas": seen, "endpoints": [], "steps": []})

    def sign_in(name: str) -> str:
        client = Client()
        client.force_login(person(name))
        return client.cookies[settings.SESSION_COOKIE_NAME].value

    def token(name: str, scopes: list[str]) -> str:
        return services.token_create(actor=person(name), name="test", scopes=scopes, expires_in=timedelta(hours=1))[1]

    return {
        "make_world": lambda: world.make_world() and None,
        "launch": launch,
        "observe": observe,
        "move": lambda environment, to, message="": services.environment_move(environment, to, message=message),
        "event": lambda environment, code, message: services.event_record(environment, "info", code, message),
        "archive": lambda environment, replica, text: services.archive_store(environment, replica, "worker", "main", text.encode(), False),
        "last_seq": lambda environment: Environment.objects.get(pk=environment).last_seq,
        "sign_in": sign_in,
        "sign_out": lambda session: SessionStore(session).flush(),
        "token": token,
        "revoke_tokens": lambda name: (
            ApiToken.objects.filter(user=person(name)).count()
            and [services.token_revoke(actor=person(name), token_id=each.pk) for each in ApiToken.objects.filter(user=person(name), revoked_at=None)]
            and None
        ),
        "deactivate": lambda name: services.user_deactivate(actor=person("admin"), user=person(name)) and None,
        "reactivate": lambda name: User.objects.filter(username=name).update(is_active=True),
        "lead_team": lambda name, team: (
            services.membership_set(actor=None, team=world.Team.objects.get(slug=team), user=person(name), role=world.Membership.Role.LEAD) and None
        ),
        "leave_team": lambda name, team: services.membership_remove(actor=None, team=world.Team.objects.get(slug=team), user=person(name)) and None,
    }


def main() -> None:
    import django

    django.setup()

    from django.db import connections

    known = functions()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"value": known[name](**arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        connections.close_all()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
