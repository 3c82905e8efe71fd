"""Teams, their people, their quota and volumes."""

from __future__ import annotations

from django.db.models import Q, QuerySet

from ..models import Membership, Quota, Team, User, Volume


def teams_led_by(user: User) -> QuerySet[Team]:
    """Teams of which `user` is a lead."""
    return Team.objects.filter(memberships__user=user, memberships__role=Membership.Role.LEAD)


def leads_of(team: Team) -> QuerySet[User]:
    """Active leads of the team."""
    return User.objects.filter(memberships__team=team, memberships__role=Membership.Role.LEAD, is_active=True).order_by("username")


def platform_admins() -> QuerySet[User]:
    """Active platform admins."""
    return User.objects.filter(is_staff=True, is_active=True).order_by("username")


def quota_rows(user: User) -> QuerySet[Quota]:
    """Quota of the user's teams: the team's rows, the user's own, and for leads and admins every member's."""
    if not user.is_active:
        return Quota.objects.none()
    query = Quota.objects.select_related("team", "user").order_by("team__slug", "user__username", "resource")
    if user.is_staff:
        return query
    mine = Q(team__memberships__user=user) & (Q(user=None) | Q(user=user))
    return query.filter(mine | Q(team__in=teams_led_by(user))).distinct()


def volumes_visible_to(user: User) -> QuerySet[Volume]:
    """Home volumes, in use or kept."""
    query = Volume.objects.select_related("team", "owner")
    if not user.is_active:
        return query.none()
    return query if user.is_staff else query.filter(Q(owner=user) | Q(team__in=teams_led_by(user)))
