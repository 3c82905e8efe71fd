"""Approvals: who sees a question and who may answer it."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import Q, QuerySet

from ..models import Approval, Team, User
from .environments import environments_visible_to
from .teams import leads_of, platform_admins, teams_led_by


def approvals_visible_to(user: User) -> QuerySet[Approval]:
    """Every question, answered ones included, about environments that `user` may see; oldest first."""
    query = Approval.objects.select_related(
        "environment__team", "environment__owner", "environment__template", "environment__flavor__accelerator", "asked_by", "decided_by"
    )
    if not user.is_active or not user.is_authenticated:
        return query.none()
    return query.filter(environment__in=environments_visible_to(user).select_related(None).values("pk"))


def approvals_decidable_by(user: User) -> QuerySet[Approval]:
    """Pending questions that `user` may answer: of teams he leads, or any for a platform admin; his own only where the team allows it."""
    own = Q(asked_by=user) | Q(environment__owner=user)
    query = approvals_visible_to(user).filter(~own | Q(environment__team__self_approval=True), status=Approval.Status.PENDING)
    return query if user.is_staff else query.filter(environment__team__in=teams_led_by(user))


def approvers_of(approval: Approval) -> list[User]:
    """Whom to ask: the leads of the team who may answer; platform admins where there is none."""
    return approvers_for(approval.environment.team, {approval.asked_by_id, approval.environment.owner_id})


def approvers_for(team: Team, own: Collection[int]) -> list[User]:
    """Whom a question of the people with the keys `own` would go to."""

    def may(person: User) -> bool:
        return team.self_approval or person.pk not in own

    return [person for person in leads_of(team) if may(person)] or [person for person in platform_admins() if may(person)]
