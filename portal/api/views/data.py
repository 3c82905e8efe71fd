"""Datasets, models and the storages in which they lie."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from portal.domain import selectors, services
from portal.domain.models import Artifact

from ..idempotency import idempotent
from ..pagination import NewestFirst, Whole
from ..serializers.data import (
    ArtifactChangeSerializer,
    ArtifactCreateSerializer,
    ArtifactSerializer,
    StorageSerializer,
    VersionCreateSerializer,
    VersionPageSerializer,
    VersionSerializer,
)
from .base import ApiView, ListView


class Storages(ListView):
    """Storages that your teams may use."""

    serializer_class = StorageSerializer
    pagination_class = Whole

    @extend_schema(operation_id="storages_list")
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        return selectors.storages_usable_by(self.request.user)


class Artifacts(ListView):
    kind: str = Artifact.Kind.DATASET.value
    serializer_class = ArtifactSerializer
    pagination_class = NewestFirst
    queryset = Artifact.objects.none()

    @extend_schema(parameters=[OpenApiParameter("q", str, description="Part of the name or the description")])
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        """Those that are shown to you, newest first."""
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        rows = selectors.artifacts_visible_to(self.request.user, self.kind)
        return selectors.artifacts_search(rows, self.request.query_params.get("q", ""))

    @extend_schema(request=ArtifactCreateSerializer, responses={201: ArtifactSerializer})
    @idempotent()
    def post(self, request: Any) -> Response:
        """Register a name; its versions are added to it."""
        form = ArtifactCreateSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        artifact = services.artifact_create(actor=request.user, kind=self.kind, **form.validated_data)
        location = request.build_absolute_uri(reverse(f"api:{self.kind}", args=[artifact.name]))
        return Response(ArtifactSerializer(artifact).data, status=201, headers={"Location": location})


class ArtifactDetail(ApiView):
    kind: str = Artifact.Kind.DATASET.value
    serializer_class = ArtifactSerializer

    def get(self, request: Any, name: str) -> Response:
        """One of them, with its newest version."""
        return Response(ArtifactSerializer(selectors.artifact_get(request.user, self.kind, name)).data)

    @extend_schema(request=ArtifactChangeSerializer)
    def patch(self, request: Any, name: str) -> Response:
        """Change what is said of it and who sees it."""
        form = ArtifactChangeSerializer(data=request.data)
        selectors.artifact_get(request.user, self.kind, name)
        form.is_valid(raise_exception=True)
        return Response(ArtifactSerializer(services.artifact_update(actor=request.user, kind=self.kind, name=name, **form.validated_data)).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Any, name: str) -> Response:
        """Take it with all versions off the list. The files stay where they are."""
        services.artifact_delete(actor=request.user, kind=self.kind, name=name)
        return Response(status=204)


class Versions(ApiView):
    kind: str = Artifact.Kind.DATASET.value
    serializer_class = VersionSerializer

    @extend_schema(responses=VersionPageSerializer)
    def get(self, request: Any, name: str) -> Response:
        """Its versions, newest first."""
        artifact = selectors.artifact_get(request.user, self.kind, name)
        return Response({"results": VersionSerializer(selectors.versions_of(artifact), many=True).data, "next": None})

    @extend_schema(request=VersionCreateSerializer, responses={201: VersionSerializer})
    @idempotent()
    def post(self, request: Any, name: str) -> Response:
        """Register what lies in a storage or in the home volume of an environment as the next version."""
        form = VersionCreateSerializer(data=request.data)
        selectors.artifact_get(request.user, self.kind, name)
        form.is_valid(raise_exception=True)
        wish = dict(form.validated_data)
        wish["environment_id"] = wish.pop("environment", "")
        version = services.artifact_version_add(actor=request.user, kind=self.kind, name=name, **wish)
        return Response(VersionSerializer(version).data, status=201)


class VersionDetail(ApiView):
    kind: str = Artifact.Kind.DATASET.value

    @extend_schema(responses={204: None})
    def delete(self, request: Any, name: str, number: int) -> Response:
        """Take one version off the list; its number is not given again."""
        services.artifact_version_delete(actor=request.user, kind=self.kind, name=name, number=number)
        return Response(status=204)
