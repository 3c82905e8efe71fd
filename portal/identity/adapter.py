"""How accounts behave where they differ from django-allauth's defaults."""

from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest
from django.utils.http import url_has_allowed_host_and_scheme


class AccountAdapter(DefaultAccountAdapter):
    """Accounts are made by an admin, never by a visitor; after sign-in one stays on this host."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def is_safe_url(self, url: str | None) -> bool:
        """Only paths of this host (the OIDC authorize page is one) are followed after sign-in."""
        host = self.request.get_host() if self.request else ""
        return bool(url) and url_has_allowed_host_and_scheme(url, allowed_hosts={host} if host else None)
