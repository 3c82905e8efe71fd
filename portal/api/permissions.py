"""What a token may do. A browser session may do all that its user may."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import SAFE_METHODS, BasePermission

from portal.domain.models import ApiToken
from portal.domain.tokens import expand


class SignedInWithScope(BasePermission):
    """Signed in, and with a token also its scope: `scope` of the view, else reading or writing environments by the method."""

    def has_permission(self, request: Any, view: Any) -> bool:
        if not request.user.is_authenticated:
            return False
        if not isinstance(request.auth, ApiToken):
            return True
        scope = getattr(view, "scope", None) or ("environments:read" if request.method in SAFE_METHODS else "environments:write")
        self.message = f"This token lacks the scope {scope}."
        return scope in expand(request.auth.scopes)
