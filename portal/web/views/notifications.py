"""Notifications: the bell of every page, the list, marking as read."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from portal.domain import selectors, services

from ..http import is_refresh, page, signed_in

_PER_PAGE = 30


@require_GET
@page
def index(request: HttpRequest) -> HttpResponse:
    """Newest first, unread ones marked."""
    rows = selectors.notifications_of(signed_in(request))
    context = {"section": "notifications", "page": Paginator(rows, _PER_PAGE).get_page(request.GET.get("page")), "live_url": "/ws/notifications/"}
    return render(request, "web/_notifications.html" if is_refresh(request) else "web/notifications.html", context)


@never_cache
@require_GET
def bell(request: HttpRequest) -> HttpResponse:
    """The bell with its number. Someone who is not signed in any more gets nothing, and keeps what he was typing on the page around it."""
    if not request.user.is_authenticated:
        return HttpResponse(status=204)
    return render(request, "partials/bell.html")


@require_POST
@page
def read(request: HttpRequest) -> HttpResponse:
    """Mark one as read and go where it leads, or mark all."""
    user, number = signed_in(request), request.POST.get("id", "")
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        services.notifications_read(actor=user)
        return redirect("notifications")
    services.notifications_read(actor=user, ids=[int(number)])
    row = selectors.notifications_of(user).filter(pk=int(number)).first()
    if row is None or row.environment_id is None or request.POST.get("go") is None:
        return redirect("notifications")
    return redirect(reverse("approvals") if row.code == "ApprovalAsked" else reverse("environment", args=[row.environment_id]))
