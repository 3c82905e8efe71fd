"""Versions of templates: kept for ever under their numbers, and how an older one is redirected to a newer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import Q

from ..errors import Conflict, ValidationError
from ..models import Template, TemplateVersion, User
from ..params import ORDER, in_order


def normalised(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The document as it is kept: the order of the parameters written down."""
    params = spec.get("params")
    properties = params.get("properties") if isinstance(params, Mapping) else None
    if not isinstance(params, Mapping) or not isinstance(properties, Mapping) or not properties:
        return dict(spec)
    return {**spec, "params": {**params, ORDER: list(in_order(params))}}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two documents say the same; 1 and true differ, the order of keys does not matter."""
    return _text(one) == _text(other)


def _text(spec: Mapping[str, Any]) -> str:
    params = spec.get("params")
    plain = {**spec, "params": {key: value for key, value in params.items() if key != ORDER}} if isinstance(params, Mapping) else spec
    return json.dumps(plain, sort_keys=True, ensure_ascii=True)


def template_faults(spec: Mapping[str, Any]) -> dict[str, str]:
    """Why a document that is valid in itself cannot be stored beside what is known of its slug: field -> what is wrong. Reads only."""
    number = spec["version"]
    wrong = {}
    template = Template.objects.filter(slug=spec["slug"]).first()
    if template is not None and template.kind != spec["kind"]:
        wrong["kind"] = f"{template.slug} is a {template.kind}, and environments of it stay that; use another slug"
    stored = TemplateVersion.objects.filter(template=template, version=number).first() if template else None
    known = stored.spec if stored else template.spec if template and template.version == number else None
    if known is not None and not _same(known, spec):
        newest = max([template.version, *template.versions.values_list("version", flat=True)]) if template else number
        wrong["version"] = f"version {number} is known already and says something else; raise it to {newest + 1}"
    later = [old for old in spec.get("replaces", ()) if old >= number]
    if later:
        wrong["replaces"] = f"version {later[0]} is not older than this one, which is {number}; only older versions can be replaced"
    return wrong


def template_store(*, spec: Mapping[str, Any], source: str = "", enabled: bool | None = None) -> Template:
    """Keep a version of a template. The highest number is what can be asked for; one that is lower is kept for what was made from it.

    `spec` is a valid template document, `source` the YAML it was read from. What the version `replaces` is redirected to it when it is stored first;
    from then on that is the admin's. Raises ValidationError: the number says something else already, the kind changes, a replaced version is not older.
    """
    with transaction.atomic():
        template = Template.objects.select_for_update().filter(slug=spec["slug"]).first()
        if wrong := template_faults(spec):
            raise ValidationError(
                "; ".join(f"{field}: {message}" for field, message in wrong.items()), errors={field: [message] for field, message in wrong.items()}
            )
        document = normalised(spec)
        if template is None:
            template = Template.objects.create(slug=spec["slug"], kind=spec["kind"], version=spec["version"], spec=document, enabled=spec.get("enabled", True))
        values = {"spec": document} | ({"source": source} if source else {})
        row, new = TemplateVersion.objects.update_or_create(template=template, version=spec["version"], defaults=values)
        if new:
            _redirect(template, row)
        _make_current(template, enabled)
        return template


def _redirect(template: Template, row: TemplateVersion) -> None:
    """What `row` replaces goes to it, and `row` goes to a newer one that says so, in whatever order they were loaded."""
    older = template.versions.filter(version__in=row.spec.get("replaces", ()), version__lt=row.version)
    older.filter(Q(replaced_by=None) | Q(replaced_by__lt=row.version)).update(replaced_by=row.version)
    newer = [other.version for other in template.versions.filter(version__gt=row.version) if row.version in other.spec.get("replaces", ())]
    if newer:
        template.versions.filter(pk=row.pk).update(replaced_by=max(newer))


def _make_current(template: Template, enabled: bool | None) -> None:
    """The template's own columns are those of its highest version."""
    spec = template.versions.order_by("-version").values_list("spec", flat=True)[0]
    template.spec, template.version, template.kind, template.title = spec, spec["version"], spec["kind"], spec["title"]
    template.description, template.icon, template.position = spec.get("description", {}), spec.get("icon", ""), spec.get("position", 100)
    if enabled is not None:
        template.enabled = enabled
    template.save()


def template_redirect(*, actor: User, template: Template, versions: list[int], to: int | None) -> int:
    """Let environments made from `versions` start with version `to` the next time (None: with their own again); how many were changed.

    Raises Conflict: there is no such version, or it is not newer than each of them.
    """
    if not actor.is_staff:
        raise Conflict("Only platform admins redirect versions of templates.")
    with transaction.atomic():
        Template.objects.select_for_update().get(pk=template.pk)
        if to is not None:
            if not template.versions.filter(version=to).exists():
                raise Conflict(f"There is no version {to} of {template.slug}.")
            if late := [version for version in versions if version >= to]:
                raise Conflict(f"Version {max(late)} of {template.slug} is not older than {to}; only older versions can be redirected to it.")
        return template.versions.filter(version__in=versions).update(replaced_by=to)
