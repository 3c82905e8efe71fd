"""Servers that no environment wants: the real Hub lists them, and stops them at the second sighting."""

from __future__ import annotations

from typing import Any

import pytest

from portal.domain.models import Environment, Template, User
from tests.hub.conftest import Site
from tests.stack import wait_until
from tests.workers.conftest import make_world
from tests.workers.many import many_environments
from workers.hub import Hub
from workers.orphans import Orphans

from .test_servers import ordered, ready, remove, start

pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]

INSTALL = "test"  # of the Hub under test


def row(environment: str, state: str) -> None:
    """A notebook of alice's with this very id."""
    if not User.objects.exists():
        make_world()
    alice = User.objects.get(username="alice")
    (made,) = many_environments(1, owner=alice, team=alice.teams.get(slug="vision"), states=(state,))
    notebook = Template.objects.get(slug="notebook")
    Environment.objects.filter(pk=made.pk).update(id=environment, kind="notebook", template=notebook, name=f"n{environment[:6]}")


def test_servers_without_an_environment_go_and_others_stay(live: Site, settings: Any) -> None:
    settings.INSTALL_ID = INSTALL
    hub = Hub(live.hub_api, live.service_token)
    orders = {state: ordered(f"srv-{state}") for state in ("lost", "deleted", "running")}
    for state, (server, options) in orders.items():
        if state != "lost":
            row(options["environment"], state)
        start(live, server, options)
    for server, _ in orders.values():
        wait_until(lambda: ready(live, server), "the servers to be up")  # noqa: B023 - called at once
    mine = {server.name: server for server in hub.servers()}
    assert {mine[server].environment for server, _ in orders.values()} == {options["environment"] for _, options in orders.values()}

    orphans = Orphans(None, hub, lambda: True, lambda _: None, apart=10.0)  # type: ignore[arg-type]
    settings.INSTALL_ID = "another"
    assert (orphans.servers(0.0), orphans.servers(20.0)) == (0, 0), "servers of another installation"
    settings.INSTALL_ID = INSTALL
    assert (orphans.servers(100.0), orphans.servers(109.0)) == (0, 0)
    assert orphans.servers(110.0) == 2
    running, _ = orders["running"]
    wait_until(lambda: [server.name for server in hub.servers() if server.name in mine] == [running], "the other two to be gone")
    assert ready(live, running)
    remove(live, running)
