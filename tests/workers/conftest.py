"""A small world in the database: teams vision and speech, alice and charlie, the built-in catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from portal.celery import app
from portal.domain import services
from portal.domain.models import Environment, Membership, Team, User
from tests.catalogue import put_catalogue
from tests.embedded import embedded

__all__ = ["embedded"]


@dataclass
class World:
    alice: User
    charlie: User
    vision: Team
    speech: Team

    def request(self, name: str = "grid", template: str = "dask", *, flavor: str = "cpu-small", **more: Any) -> Environment:
        more.setdefault("params", {})
        made = services.environment_request(actor=self.alice, name=name, template=template, flavor=flavor, team="vision", expires_in=None, **more)
        return row(made.pk)


def row(environment_id: Any) -> Environment:
    """The row as the workers read it."""
    return Environment.objects.select_related("team", "owner", "template", "flavor__accelerator", "flavor__network", "volume").get(pk=environment_id)


@pytest.fixture(autouse=True)
def _messages_stay_here(settings: Any) -> None:
    """Nudges go to an in-process broker, announcements to an in-process layer."""
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    app.conf.broker_url = "memory://"


def only_runs(role: dict[str, Any], command: list[str], *, cpu: str = "50m") -> None:
    """What runs in it is not the point of a test: this command alone, without the engine's probe and without its farewell, which would
    look for an engine until its time is over."""
    role.update(command=command, args=[], resources={"cpu": cpu, "memory": "128Mi"})
    for field in ("readiness", "stop_command", "stop_timeout"):
        role.pop(field, None)


def make_world() -> World:
    put_catalogue()
    alice, charlie = User.objects.create_user("alice"), User.objects.create_user("charlie")
    vision = services.team_create(actor=None, slug="vision", name="Vision")
    speech = services.team_create(actor=None, slug="speech", name="Speech")
    services.membership_set(actor=None, team=vision, user=alice, role=Membership.Role.ENGINEER)
    services.membership_set(actor=None, team=speech, user=alice, role=Membership.Role.ENGINEER)
    return World(alice=alice, charlie=charlie, vision=vision, speech=speech)


@pytest.fixture
def world(db: None) -> World:
    return make_world()
