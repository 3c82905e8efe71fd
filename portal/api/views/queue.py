"""The queue, priority classes, usage."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from portal.domain import selectors, services
from portal.domain.errors import DomainError, ValidationError
from portal.domain.models import Priority, Team, User

from ..serializers import PriorityPageSerializer, QueuePageSerializer, UsageSerializer
from .base import ApiView


class Queue(ApiView):
    @extend_schema(operation_id="queue_list", responses=QueuePageSerializer)
    def get(self, request: Any) -> Response:
        """What waits, in order. Of what you may not see, only its place is told; of your teams also team and flavor."""
        return Response(QueuePageSerializer({"results": selectors.queue_of(request.user), "next": None}).data)


class Priorities(ApiView):
    @extend_schema(operation_id="priorities_list", responses=PriorityPageSerializer)
    def get(self, request: Any) -> Response:
        """Classes of urgency, most urgent first, with your teams in which you may use each."""
        teams = list(Team.objects.filter(memberships__user=request.user).order_by("slug"))
        rows = [
            SimpleNamespace(
                slug=row.slug,
                title=row.title,
                value=row.value,
                preempts=row.preempts,
                default=row.slug == settings.DEFAULT_PRIORITY,
                teams=[team.slug for team in teams if _may_use(request.user, team, row.slug)],
            )
            for row in Priority.objects.all()
        ]
        return Response(PriorityPageSerializer({"results": rows, "next": None}).data)


def _may_use(user: User, team: Team, slug: str) -> bool:
    try:
        services.priority_for(actor=user, team=team, slug=slug)
    except DomainError:
        return False
    return True


class Usage(ApiView):
    @extend_schema(
        operation_id="usage_list",
        parameters=[
            OpenApiParameter("from", str, description="A day (2026-11-01) or a moment; the first day of this month when absent"),
            OpenApiParameter("to", str, description="A day, which is included, or a moment; now when absent"),
            OpenApiParameter("group_by", str, enum=["user", "team", "accelerator", "template"], description="user when absent"),
        ],
        responses=UsageSerializer,
    )
    def get(self, request: Any) -> Response:
        """Hours held in a period, of what you may see: your own, those of teams you lead, everything for admins. Days are in your time zone."""
        query, zone, now = request.query_params, _zone(request.user), timezone.now()
        since = _moment("from", query.get("from"), zone) or now.astimezone(zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        until = _moment("to", query.get("to"), zone, end=True) or now
        group_by = query.get("group_by", "user")
        if until <= since:
            raise ValidationError.field("to", "Must be later than the beginning.")
        rows = selectors.usage_report(request.user, since, until, group_by)
        return Response(UsageSerializer({"since": since, "until": until, "group_by": group_by, "results": rows}).data)


def _zone(user: User) -> ZoneInfo:
    return ZoneInfo(user.timezone or settings.TIME_ZONE)


def _moment(name: str, text: str | None, zone: ZoneInfo, *, end: bool = False) -> datetime | None:
    """A moment of the query; a day begins or, with `end`, ends at midnight of the zone. Raises ValidationError."""
    if text is None:
        return None
    try:
        day = parse_date(text)
        if day is not None and 2000 <= day.year <= 9000:
            return datetime.combine(day + timedelta(days=1 if end else 0), time(), tzinfo=zone)
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None or not 2000 <= found.year <= 9000:
        raise ValidationError.field(name, "Must be a day such as 2026-11-30 or a moment such as 2026-11-30T09:00:00Z.")
    return found if found.tzinfo else found.replace(tzinfo=zone)
