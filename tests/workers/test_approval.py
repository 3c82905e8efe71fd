"""What waits for approval: nothing of it is on the cluster, and every way out of waiting ends where it should."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from portal.domain import services
from portal.domain.models import Approval, ApprovalRule, Environment, Membership, Template, User

from .test_converge import Site, cluster, site, small

__all__ = ["cluster", "site"]
pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]


def asked(site: Site, name: str) -> tuple[Environment, Approval]:
    ApprovalRule.objects.get_or_create(template=Template.objects.get(slug="dask"))
    environment = small(site.world.request(name))
    return environment, Approval.objects.get(environment=environment)


def test_it_waits_with_nothing_on_the_cluster_then_runs_once_a_lead_approves(site: Site) -> None:
    lena = User.objects.create_user("lena")
    services.membership_set(actor=None, team=site.world.vision, user=lena, role=Membership.Role.LEAD)
    environment, approval = asked(site, "asked")
    for _ in range(3):
        assert site.look(environment).state == "awaiting_approval"
    assert site.left(environment) == []
    services.approval_grant(actor=lena, approval_id=approval.pk, workers=1)
    running = site.until_state(environment, "running")
    assert [replica["role"] for replica in running.observed["replicas"]].count("worker") == 1
    assert site.left(environment) != []
    services.environment_delete(actor=site.world.alice, environment_id=environment.pk)
    site.until_state(environment, "deleted")


@pytest.mark.parametrize(("verb", "state"), [(services.environment_stop, "stopped"), (services.environment_delete, "deleted")])
def test_stopping_or_deleting_what_waits_ends_at_once(site: Site, verb: object, state: str) -> None:
    environment, approval = asked(site, f"to-be-{state}")
    verb(actor=site.world.alice, environment_id=environment.pk)  # type: ignore[operator]
    site.until_state(environment, state)
    approval.refresh_from_db()
    assert approval.status == "withdrawn"
    assert services.quota_recompute() == []


def test_what_lapsed_rests_as_failed(site: Site) -> None:
    environment, approval = asked(site, "unanswered")
    Approval.objects.filter(pk=approval.pk).update(lapses_at=timezone.now() - timedelta(seconds=1))
    services.timers_run()
    failed = site.look(environment)
    assert (failed.state, failed.reason) == ("failed", "ApprovalLapsed")
    assert site.left(environment) == []
