"""Django admin for teams, quotas, people, and a read-only look at environments. What has rules of its own goes through the services."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.http import HttpRequest

from . import services
from .errors import DomainError
from .models import Approval, ApprovalRule, Environment, Event, Membership, Node, Notification, PodException, Quota, Team, Usage, User, Volume
from .quantities import BASE_RESOURCES, accelerator_of
from .services.asking import HOURS


class ReadOnly(admin.ModelAdmin):
    """Looking only."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class EventInline(admin.TabularInline):
    model = Event
    fields = ["seq", "created_at", "kind", "code", "message", "actor"]
    readonly_fields = ["seq", "created_at", "kind", "code", "message", "actor"]
    ordering = ["-seq"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Environment)
class EnvironmentAdmin(ReadOnly):
    """Its verbs are on the environment's own page, where their effects are."""

    list_display = ["name", "kind", "owner", "team", "state", "desired", "reason", "created_at"]
    list_filter = ["state", "kind", "team"]
    search_fields = ["name", "owner__username", "=id"]
    list_select_related = ["owner", "team"]
    inlines = [EventInline]


@admin.register(Volume)
class VolumeAdmin(ReadOnly):
    list_display = ["name", "owner", "team", "size_bytes", "created_at", "purge_requested_at"]
    list_filter = ["team"]
    search_fields = ["name", "owner__username"]


@admin.register(Usage)
class UsageAdmin(ReadOnly):
    """What was held and for how long: the ground of budgets, so nothing to be corrected by hand."""

    list_display = ["environment", "owner", "team", "resource", "amount", "weight", "started_at", "ended_at"]
    list_filter = ["team", "resource"]
    search_fields = ["owner__username", "environment__name", "=environment__id"]
    list_select_related = ["environment", "owner", "team"]
    date_hierarchy = "started_at"


@admin.register(Node)
class NodeAdmin(ReadOnly):
    list_display = ["name", "ready", "simulated", "allocatable", "used", "seen_at"]


@admin.register(Team)
class TeamAdmin(admin.ModelAdmin):
    list_display = ["slug", "name", "self_approval", "created_at"]
    search_fields = ["slug", "name"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["slug"] if obj else []  # the namespace is called after it

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its namespace and volumes would be left behind

    def save_model(self, request: HttpRequest, obj: Team, form: Any, change: bool) -> None:
        if change:
            obj.save(update_fields=["name", "self_approval"])
        else:
            obj.pk = services.team_create(actor=_actor(request), slug=obj.slug, name=obj.name).pk
            if obj.self_approval:
                Team.objects.filter(pk=obj.pk).update(self_approval=True)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change=change, form=TeamForm, **kwargs)


class TeamForm(forms.ModelForm):
    class Meta:
        model = Team
        fields = ["slug", "name", "self_approval"]

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        try:
            services.check_team_slug(slug)
        except DomainError as error:
            raise forms.ValidationError(error.detail) from None
        return slug


class PodExceptionForm(forms.ModelForm):
    class Meta:
        model = PodException
        fields = ["team", "capability", "reason"]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("capability"):
            try:
                data["capability"] = services.check_capability(data["capability"])
            except DomainError as error:
                self.add_error("capability", error.detail)
        if not self.errors and PodException.objects.filter(team=data["team"], capability=data["capability"], revoked_at=None).exists():
            self.add_error("capability", "The team has this exception already.")
        return data


@admin.register(PodException)
class PodExceptionAdmin(ReadOnly):
    """Granted here, revoked by the action of the list. Rows stay: they are the record of who allowed what and why."""

    form = PodExceptionForm
    list_display = ["team", "capability", "reason", "granted_by", "granted_at", "revoked_by", "revoked_at"]
    list_filter = ["team", "capability"]
    list_select_related = ["team", "granted_by", "revoked_by"]
    actions = ["revoke"]

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_staff)

    def save_model(self, request: HttpRequest, obj: PodException, form: Any, change: bool) -> None:
        obj.pk = services.exception_grant(actor=_actor(request), team=obj.team, capability=obj.capability, reason=obj.reason).pk

    @admin.action(description="Revoke: environments that need it are stopped", permissions=["add"])
    def revoke(self, request: HttpRequest, queryset: Any) -> None:
        for row in queryset:
            try:
                services.exception_revoke(actor=_actor(request), exception_id=row.pk)
            except DomainError as error:
                self.message_user(request, error.detail, level="error")


class ApprovalRuleForm(forms.ModelForm):
    class Meta:
        model = ApprovalRule
        fields = ["team", "template", "flavor", "resource", "above", "enabled"]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        resource, above = data.get("resource", ""), data.get("above")
        if resource and resource not in (*BASE_RESOURCES, HOURS) and not accelerator_of(resource):
            raise forms.ValidationError({"resource": f"Must be one of {', '.join((*BASE_RESOURCES, HOURS))} or accelerator:<slug>."})
        if bool(resource) != (above is not None) or (above is not None and above < 0):
            raise forms.ValidationError({"above": "A resource and the amount up to which it needs no approval go together; the amount is 0 or more."})
        if not resource and not data.get("template") and not data.get("flavor"):
            raise forms.ValidationError("Name a template, a flavor, or a resource with an amount.")
        return data


@admin.register(ApprovalRule)
class ApprovalRuleAdmin(admin.ModelAdmin):
    """Thresholds of self-service. They hold for what is asked for from now on."""

    form = ApprovalRuleForm
    list_display = ["id", "team", "template", "flavor", "resource", "above", "enabled"]
    list_filter = ["team", "enabled"]
    list_select_related = ["team", "template", "flavor"]


@admin.register(Approval)
class ApprovalAdmin(ReadOnly):
    """Answered on the portal's own page, where the answer has its effects."""

    list_display = ["environment", "status", "asked_by", "decided_by", "created_at", "decided_at", "lapses_at"]
    list_filter = ["status", "environment__team"]
    search_fields = ["environment__name", "asked_by__username", "decided_by__username"]
    list_select_related = ["environment", "asked_by", "decided_by"]


@admin.register(Notification)
class NotificationAdmin(ReadOnly):
    list_display = ["user", "code", "message", "created_at", "read_at"]
    list_filter = ["code"]
    search_fields = ["user__username", "message"]
    list_select_related = ["user"]


@admin.register(Membership)
class MembershipAdmin(admin.ModelAdmin):
    list_display = ["user", "team", "role"]
    list_filter = ["team", "role"]
    search_fields = ["user__username", "team__slug"]
    autocomplete_fields = ["user", "team"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["user", "team"] if obj else []

    def save_model(self, request: HttpRequest, obj: Membership, form: Any, change: bool) -> None:
        obj.pk = services.membership_set(actor=_actor(request), team=obj.team, user=obj.user, role=obj.role).pk

    def delete_model(self, request: HttpRequest, obj: Membership) -> None:
        services.membership_remove(actor=_actor(request), team=obj.team, user=obj.user)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for row in queryset.select_related("team", "user"):
            self.delete_model(request, row)


class QuotaForm(forms.ModelForm):
    class Meta:
        model = Quota
        fields = ["team", "user", "resource", "limit"]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        row = self.instance
        team, user = data.get("team") or getattr(row, "team", None), data.get("user") or row.user
        resource = data.get("resource") or row.resource
        if team and resource and not self.errors:
            try:
                services.check_quota(team=team, user=user, resource=resource, limit=data.get("limit"))
            except DomainError as error:
                raise forms.ValidationError(error.detail) from None
        return data


@admin.register(Quota)
class QuotaAdmin(admin.ModelAdmin):
    form = QuotaForm
    list_display = ["team", "user", "resource", "limit", "used", "period"]
    list_filter = ["team", "resource"]
    search_fields = ["user__username", "resource"]
    list_select_related = ["team", "user"]
    autocomplete_fields = ["user", "team"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["team", "user", "resource", "used", "period"] if obj else ["used", "period"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a row also keeps what is in use

    def save_model(self, request: HttpRequest, obj: Quota, form: Any, change: bool) -> None:
        obj.pk = services.quota_set(actor=_actor(request), team=obj.team, user=obj.user, resource=obj.resource, limit=obj.limit).pk


@admin.register(User)
class UserAdmin(BaseUserAdmin):
    """People. Taking away `active` ends every access of theirs, the Hub's included."""

    list_display = ["username", "first_name", "last_name", "is_active", "is_staff"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # their environments and history name them; deactivate instead

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        deactivated = change and not obj.is_active and "is_active" in form.changed_data
        if deactivated:
            obj.is_active = True
        super().save_model(request, obj, form, change)
        if deactivated:
            try:
                services.user_deactivate(actor=_actor(request), user=obj)
            except DomainError as error:
                self.message_user(request, error.detail, level="error")


def _actor(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - the admin site lets nobody else in
    return request.user
