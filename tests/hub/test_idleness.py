"""Whether a notebook is idle, measured through the real Hub."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from k8s import names
from k8s.cluster import Cluster
from portal.domain.models import Environment
from tests.stack import wait_until
from tests.workers.conftest import World, _messages_stay_here, make_world, row
from tests.workers.test_idleness import RULE, signs
from workers import idleness
from workers.hub import Hub

from .conftest import Site
from .test_activity import Notebook
from .test_servers import ordered, remove, start_and_wait

__all__ = ["_messages_stay_here"]
pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def world(transactional_db: None) -> World:
    return make_world()


def test_a_running_cell_keeps_a_notebook_from_being_idle(world: World, live: Site) -> None:
    """The whole way: a kernel that computes in silence, the Hub that asks its server, and the judge."""
    server, options = ordered("study")
    start_and_wait(live, server, options)
    made = world.request("study", "notebook")
    Environment.objects.filter(pk=made.pk).delete()
    made.pk, made.state, made.template_spec = options["environment"], "running", made.template_spec | {"idle": RULE}
    made.started_at = timezone.now() - timedelta(hours=3)
    made.observed = {"replicas": [{"name": server, "state": "running"}]}
    made.save(force_insert=True)
    assert names.object_name("study", options["environment"]) == server
    hub, cluster = Hub(live.hub_api, live.service_token), Cluster(live.var / "cluster" / "kubeconfig")

    def sign() -> dict[str, Any]:
        idleness.measure(cluster, hub)
        return signs(made).get("notebook") or {}

    wait_until(lambda: sign().get("kernels_busy") == 0, "the notebook to be quiet")
    assert sign()["last"]
    kernel = Notebook(live, server).run("import time\nwhile True:\n    time.sleep(0.1)")
    wait_until(lambda: sign().get("kernels_busy") == 1, "the kernel to be seen")
    assert row(made.pk).idle_since is None
    assert row(made.pk).state == "running"
    Notebook(live, server).interrupt(kernel)
    wait_until(lambda: sign().get("kernels_busy") == 0, "the kernel to be idle")
    remove(live, server)
    # The Hub no longer knows it: not measured, which is not idle.
    idleness.measure(cluster, hub)
    assert signs(made)["notebook"] is None
    hub.close()
    cluster.close()
