"""One's own settings: time zone and language."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import translation
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from portal.domain import services
from portal.domain.errors import DomainError
from portal.identity.views import set_language_cookie

from ..forms import SettingsForm
from ..http import page, signed_in


@require_http_methods(["GET", "HEAD", "POST"])
@page
def settings(request: HttpRequest) -> HttpResponse:
    user = signed_in(request)
    if request.method != "POST":
        return render(
            request, "web/settings.html", {"section": "settings", "form": SettingsForm(initial={"timezone": user.timezone, "language": user.language})}
        )
    form = SettingsForm(request.POST)
    if form.is_valid():
        typed = form.cleaned_data
        try:
            services.preferences_set(actor=user, timezone=typed["timezone"], language=typed["language"])
        except DomainError as error:
            form.refuse(error.detail, error.errors)
        else:
            with translation.override(typed["language"] or translation.get_language()):
                messages.success(request, _("Your settings are saved."))
            response = redirect("settings")
            if typed["language"]:
                set_language_cookie(response, typed["language"])
            return response
    return render(request, "web/settings.html", {"section": "settings", "form": form}, status=422)
