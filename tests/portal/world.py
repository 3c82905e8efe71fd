"""The people, teams and catalogue that tests of the portal start from: Alice and Lena (lead) in vision, Bob in speech, Charlie nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from portal.domain import services
from portal.domain.models import Environment, Membership, Quota, Team, User
from tests.catalogue import put_catalogue


@dataclass
class World:
    alice: User
    lena: User
    bob: User
    charlie: User
    admin: User
    vision: Team
    speech: Team

    def request(self, **changes: Any) -> Environment:
        """An environment of Alice's, by default a small notebook."""
        wish = {"actor": self.alice, "name": "nb", "template": "notebook", "flavor": "cpu-small", "team": "", "params": {}, "expires_in": None}
        return services.environment_request(**(wish | changes))

    def bring_to(self, environment: Environment, *states: str) -> Environment:
        """Move it through `states` as the observer would."""
        for state in states:
            assert services.environment_move(environment.pk, state), f"no move to {state}"
        environment.refresh_from_db()
        return environment

    def running(self, **changes: Any) -> Environment:
        return self.bring_to(self.request(**changes), "queued", "provisioning", "running")

    def limit(self, resource: str, limit: int | None, *, team: Team | None = None, user: User | None = None) -> None:
        services.quota_set(actor=None, team=team or self.vision, user=user, resource=resource, limit=limit)

    def used(self, resource: str, *, user: User | None = None, team: Team | None = None) -> int:
        row = Quota.objects.filter(team=team or self.vision, user=user, resource=resource).first()
        return row.used if row else 0


def make_world() -> World:
    put_catalogue()
    people = {name: User.objects.create(username=name) for name in ("alice", "lena", "bob", "charlie")}
    admin = User.objects.create(username="admin", is_staff=True, is_superuser=True)
    teams = {slug: services.team_create(actor=None, slug=slug, name=slug.title()) for slug in ("vision", "speech")}
    for name, team, role in (("alice", "vision", "engineer"), ("lena", "vision", Membership.Role.LEAD), ("bob", "speech", "engineer")):
        services.membership_set(actor=None, team=teams[team], user=people[name], role=role)
    return World(**people, admin=admin, **teams)


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.fixture
def broker() -> Iterator[Any]:
    """Kombu's in-memory broker in place of Redis; `sent()` takes what was sent, as (task name, arguments)."""
    from portal.celery import app

    def connect(url: str) -> None:
        app.conf.broker_url = app.conf.broker_write_url = url
        app._pool = app.amqp._producer_pool = None

    def sent() -> list[tuple[str, tuple[str, ...]]]:
        messages = []
        with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
            while queue.qsize():
                message = queue.get(block=False)
                messages.append((message.headers["task"], tuple(message.payload[0])))
                message.ack()
        return messages

    before = app.conf.broker_url
    connect("memory://")
    sent()  # the in-memory broker outlives a test
    yield SimpleNamespace(sent=sent)
    connect(before)


GIB = 2**30


def node(name: str, cpu: int = 8, gib: int = 32, *, used_cpu: float = 0, labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """A node as the watcher reports it. `devices`: resource key -> count; `devices_used` likewise."""
    devices, devices_used = more.pop("devices", {}), more.pop("devices_used", {})
    return {
        "name": name,
        "allocatable": {"cpu": cpu * 1000, "memory": gib * GIB, "pods": 110, **devices},
        "used": {"cpu": int(used_cpu * 1000), "memory": 0, "pods": 1, **devices_used},
        "labels": labels or {},
        **more,
    }
