"""Limits and use, per team and per user."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from portal.domain import selectors
from portal.domain.models import Quota
from portal.domain.quantities import accelerator_of

from .. import present
from ..http import page, signed_in


@require_GET
@page
def index(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    groups: list[dict[str, Any]] = []
    for (team, person), rows in groupby(selectors.quota_rows(user), key=lambda row: (row.team, row.user)):
        shown = [_bar(row) for row in sorted(rows, key=lambda row: present.resource_order(row.resource)) if _says_something(row)]
        if shown:
            groups.append({"team": team, "person": person, "mine": person == user, "bars": shown})
    context = {"section": "quotas", "groups": groups, "accelerators": [item for item in selectors.accelerators_with_capacity() if item.total]}
    return render(request, "web/quotas.html", context)


def _says_something(row: Quota) -> bool:
    """Not an accelerator of the catalogue that nobody granted: there are dozens."""
    return bool(row.used or row.limit) or (row.limit == 0 and accelerator_of(row.resource) is None)


def _bar(row: Quota) -> present.Bar:
    return present.bar(row.resource, row.limit, row.used)
