"""Processes and threads that answer the same question, and that run the same timers: `python -m tests.portal.domain.race_time`.

Prints, as JSON, what each thread of two competitions ended with, and what is so after each.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from tests.portal.domain import race  # sets Django up

from django.utils import timezone  # isort: skip

from portal.domain import selectors, services
from portal.domain.errors import Conflict
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Approval, ApprovalRule, Environment, Event, Flavor, Notification, User

EACH = 6  # environments of each kind that are due


def ask() -> None:
    ApprovalRule.objects.create(flavor=Flavor.objects.get(slug="cpu-medium"))
    wish: dict[str, Any] = {"name": "asked", "template": "notebook", "flavor": "cpu-medium", "team": "vision"}
    services.environment_request(actor=User.objects.get(username="alice"), **wish)


def answer(name: str) -> str:
    """Even threads grant as the lead, odd ones refuse as the admin."""
    approval = Approval.objects.get()
    try:
        if int(name[-1]) % 2:
            services.approval_refuse(actor=User.objects.get(username="admin"), approval_id=approval.pk, note="no")
            return "refused"
        services.approval_grant(actor=User.objects.get(username="lena"), approval_id=approval.pk)
    except Conflict:
        return "conflict"
    return "approved"


def answered() -> dict[str, Any]:
    approval, environment = Approval.objects.get(), Environment.objects.get(name="asked")
    codes = list(Event.objects.filter(environment=environment, code__in=["Approved", "Refused"]).values_list("code", flat=True))
    drifts = len(services.quota_recompute())
    return {"status": approval.status, "state": environment.state, "held": bool(environment.reserved), "codes": codes, "drifts": drifts}


def make_due() -> None:
    """What runs over its time, is to be warned, follows a schedule, makes room, is to be deleted."""
    alice, now = User.objects.get(username="alice"), timezone.now()
    services.quota_set(actor=None, team=Environment.objects.get(name="asked").team, user=None, resource="cpu", limit=None)
    winner = services.environment_request(actor=alice, name="winner", template="notebook", flavor="cpu-small", team="vision")
    services.environment_move(winner.pk, State.QUEUED)
    late = {"expires_at": now - timedelta(seconds=1)}
    soon = {"expires_at": now + timedelta(minutes=5)}
    schedule = {"start": None, "stop": "20:00", "days": [1, 2, 3, 4, 5, 6, 7], "timezone": "UTC"}
    planned = {"schedule": schedule, "schedule_next_at": now - timedelta(days=2), "started_at": now - timedelta(days=3), "expires_at": None}
    room = {"preempt_at": now - timedelta(seconds=1), "preempted_for": winner.pk}
    unused = {"desired": Desired.STOPPED.value, "delete_at": now - timedelta(seconds=1), "delete_warned_at": now - timedelta(days=1)}
    kinds: dict[str, dict[str, Any]] = {"late": late, "soon": soon, "plan": planned, "room": room, "old": unused}
    for kind, changes in kinds.items():
        for number in range(EACH):
            made = services.environment_request(actor=alice, name=f"{kind}-{number}", template="notebook", flavor="cpu-small", team="vision")
            for state in (State.QUEUED, State.PROVISIONING, State.RUNNING):
                services.environment_move(made.pk, state)
            Environment.objects.filter(pk=made.pk).update(**changes)


def turn(_: str) -> str:
    services.timers_run()
    return "done"


def turned() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for code in ("Expired", "ExpirySoon", "Schedule", "Preempted", "StoppedTooLong"):
        found[code] = [Event.objects.filter(code=code).count(), Notification.objects.filter(code=code).count()]
    found["left"] = len(selectors.environments_expired(timezone.now()))
    return found


if __name__ == "__main__":
    race.setup()
    ask()
    first = [race.compete(answer), answered()]
    make_due()
    print(json.dumps([*first, race.compete(turn), turned()]))
