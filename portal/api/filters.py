"""Filters of the list of environments."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import Q, QuerySet

from portal.domain.errors import ValidationError
from portal.domain.lifecycle import State
from portal.domain.models import Environment, Template


class EnvironmentFilter(django_filters.FilterSet):
    state = django_filters.MultipleChoiceFilter(
        choices=[(s.value, s.value) for s in State], help_text="May be given several times; deleted ones are left out unless asked for"
    )
    kind = django_filters.ChoiceFilter(choices=Template.Kind.choices)
    team = django_filters.CharFilter(field_name="team__slug", max_length=60)
    owner = django_filters.CharFilter(field_name="owner__username", max_length=150)
    q = django_filters.CharFilter(method="search", max_length=100, help_text="Part of the name, the template or the owner")

    class Meta:
        model = Environment
        fields = ["state", "kind", "team", "owner", "q"]

    def search(self, queryset: QuerySet[Environment], name: str, value: str) -> QuerySet[Environment]:
        return queryset.filter(Q(name__icontains=value) | Q(template__slug__icontains=value) | Q(owner__username__icontains=value))

    def filter_queryset(self, queryset: Any) -> Any:
        if not self.form.cleaned_data.get("state"):
            queryset = queryset.exclude(state=State.DELETED)
        return super().filter_queryset(queryset)


def filtered(request: Any, queryset: QuerySet[Environment]) -> QuerySet[Environment]:
    """The queryset narrowed by the query. Raises ValidationError naming each wrong filter."""
    filters = EnvironmentFilter(request.query_params, queryset=queryset, request=request)
    if not filters.is_valid():
        errors = {field: [str(m) for m in messages] for field, messages in filters.errors.items()}
        raise ValidationError(" ".join(f"{field}: {messages[0]}" for field, messages in errors.items()), errors=errors)
    return filters.qs
