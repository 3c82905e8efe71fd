"""Which version of its template an environment starts with next."""

from __future__ import annotations

from collections.abc import Mapping

from ..models import Environment, TemplateVersion

Redirects = Mapping[tuple[int, int], int]  # (template's key, version) -> the version that replaces it


def redirects(template_id: int | None = None) -> Redirects:
    """Every redirect, or those of one template. There are few: one for each version that a later one replaces."""
    rows = TemplateVersion.objects.filter(replaced_by__isnull=False)
    if template_id is not None:
        rows = rows.filter(template_id=template_id)
    return {(template, version): to for template, version, to in rows.order_by().values_list("template_id", "version", "replaced_by") if to is not None}


def next_version(environment: Environment, known: Redirects | None = None) -> int | None:
    """The version that its next start uses instead of its own, chains followed; None: its own."""
    known = redirects(environment.template_id) if known is None else known
    version: int = environment.template_version
    while (later := known.get((environment.template_id, version), 0)) > version:
        version = later
    return version if version != environment.template_version else None
