"""The queue: what waits, in order."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from portal.domain import selectors

from ..http import is_refresh, page, signed_in


@require_GET
@page
def index(request: HttpRequest) -> HttpResponse:
    """Asked by htmx it answers with the live part only."""
    context = {"section": "queue", "rows": selectors.queue_of(signed_in(request)), "live_url": "/ws/environments/"}
    return render(request, "web/_queue.html" if is_refresh(request) else "web/queue.html", context)
