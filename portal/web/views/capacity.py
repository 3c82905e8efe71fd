"""What the cluster has and what is free now, before anything is asked for."""

from __future__ import annotations

from itertools import groupby

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from portal.domain import selectors

from ..http import page, signed_in


@require_GET
@page
def index(request: HttpRequest) -> HttpResponse:
    """Accelerators by family and flavors; those that no node has are told apart, with why."""
    flavors = selectors.flavors_with_capacity(signed_in(request))
    chips = selectors.accelerators_with_capacity()
    here = sorted((item for item in chips if item.total), key=lambda item: (item.accelerator.family, item.accelerator.slug))
    context = {
        "section": "capacity",
        "known": any(item.known for item in chips),
        "families": [(family, list(rows)) for family, rows in groupby(here, key=lambda item: item.accelerator.family)],
        "absent": [item for item in chips if not item.total],
        "flavors": [item for item in flavors if item.capacity.fits],
        "never": [item for item in flavors if not item.capacity.fits],
    }
    return render(request, "web/capacity.html", context)
