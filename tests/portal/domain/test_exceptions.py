"""Exceptions to restricted Pod Security: who grants them, what is refused without, what becomes of those that need one that is revoked."""

from __future__ import annotations

import pytest
from django.test import Client

from k8s import tenancy
from portal.domain import services
from portal.domain.errors import Conflict, Forbidden, NotFound, ValidationError
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Flavor, Network, PodException
from tests.portal.world import World
from workers.specs import team_spec


@pytest.fixture
def rdma(world: World) -> World:
    """A world in which cpu-small has RDMA."""
    net = Network.objects.create(slug="ib", title={"en": "IB"}, kind="rdma", resource_key="rdma/hca", capabilities=["IPC_LOCK"])
    Flavor.objects.filter(slug="cpu-small").update(network=net, network_count=1)
    return world


def test_without_an_exception_the_flavor_is_refused_and_who_can_grant_it_is_named(rdma: World) -> None:
    with pytest.raises(ValidationError) as caught:
        rdma.request()
    (message,) = caught.value.errors["flavor"]
    assert "IPC_LOCK" in message
    assert f"ask a platform admin ({rdma.admin.username})" in message


def test_with_it_the_flavor_may_be_used_and_the_namespace_says_so(rdma: World) -> None:
    row = services.exception_grant(actor=rdma.admin, team=rdma.vision, capability="CAP_IPC_LOCK", reason="NCCL over InfiniBand")
    assert (row.capability, row.granted_by) == ("IPC_LOCK", rdma.admin)
    rdma.request()
    metadata = tenancy.namespace(team_spec(rdma.vision))["metadata"]
    levels = {key.rpartition("/")[2]: value for key, value in metadata["labels"].items() if key.startswith("pod-security")}
    assert levels == {"enforce": "privileged", "warn": "restricted", "audit": "restricted"}
    assert metadata["annotations"] == {"atelier.dev/pod-security-exceptions": "IPC_LOCK"}


def test_revoking_stops_those_that_need_it_and_no_others_and_keeps_the_record(rdma: World) -> None:
    row = services.exception_grant(actor=rdma.admin, team=rdma.vision, capability="IPC_LOCK", reason="NCCL")
    needs, other = rdma.running(name="needs"), rdma.request(name="other", flavor="cpu-medium")
    services.exception_revoke(actor=rdma.admin, exception_id=row.pk)
    needs.refresh_from_db()
    other.refresh_from_db()
    assert (needs.desired, needs.reason) == (Desired.STOPPED, "ExceptionRevoked")
    assert other.desired == Desired.RUNNING
    row.refresh_from_db()
    assert row.revoked_by == rdma.admin
    assert team_spec(rdma.vision).exceptions == ()
    rdma.bring_to(needs, State.STOPPING, State.STOPPED)
    with pytest.raises(Conflict, match="IPC_LOCK"):
        services.environment_start(actor=rdma.alice, environment_id=needs.pk)
    services.exception_grant(actor=rdma.admin, team=rdma.vision, capability="IPC_LOCK", reason="again")
    services.environment_start(actor=rdma.alice, environment_id=needs.pk)
    assert PodException.objects.filter(team=rdma.vision).count() == 2


def test_only_platform_admins_grant_and_revoke(rdma: World) -> None:
    row = services.exception_grant(actor=None, team=rdma.vision, capability="IPC_LOCK", reason="seed")
    for actor in (rdma.alice, rdma.lena):
        with pytest.raises(Forbidden):
            services.exception_grant(actor=actor, team=rdma.vision, capability="IPC_LOCK", reason="mine")
        with pytest.raises(Forbidden):
            services.exception_revoke(actor=actor, exception_id=row.pk)
    with pytest.raises(Conflict, match="already"):
        services.exception_grant(actor=rdma.admin, team=rdma.vision, capability="IPC_LOCK", reason="twice")
    services.exception_revoke(actor=rdma.admin, exception_id=row.pk)
    with pytest.raises(Conflict, match="revoked before"):
        services.exception_revoke(actor=rdma.admin, exception_id=row.pk)
    with pytest.raises(NotFound):
        services.exception_revoke(actor=rdma.admin, exception_id=10**6)


@pytest.mark.parametrize(
    ("capability", "reason", "field"),
    [("ipc_lock", "x", "capability"), ("SYS_ADMIN", "x", "capability"), ("ALL", "x", "capability"), ("IPC_LOCK", " ", "reason")],
)
def test_what_gives_power_over_the_node_or_has_no_reason_is_refused(rdma: World, capability: str, reason: str, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        services.exception_grant(actor=rdma.admin, team=rdma.vision, capability=capability, reason=reason)
    assert set(caught.value.errors) == {field}


def test_the_admin_page_grants_and_revokes_and_is_closed_to_others(rdma: World) -> None:
    outsider = Client()
    outsider.force_login(rdma.alice)
    assert outsider.get("/admin/domain/podexception/add/").status_code == 302
    client = Client()
    client.force_login(rdma.admin)
    bad = client.post("/admin/domain/podexception/add/", {"team": rdma.vision.pk, "capability": "SYS_ADMIN", "reason": "x"})
    assert "power over its node" in bad.content.decode()
    assert client.post("/admin/domain/podexception/add/", {"team": rdma.vision.pk, "capability": "IPC_LOCK", "reason": "NCCL"}).status_code == 302
    row = PodException.objects.get(team=rdma.vision)
    assert row.granted_by == rdma.admin
    client.post("/admin/domain/podexception/", {"action": "revoke", "_selected_action": [str(row.pk)]})
    row.refresh_from_db()
    assert row.revoked_by == rdma.admin
