"""Templates in the Django admin: the document itself, as YAML, held to the same rules as its file. Versions are looked at, and redirected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from portal.domain import services
from portal.domain.errors import DomainError
from portal.domain.models import Environment, Template, TemplateVersion, User
from portal.domain.params import ORDER, in_order

from .loader import CatalogueError, Document, beside, known_slugs, parse
from .validator import faults_of

_HERE = Path("document")


def as_yaml(spec: dict[str, Any]) -> str:
    """A document as one would write it, where the text that it was read from is not known."""
    params = spec.get("params")
    if isinstance(params, dict):
        kept = {key: value for key, value in params.items() if key != ORDER}
        spec = spec | {"params": kept | ({"properties": in_order(params)} if "properties" in kept else {})}
    return yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=140)


def check(text: str, slug: str = "") -> tuple[Document, list[str]]:
    """The document that is typed, and its faults, each with line and field. `slug`: what it has to keep. Raises CatalogueError: it is not YAML."""
    document = parse("template", text, _HERE)
    found = faults_of("template", document.data, known_slugs()) or beside("template", document.data)
    told = [document.located(fault) for fault in found]
    if not found and slug and document.data["slug"] != slug:
        told = [f"{_HERE}:{document.lines.get(('slug',), 1)}: slug: cannot be changed; environments name it"]
    return document, told


def _with_line(fault: str) -> str:
    """`document:3: field: what` as `line 3: field: what`."""
    return fault.replace(f"{_HERE}:", "line ", 1)


class TemplateForm(forms.ModelForm):
    """The document says everything; the columns beside it are copies for lists and filters."""

    document = forms.CharField(
        widget=forms.Textarea(attrs={"rows": 40, "cols": 140, "spellcheck": "false", "style": "font-family: monospace; white-space: pre; overflow-x: auto"}),
        help_text="YAML, as in docs/adding-a-template.md. Raise `version` with every change; environments keep the version they were made from.",
        strip=False,
    )

    class Meta:
        model = Template
        fields = ["enabled"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            current = self.instance.versions.filter(version=self.instance.version).first()
            self.initial["document"] = (current.source if current else "") or as_yaml(self.instance.spec)

    def clean_document(self) -> Document:
        try:
            document, faults = check(self.cleaned_data["document"].replace("\r\n", "\n"), self.instance.slug)
        except CatalogueError as error:
            faults = error.faults
        if faults:
            raise forms.ValidationError([_with_line(fault) for fault in faults])
        return document


class _LookingOnly:
    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # what was made from it names it


class VersionInline(_LookingOnly, admin.TabularInline):
    model = TemplateVersion
    fields = readonly_fields = ["version", "created_at", "replaced_by", "in_use"]
    ordering = ["-version"]
    extra = 0
    show_change_link = True

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="Environments of it")
    def in_use(self, row: TemplateVersion) -> int:
        return Environment.objects.filter(template_id=row.template_id, template_version=row.version, deleted_at=None).count()


@admin.register(Template)
class TemplateAdmin(admin.ModelAdmin):
    form = TemplateForm
    fields = ["enabled", "document"]
    list_display = ["slug", "kind", "version", "position", "enabled"]
    list_filter = ["kind", "enabled"]
    search_fields = ["slug", "title"]
    inlines = [VersionInline]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # environments name it; disable it instead

    def save_model(self, request: HttpRequest, obj: Template, form: Any, change: bool) -> None:
        document: Document = form.cleaned_data["document"]
        stored = services.template_store(spec=document.data, source=document.text, enabled=obj.enabled)
        for field in ("pk", "slug", "version"):
            setattr(obj, field, getattr(stored, field))


@admin.register(TemplateVersion)
class TemplateVersionAdmin(_LookingOnly, admin.ModelAdmin):
    """Which later version environments of an older one start with next is said by `replaces` in a document, or here."""

    list_display = ["template", "version", "created_at", "replaced_by"]
    list_filter = ["template"]
    list_select_related = ["template"]
    fields = readonly_fields = ["template", "version", "created_at", "replaced_by", "document"]
    actions = ["redirect_to_newest", "keep_their_own"]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_change_permission(request)  # the list has its actions; a version itself never changes

    @admin.display(description="Document")
    def document(self, row: TemplateVersion) -> SafeString:
        return format_html("<pre>{}</pre>", row.source or as_yaml(row.spec))

    @admin.action(description="Let environments of these start with the newest version the next time")
    def redirect_to_newest(self, request: HttpRequest, queryset: Any) -> None:
        self._redirect(request, queryset, newest=True)

    @admin.action(description="Let environments of these keep their own version")
    def keep_their_own(self, request: HttpRequest, queryset: Any) -> None:
        self._redirect(request, queryset, newest=False)

    def _redirect(self, request: HttpRequest, queryset: Any, *, newest: bool) -> None:
        chosen: dict[Template, list[int]] = {}
        for row in queryset.select_related("template"):
            chosen.setdefault(row.template, []).append(row.version)
        for template, versions in chosen.items():
            assert isinstance(request.user, User)  # noqa: S101 - the admin site lets nobody else in
            older = [version for version in versions if not newest or version < template.version]
            try:
                count = services.template_redirect(actor=request.user, template=template, versions=older, to=template.version if newest else None)
            except DomainError as error:
                self.message_user(request, error.detail, level="error")
                continue
            what = f"start with version {template.version} the next time" if newest else "keep their own version"
            self.message_user(request, f"{template.slug}: environments of {count} version{'' if count == 1 else 's'} {what}.")
