"""Django admin of storages: their documents, grants, and secrets, which are written here and never shown."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.views.decorators.debug import sensitive_post_parameters

from portal.domain import services
from portal.domain.errors import DomainError
from portal.domain.models import Storage, StorageGrant, TeamClaim, User

from .validator import faults_of

_SECRET, _CLEAR = "secret_", "clear_"


class StorageForm(forms.ModelForm):
    """The document in `spec` says everything; `enabled` is the admin's. Fields of secrets begin empty whatever is kept."""

    class Meta:
        model = Storage
        fields = ["enabled", "spec"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kept = {row.key: row for row in self.instance.secrets.select_related("set_by")} if self.instance.pk else {}
        for key, about in ((self.instance.spec or {}).get("secrets") or {}).items():
            row = kept.get(key)
            if row:
                who = row.set_by.username if row.set_by else "?"
                said = f"Set on {date_format(localtime(row.set_at), 'DATETIME_FORMAT')} by {who}. Leave it empty to keep it."
            else:
                said = "Not set."
            options: dict[str, Any] = {"label": f"Secret {key}", "required": False, "help_text": said}
            if about.get("file"):
                self.fields[_SECRET + key] = forms.FileField(**options)
            else:
                widget = forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password", "size": 60})
                self.fields[_SECRET + key] = forms.CharField(strip=False, widget=widget, **options)
            if row:
                self.fields[_CLEAR + key] = forms.BooleanField(label=f"Forget secret {key}", required=False)

    def clean_spec(self) -> Any:
        spec = self.cleaned_data["spec"]
        faults = faults_of("storage", spec)
        if faults:
            raise forms.ValidationError([f"{fault.field}: {fault.message}" for fault in faults])
        if self.instance.pk and spec["slug"] != self.instance.slug:
            raise forms.ValidationError("slug: cannot be changed; environments, datasets and models name it")
        if not self.instance.pk and Storage.objects.filter(slug=spec["slug"]).exists():
            raise forms.ValidationError(f"slug: there is a storage {spec['slug']} already")
        return spec

    def secrets_typed(self) -> dict[str, bytes]:
        typed = {name.removeprefix(_SECRET): value for name, value in self.cleaned_data.items() if name.startswith(_SECRET) and value}
        return {key: value.encode() if isinstance(value, str) else value.read() for key, value in typed.items()}

    def secrets_cleared(self) -> list[str]:
        return [name.removeprefix(_CLEAR) for name, value in self.cleaned_data.items() if name.startswith(_CLEAR) and value]


@admin.register(Storage)
class StorageAdmin(admin.ModelAdmin):
    """What is changed here is not overwritten when the files are loaded again."""

    form = StorageForm
    list_display = ["slug", "kind", "position", "enabled", "edited"]
    list_filter = ["kind", "enabled"]
    search_fields = ["slug"]
    actions = ["follow_files"]

    def get_fieldsets(self, request: HttpRequest, obj: Storage | None = None) -> Any:
        names = list((obj.spec if obj else {}).get("secrets") or {})
        kept = set(obj.secrets.values_list("key", flat=True)) if obj else set()
        secret = [name for key in names for name in (_SECRET + key, *([_CLEAR + key] if key in kept else []))]
        return [(None, {"fields": ["enabled", "spec"]}), *([("Secrets, never shown again", {"fields": secret})] if secret else [])]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change=change, **{**kwargs, "fields": ["enabled", "spec"]})

    @method_decorator(sensitive_post_parameters())
    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return super().changeform_view(request, *args, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # environments, datasets and models name it; disable it instead

    def save_model(self, request: HttpRequest, obj: Storage, form: Any, change: bool) -> None:
        for field in ("slug", "kind", "title"):
            setattr(obj, field, obj.spec[field])
        obj.position = obj.spec.get("position", 100)
        before = Storage.objects.filter(pk=obj.pk).values_list("spec", flat=True).first()
        obj.edited = obj.edited or obj.spec != before
        super().save_model(request, obj, form, change)
        try:
            for key in form.secrets_cleared():
                services.storage_secret_clear(actor=_actor(request), storage=obj, key=key)
            for key, value in form.secrets_typed().items():
                services.storage_secret_set(actor=_actor(request), storage=obj, key=key, value=value)
        except DomainError as error:
            self.message_user(request, error.detail, level=messages.ERROR)
        services.storage_changed(obj)

    @admin.action(description="Follow the catalogue's files again, from their next loading on")
    def follow_files(self, request: HttpRequest, queryset: Any) -> None:
        queryset.update(edited=False)


@admin.register(StorageGrant)
class StorageGrantAdmin(admin.ModelAdmin):
    """Which team may read, or read and write, what."""

    list_display = ["storage", "team", "access", "granted_by", "granted_at"]
    list_filter = ["storage", "team", "access"]
    list_select_related = ["storage", "team", "granted_by"]
    fields = ["storage", "team", "access"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["storage", "team"] if obj else []

    def save_model(self, request: HttpRequest, obj: StorageGrant, form: Any, change: bool) -> None:
        obj.pk = services.storage_grant_set(actor=_actor(request), storage=obj.storage, team=obj.team, access=obj.access).pk

    def delete_model(self, request: HttpRequest, obj: StorageGrant) -> None:
        services.storage_grant_remove(actor=_actor(request), storage=obj.storage, team=obj.team)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for row in queryset.select_related("storage", "team"):
            self.delete_model(request, row)


@admin.register(TeamClaim)
class TeamClaimAdmin(admin.ModelAdmin):
    """Volumes that teams share. Made when first asked for; here they can only be destroyed."""

    list_display = ["storage", "team", "size_bytes", "created_at", "purge_requested_at"]
    list_filter = ["team", "storage"]
    list_select_related = ["storage", "team"]
    actions = ["purge"]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(obj is None and super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.action(description="Destroy these volumes and everything in them")
    def purge(self, request: HttpRequest, queryset: Any) -> None:
        for row in queryset:
            try:
                services.team_claim_purge(actor=_actor(request), claim_id=row.pk)
            except DomainError as error:
                self.message_user(request, error.detail, level=messages.ERROR)


def _actor(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - the admin site lets nobody else in
    return request.user
