"""Django admin for the catalogue, held to the same rules as its files. Loading the files again overwrites all but `enabled`."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from portal.domain import services
from portal.domain.models import Accelerator, Flavor, Network, Priority

from . import rows
from . import storage_admin as _storage_admin  # noqa: F401 - registers its own
from . import template_admin as _template_admin  # noqa: F401 - registers its own
from .loader import known_slugs
from .validator import faults_of


class _Catalogue(admin.ModelAdmin):
    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # environments name it; disable it instead


class _RowForm(forms.ModelForm):
    """Columns that are checked as the document they come from, each fault at its column."""

    kind = ""

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        for fault in faults_of(self.kind, rows.document_of(self.instance), known_slugs()):
            column = rows.COLUMNS.get(str(fault.path[0]), str(fault.path[0])) if fault.path else ""
            self.add_error(column if column in self.fields else None, f"{fault.field}: {fault.message}")


class FlavorForm(_RowForm):
    kind = "flavor"

    class Meta:
        model = Flavor
        fields = "__all__"


class AcceleratorForm(_RowForm):
    kind = "accelerator"

    class Meta:
        model = Accelerator
        fields = "__all__"


class NetworkForm(_RowForm):
    kind = "network"

    class Meta:
        model = Network
        fields = "__all__"


class _Rows(_Catalogue):
    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["slug"] if obj else []  # quotas and environments name it


@admin.register(Flavor)
class FlavorAdmin(_Rows):
    form = FlavorForm
    list_display = ["slug", "cpu_millis", "memory_bytes", "accelerator", "accelerator_count", "network", "position", "enabled"]
    list_filter = ["enabled", "accelerator__family", "network"]
    list_select_related = ["accelerator", "network"]


@admin.register(Network)
class NetworkAdmin(_Rows):
    form = NetworkForm
    list_display = ["slug", "kind", "resource_key", "enabled"]
    list_filter = ["kind", "enabled"]


@admin.register(Accelerator)
class AcceleratorAdmin(_Rows):
    form = AcceleratorForm
    list_display = ["slug", "family", "vendor", "sharing", "resource_key", "quota_weight", "cost_per_hour", "enabled"]
    list_filter = ["family", "vendor", "sharing", "enabled"]
    search_fields = ["slug", "vendor", "model", "resource_key"]

    def save_model(self, request: HttpRequest, obj: Accelerator, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        services.quota_rows_ensure()  # each team may use 0 of a new one until granted more


class PriorityForm(forms.ModelForm):
    class Meta:
        model = Priority
        fields = ["slug", "title", "value", "everyone", "teams", "leads_only", "preempts"]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        document = {"slug": data.get("slug") or self.instance.slug} | {key: data[key] for key in ("title", "value") if key in data}
        for fault in () if self.errors else faults_of("priority", document):
            self.add_error(str(fault.path[0]) if fault.path and fault.path[0] in self.fields else None, fault.message)
        return data


@admin.register(Priority)
class PriorityAdmin(admin.ModelAdmin):
    """Which teams may use it is said here only; loading the files again leaves that alone. What waits keeps the value it was asked with."""

    form = PriorityForm
    list_display = ["slug", "value", "everyone", "leads_only", "preempts"]
    list_filter = ["everyone", "leads_only", "preempts"]
    filter_horizontal = ["teams"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["slug"] if obj else []  # environments name it
