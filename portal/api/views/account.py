"""The caller: who it is, quotas, kept volumes, tokens."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import OuterRef, Q, Subquery
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from portal.domain import selectors, services
from portal.domain.errors import Forbidden
from portal.domain.lifecycle import State
from portal.domain.models import ApiToken, Environment, Quota, Volume
from portal.domain.tokens import expand

from ..idempotency import idempotent
from ..pagination import Whole
from ..serializers import (
    MeChangeSerializer,
    MeSerializer,
    QuotaSerializer,
    TokenCreateSerializer,
    TokenMadeSerializer,
    TokenPageSerializer,
    TokenSerializer,
    VolumeSerializer,
)
from .base import ApiView, ListView


class Me(ApiView):
    """Who you are, your teams, and the limits that apply to you."""

    @extend_schema(responses=MeSerializer)
    def get(self, request: Any) -> Response:
        return self._me(request)

    @extend_schema(request=MeChangeSerializer, responses=MeSerializer)
    def patch(self, request: Any) -> Response:
        """Choose your time zone and language."""
        form = MeChangeSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        services.preferences_set(actor=request.user, **form.validated_data)
        return self._me(request)

    def _me(self, request: Any) -> Response:
        user = request.user
        user.effective_quotas = selectors.quota_rows(user).filter(Q(user=None) | Q(user=user), team__memberships__user=user)
        user.scopes = sorted(expand(request.auth.scopes)) if isinstance(request.auth, ApiToken) else None
        return Response(MeSerializer(user).data)


class Quotas(ListView):
    """Limits and use: your teams' and your own; for leads and admins also those of members."""

    serializer_class = QuotaSerializer
    pagination_class = Whole
    queryset = Quota.objects.none()

    @extend_schema(parameters=[OpenApiParameter("team", str, description="Only of this team")])
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        rows, team = selectors.quota_rows(self.request.user), self.request.query_params.get("team")
        return rows.filter(team__slug=team.replace("\x00", "\ufffd")) if team else rows


class Volumes(ListView):
    """Home volumes that you may see. One without an environment is kept and holds storage until it is deleted."""

    serializer_class = VolumeSerializer
    pagination_class = Whole
    queryset = Volume.objects.none()

    def get_queryset(self) -> Any:
        live = Environment.objects.filter(volume=OuterRef("pk")).exclude(state=State.DELETED).values("pk")[:1]
        return selectors.volumes_visible_to(self.request.user).annotate(live_environment=Subquery(live)).order_by("-created_at", "id")


class VolumeDetail(ApiView):
    @extend_schema(responses={202: VolumeSerializer})
    def delete(self, request: Any, volume_id: UUID) -> Response:
        """Destroy a kept home volume. It is listed until its claim is gone from the cluster."""
        volume = services.volume_purge(actor=request.user, volume_id=volume_id)
        volume.live_environment = None  # type: ignore[attr-defined]
        return Response(VolumeSerializer(volume).data, status=202)


class Tokens(ApiView):
    """Your API tokens."""

    scope = "tokens"
    pagination_class = Whole

    @extend_schema(responses=TokenPageSerializer, operation_id="tokens_list")
    def get(self, request: Any) -> Response:
        """Your valid tokens; the tokens themselves are not kept."""
        rows = ApiToken.objects.filter(user=request.user, revoked_at=None, expires_at__gt=timezone.now())
        return Response({"results": TokenSerializer(rows, many=True).data, "next": None})

    @extend_schema(request=TokenCreateSerializer, responses={201: TokenMadeSerializer})
    @idempotent(secret="token")  # noqa: S106 - the name of a field
    def post(self, request: Any) -> Response:
        """Make a token. It is shown only in this answer. A token can pass on no scope that it lacks."""
        form = TokenCreateSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        if isinstance(request.auth, ApiToken):
            lacking = sorted(set(form.validated_data["scopes"]) - expand(request.auth.scopes))
            if lacking:
                raise Forbidden(f"This token lacks {', '.join(lacking)}, so it cannot make a token with it.")
        row, plaintext = services.token_create(actor=request.user, **form.validated_data)
        return Response(TokenMadeSerializer(row, context={"plaintext": plaintext}).data, status=201)


class TokenDetail(ApiView):
    scope = "tokens"

    @extend_schema(responses={204: None})
    def delete(self, request: Any, token_id: UUID) -> Response:
        """Revoke a token, at once and for good."""
        services.token_revoke(actor=request.user, token_id=token_id)
        return Response(status=204)
