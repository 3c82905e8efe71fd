"""Environments as their users see them. Visible to the owner, the leads of the team and platform admins; others get NotFound."""

from __future__ import annotations

from uuid import UUID

from django.core.files.storage import storages
from django.db.models import Q, QuerySet

from ..errors import NotFound
from ..lifecycle import Desired, State
from ..models import Environment, Event, LogArchive, Team, Template, User
from .teams import teams_led_by


def environments_visible_to(user: User) -> QuerySet[Environment]:
    """All that `user` may see, deleted ones included; nothing for an inactive or anonymous user."""
    query = Environment.objects.select_related("team", "owner", "template", "flavor__accelerator", "flavor__network", "volume")
    if not user.is_active or not user.is_authenticated:
        return query.none()
    if user.is_staff:
        return query
    return query.filter(Q(owner=user) | Q(team__in=teams_led_by(user)))


def environment_get(user: User, environment_id: UUID | str) -> Environment:
    """The environment, or NotFound when it is absent or not visible to `user`."""
    try:
        key = environment_id if isinstance(environment_id, UUID) else UUID(str(environment_id))
    except ValueError:
        raise NotFound("There is no such environment.") from None
    environment = environments_visible_to(user).filter(pk=key).first()
    if environment is None:
        raise NotFound("There is no such environment.")
    return environment


def events_after(environment: Environment, seq: int, limit: int) -> QuerySet[Event]:
    """The next events in order of their number."""
    return Event.objects.filter(environment=environment, seq__gt=seq).select_related("actor").order_by("seq")[:limit]


def archives_of(environment: Environment) -> QuerySet[LogArchive]:
    """What is kept of the logs of its past pods, oldest first."""
    return LogArchive.objects.filter(environment=environment)


def archive_read(archive: LogArchive) -> bytes:
    """The bytes of an archived log."""
    with storages["archive"].open(archive.path) as file:
        return file.read()


def clusters_of(owner: User, team: Team | None = None) -> QuerySet[Environment]:
    """The owner's clusters that are up or coming up, for the notebooks that will connect to them."""
    query = Environment.objects.filter(owner=owner, kind=Template.Kind.CLUSTER, desired=Desired.RUNNING, state__in=[State.PROVISIONING, State.RUNNING])
    if team is not None:
        query = query.filter(team=team)
    return query.select_related("team", "owner", "template", "flavor__accelerator", "flavor__network").order_by("name")
