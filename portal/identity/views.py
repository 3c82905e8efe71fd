"""Sign-in, sign-out, password and language. HTML only."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from allauth.account.views import LoginView, LogoutView, PasswordChangeView
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse, reverse_lazy
from django.views.decorators.http import require_POST
from django.views.i18n import set_language


def set_language_cookie(response: HttpResponse, language: str) -> None:
    """Keep the language in the browser, as Django's own view does."""
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        language,
        max_age=settings.LANGUAGE_COOKIE_AGE,
        samesite=settings.SESSION_COOKIE_SAMESITE,
        secure=settings.SESSION_COOKIE_SECURE,
    )


class SignInView(LoginView):
    """Sign-in by user name and password."""

    def form_valid(self, form) -> HttpResponse:
        response = super().form_valid(form)
        language = getattr(self.request.user, "language", "")
        if language:
            set_language_cookie(response, language)
        return response


class SignOutView(LogoutView):
    """Sign-out. GET asks, POST ends the session here and goes on to the Hub, which clears its cookies and comes back.

    Both ends of that way are settings; a `next` in the request is not followed.
    """

    def get_redirect_url(self) -> str:
        return reverse("account_login")

    def post(self, *args, **kwargs) -> HttpResponse:
        self.logout()
        # The worker ends the Hub's sessions in any case. With the Hub down the browser would be left on an error page.
        return redirect(f"{settings.HUB_PUBLIC_URL}/hub/logout" if hub_listens() else self.get_redirect_url())


def hub_listens(timeout: float = 0.5) -> bool:
    """Whether the Hub accepts connections. `timeout` in seconds."""
    parts = urlsplit(settings.HUB_API_URL)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", port), timeout=timeout).close()
    except OSError:
        return False
    return True


class ChangePasswordView(PasswordChangeView):
    """A new password; other sessions and Hub access end with the old one."""

    success_url = reverse_lazy("account_change_password")


@require_POST
def language_set(request: HttpRequest) -> HttpResponse:
    """Set the language in the cookie and, for someone signed in, in the account. Goes back to `next` when that is on this host."""
    language = request.POST.get("language", "")
    if request.user.is_authenticated and language in dict(settings.LANGUAGES):
        request.user.language = language
        request.user.save(update_fields=["language"])
    return set_language(request)


sign_in = SignInView.as_view()
sign_out = SignOutView.as_view()
password_change = ChangePasswordView.as_view()
