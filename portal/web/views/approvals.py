"""Approvals: what waits for an answer, what was answered, and the answer itself."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from portal.domain import selectors, services
from portal.domain.errors import DomainError, NotFound
from portal.domain.models import Approval, Flavor, User

from ..forms import DecisionForm
from ..http import is_refresh, page, signed_in
from ..present import localized

_ANSWERED_SHOWN = 50


@require_GET
@page
def index(request: HttpRequest) -> HttpResponse:
    """Waiting ones first, then the latest answers. Asked by htmx it answers with the live part only."""
    user = signed_in(request)
    visible = selectors.approvals_visible_to(user)
    decidable = set(selectors.approvals_decidable_by(user).values_list("pk", flat=True))
    waiting = visible.filter(status=Approval.Status.PENDING)
    answered = visible.exclude(status=Approval.Status.PENDING).order_by("-decided_at", "-id")[:_ANSWERED_SHOWN]
    context = {
        "section": "approvals",
        "waiting": [{"approval": row, "decidable": row.pk in decidable, "asked": asked(row)} for row in waiting],
        "answered": [{"approval": row, "asked": asked(row), "granted": less(row)} for row in answered],
        "live_url": "/ws/environments/",
        "leads": user.is_staff or selectors.teams_led_by(user).exists(),
    }
    return render(request, "web/_approvals.html" if is_refresh(request) else "web/approvals.html", context)


def asked(approval: Approval) -> dict[str, Any]:
    """What was asked for, for people."""
    return _shape(approval.requested)


def less(approval: Approval) -> dict[str, Any] | None:
    """What was granted, when that is not what was asked for."""
    granted = approval.granted or {}
    return _shape(granted) if granted and any(granted.get(key) != approval.requested.get(key) for key in ("flavor", "workers", "expires_in")) else None


def _shape(wish: dict[str, Any]) -> dict[str, Any]:
    slug = str(wish.get("flavor") or "")
    flavor = Flavor.objects.filter(slug=slug).first()
    return {"flavor": localized(flavor.title) if flavor else slug, "workers": wish.get("workers") or 0, "expires_in": wish.get("expires_in")}


def _get(user: User, approval_id: int) -> Approval:
    approval = selectors.approvals_visible_to(user).filter(pk=approval_id).first()
    if approval is None:
        raise NotFound("There is no such approval.")
    return approval


def _context(approval: Approval, user: User, form: DecisionForm) -> dict[str, Any]:
    return {
        "section": "approvals",
        "approval": approval,
        "environment": approval.environment,
        "asked": asked(approval),
        "granted": less(approval),
        "decidable": selectors.approvals_decidable_by(user).filter(pk=approval.pk).exists(),
        "leads": [person.username for person in selectors.approvers_of(approval)],
        "form": form,
    }


@require_GET
@page
def detail(request: HttpRequest, approval_id: int) -> HttpResponse:
    """One question: a page of its own, or the dialog of the list."""
    user = signed_in(request)
    approval = _get(user, approval_id)
    context = _context(approval, user, DecisionForm(approval=approval))
    return render(request, "web/_approval_dialog.html" if is_refresh(request) else "web/approval.html", context)


@require_POST
@page
def decide(request: HttpRequest, approval_id: int) -> HttpResponse:
    """Approve or refuse, by the button that was pressed. A refusal of the domain is shown at its field."""
    user = signed_in(request)
    approval = _get(user, approval_id)
    form = DecisionForm(request.POST, approval=approval)
    if form.is_valid():
        refuse = request.POST.get("answer") == "refuse"
        try:
            if refuse:
                services.approval_refuse(actor=user, approval_id=approval_id, note=form.granted()["note"])
            else:
                services.approval_grant(actor=user, approval_id=approval_id, **form.granted())
        except NotFound:
            raise
        except DomainError as error:
            form.refuse(error.detail, error.errors)
        else:
            text = _("Refused. %(who)s is told why.") if refuse else _("Approved. %(who)s is told.")
            messages.success(request, text % {"who": approval.asked_by.username})
            return redirect("approvals")
    return render(request, "web/approval.html", _context(_get(user, approval_id), user, form), status=422)
