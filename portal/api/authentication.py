"""Who asks: a bearer token, or the session of a signed-in browser (then with CSRF protection)."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed

from portal.domain.models import ApiToken, User
from portal.domain.tokens import token_of


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer atl_...`. A token that does not hold is refused even beside a valid session."""

    def authenticate(self, request: Any) -> tuple[User, ApiToken] | None:
        header = request.headers.get("Authorization", "")
        if not header:
            return None
        token = token_of(header)
        if token is None:
            raise AuthenticationFailed("The bearer token is unknown, expired or revoked. Make another with `manage.py token` or on the tokens page.")
        return token.user, token

    def authenticate_header(self, request: Any) -> str:
        return 'Bearer realm="atelier"'


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "portal.api.authentication.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "An API token, `atl_` and 43 characters"}
