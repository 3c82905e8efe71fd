"""Environments: ask, look, change, stop, delete; their events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.response import Response

from portal.domain import selectors, services
from portal.domain.errors import ValidationError
from portal.domain.lifecycle import State
from portal.domain.models import Environment

from ..filters import EnvironmentFilter, filtered
from ..idempotency import idempotent
from ..pagination import MAX_LIMIT, NewestFirst, limit_of, whole_number
from ..serializers import (
    EnvironmentChangeSerializer,
    EnvironmentRequestSerializer,
    EnvironmentSerializer,
    EventPageSerializer,
    EventSerializer,
    PreviewSerializer,
)
from .base import ApiView, ListView


def flag(request: Any, name: str) -> bool:
    """A yes-or-no of the query. Raises ValidationError."""
    text = request.query_params.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise ValidationError.field(name, "Must be true or false.")
    return text in ("true", "1")


class Environments(ListView):
    serializer_class = EnvironmentSerializer
    pagination_class = NewestFirst
    queryset = Environment.objects.none()
    filterset_class = EnvironmentFilter

    @extend_schema(
        operation_id="environments_list",
        parameters=[
            OpenApiParameter(
                "state",
                {"type": "array", "items": {"enum": [s.value for s in State]}},
                description="One or several; deleted ones only when asked for",
            ),
            OpenApiParameter("kind", str, enum=["notebook", "cluster"]),
            OpenApiParameter("team", str, description="Team slug"),
            OpenApiParameter("owner", str, description="User name"),
            OpenApiParameter("q", str, description="Part of the name, the template or the owner"),
        ],
    )
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Environments that you may see, newest first."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        return filtered(self.request, selectors.environments_visible_to(self.request.user))

    @extend_schema(
        operation_id="environments_create",
        request=EnvironmentRequestSerializer,
        parameters=[OpenApiParameter("dry_run", bool, description="Only say what would happen; nothing is made")],
        responses={201: EnvironmentSerializer, 200: OpenApiResponse(PreviewSerializer, description="What would happen, with dry_run=true")},
    )
    @idempotent()
    def post(self, request: Any) -> Response:
        """Ask for an environment. Its quota is reserved at once; workers then set it up."""
        form = EnvironmentRequestSerializer(data=request.data)
        dry_run = flag(request, "dry_run")
        form.is_valid(raise_exception=True)
        wish = {"team": "", "params": {}, "expires_in": None, **form.validated_data, "actor": request.user}
        if dry_run:
            return Response(PreviewSerializer(services.environment_preview(**wish)).data)
        environment = services.environment_request(**wish)
        location = request.build_absolute_uri(reverse("api:environment", args=[environment.pk]))
        return Response(EnvironmentSerializer(environment).data, status=201, headers={"Location": location})


class EnvironmentDetail(ApiView):
    serializer_class = EnvironmentSerializer

    @extend_schema(operation_id="environments_retrieve")
    def get(self, request: Any, environment_id: UUID) -> Response:
        """One environment, deleted ones included."""
        return Response(EnvironmentSerializer(selectors.environment_get(request.user, environment_id)).data)

    @extend_schema(request=EnvironmentChangeSerializer)
    def patch(self, request: Any, environment_id: UUID) -> Response:
        """Scale, extend, schedule or rename it, or let it scale by itself; all that is asked or nothing."""
        form = EnvironmentChangeSerializer(data=request.data)
        selectors.environment_get(request.user, environment_id)
        form.is_valid(raise_exception=True)
        wish = form.validated_data
        with transaction.atomic():
            if "name" in wish:
                services.environment_rename(actor=request.user, environment_id=environment_id, name=wish["name"])
            if "workers" in wish:
                services.environment_scale(actor=request.user, environment_id=environment_id, workers=wish["workers"])
            if "autoscale" in wish:
                services.environment_autoscale_set(actor=request.user, environment_id=environment_id, on=wish["autoscale"])
            if "schedule" in wish:
                services.environment_schedule(actor=request.user, environment_id=environment_id, schedule=wish["schedule"])
            if "expires_in" in wish:
                services.environment_extend(actor=request.user, environment_id=environment_id, expires_in=wish["expires_in"])
        return Response(EnvironmentSerializer(selectors.environment_get(request.user, environment_id)).data)

    @extend_schema(
        parameters=[OpenApiParameter("purge", bool, description="Destroy the home volume too")],
        responses={202: EnvironmentSerializer},
    )
    def delete(self, request: Any, environment_id: UUID) -> Response:
        """Tear it down; the home volume is kept unless purge=true. It is gone when its state is deleted."""
        environment = services.environment_delete(actor=request.user, environment_id=environment_id, purge=flag(request, "purge"))
        return Response(EnvironmentSerializer(environment).data, status=202)


class _Verb(ApiView):
    """POST without a body that asks for one change."""

    serializer_class = EnvironmentSerializer
    verb: Callable[..., Environment]

    @extend_schema(request=None)
    @idempotent()
    def post(self, request: Any, environment_id: UUID) -> Response:
        return Response(EnvironmentSerializer(type(self).verb(actor=request.user, environment_id=environment_id)).data)


class Start(_Verb):
    """Bring a stopped environment back. Its quota is reserved again."""

    verb = staticmethod(services.environment_start)


class Stop(_Verb):
    """Stop it. The home volume is kept, the rest of its quota is given back."""

    verb = staticmethod(services.environment_stop)


class Retry(_Verb):
    """Try a failed environment again."""

    verb = staticmethod(services.environment_retry)


class Keep(_Verb):
    """Keep a stopped environment that would be deleted by itself."""

    verb = staticmethod(services.environment_keep)


class InUse(_Verb):
    """Say that it is in use although nothing shows it: the time without use begins anew."""

    verb = staticmethod(services.environment_in_use)


class Events(ApiView):
    @extend_schema(
        operation_id="environments_events_list",
        parameters=[
            OpenApiParameter("after", {"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "default": 0}, description="Only those with a higher number"),
            OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}),
        ],
        responses=EventPageSerializer,
    )
    def get(self, request: Any, environment_id: UUID) -> Response:
        """Its history, numbered from 1 without gaps, oldest first."""
        environment = selectors.environment_get(request.user, environment_id)
        after = whole_number(request, "after", default=0, least=0, most=2**31 - 1)
        limit = limit_of(request)
        events = list(selectors.events_after(environment, after, limit))
        following = None
        if len(events) == limit:
            following = request.build_absolute_uri(f"{request.path}?after={events[-1].seq}&limit={limit}")
        return Response({"results": EventSerializer(events, many=True).data, "next": following})
