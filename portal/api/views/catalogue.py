"""What can be asked for."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema

from portal.domain import selectors
from portal.domain.errors import NotFound
from portal.domain.models import Template

from ..pagination import Whole
from ..serializers import AcceleratorSerializer, FlavorSerializer, TemplateSerializer
from .base import ListView, RetrieveView


class Templates(ListView):
    """Templates that may be requested, with their parameters as JSON Schema."""

    serializer_class = TemplateSerializer
    pagination_class = Whole
    queryset = Template.objects.none()

    def get_queryset(self) -> Any:
        return selectors.templates_enabled()


class TemplateDetail(RetrieveView):
    """One template."""

    serializer_class = TemplateSerializer
    queryset = Template.objects.none()
    lookup_field = "slug"

    def get_object(self) -> Any:
        template = selectors.templates_enabled().filter(slug=self.kwargs["slug"]).first()
        if template is None:
            raise NotFound("There is no such template.")
        return template


class Flavors(ListView):
    """Shapes, with what the cluster holds of each and what is free now."""

    serializer_class = FlavorSerializer
    pagination_class = Whole

    @extend_schema(operation_id="flavors_list")
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        return selectors.flavors_with_capacity(self.request.user)


class Accelerators(ListView):
    """Accelerators, with their devices: all, in use, free now."""

    serializer_class = AcceleratorSerializer
    pagination_class = Whole

    @extend_schema(operation_id="accelerators_list")
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        return selectors.accelerators_with_capacity()
