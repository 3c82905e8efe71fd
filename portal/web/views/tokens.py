"""API tokens: make one (shown once), see them, revoke them."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from portal.domain import services
from portal.domain.errors import DomainError
from portal.domain.models import ApiToken

from ..forms import TokenForm
from ..http import page, signed_in


@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_variables("plaintext", "context")
@page
def index(request: HttpRequest) -> HttpResponse:
    """Tokens of the one who looks. A new token is in the answer to its POST and nowhere else: not in the session, not in an address."""
    user = signed_in(request)
    form, status = TokenForm(), 200
    plaintext = made = None
    if request.method == "POST":
        form, status = TokenForm(request.POST), 422
        if form.is_valid():
            typed = form.cleaned_data
            try:
                made, plaintext = services.token_create(actor=user, name=typed["name"], scopes=typed["scopes"], expires_in=form.expiry())
            except DomainError as error:
                form.refuse(error.detail, error.errors)
            else:
                form, status = TokenForm(), 200
    context = {
        "section": "tokens",
        "tokens": ApiToken.objects.filter(user=user, revoked_at=None),
        "now": timezone.now(),
        "form": form,
        "made": made,
        "plaintext": plaintext,
    }
    return render(request, "web/tokens.html", context, status=status)


@require_POST
@page
def revoke(request: HttpRequest, token_id: UUID) -> HttpResponse:
    services.token_revoke(actor=signed_in(request), token_id=token_id)
    messages.success(request, _("The token is revoked. What uses it is refused from now on."))
    return redirect("tokens")
