"""API tokens: their form, their scopes, and whom a header stands for. Only SHA-256 digests are stored."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import timedelta
from hashlib import sha256

from django.db.models import Q
from django.utils import timezone

from .models import ApiToken, User

PREFIX = "atl_"
SCOPES: dict[str, str] = {
    "environments:read": "Read the catalogue, quotas, and your environments with their events and logs",
    "environments:write": "Also request, change, stop and delete environments and kept volumes",
    "tokens": "List, make and revoke API tokens",
}
IMPLIED: dict[str, frozenset[str]] = {"environments:write": frozenset({"environments:read"})}
_SHORT = {"read": "environments:read", "write": "environments:write"}
_USED_EVERY = timedelta(minutes=1)  # last_used_at is a hint; a write per request would make every read a write


def generate() -> str:
    """A new token: 256 random bits behind a prefix that secret scanners can recognise."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """What is stored of a token. Unsalted SHA-256 is enough for 256 random bits."""
    return sha256(token.encode()).hexdigest()


def expand(scopes: Iterable[str]) -> frozenset[str]:
    """`scopes` with everything they imply."""
    result = set(scopes)
    for scope in tuple(result):
        result |= IMPLIED.get(scope, frozenset())
    return frozenset(result)


def scope_named(text: str) -> str:
    """A scope by its name or short name (read, write). Raises ValueError."""
    scope = _SHORT.get(text, text)
    if scope not in SCOPES:
        raise ValueError(f"{text[:40]!r} is not a scope; there are {', '.join(SCOPES)}")
    return scope


def token_of(header: str) -> ApiToken | None:
    """The valid token that an Authorization header carries: known, not revoked, not expired, of an active user."""
    kind, _, value = header.strip().partition(" ")
    value = value.strip()
    if kind.lower() != "bearer" or not value.startswith(PREFIX) or not value.isascii():
        return None
    now = timezone.now()
    token = ApiToken.objects.select_related("user").filter(digest=digest(value), revoked_at=None, expires_at__gt=now, user__is_active=True).first()
    if token:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=now - _USED_EVERY)
        if token.last_used_at is None or token.last_used_at < now - _USED_EVERY:
            ApiToken.objects.filter(stale, pk=token.pk).update(last_used_at=now)
    return token


def user_of(request_header: str, scope: str) -> User | None:
    """The user an Authorization header stands for, if its token is valid and grants `scope`."""
    token = token_of(request_header)
    return token.user if token and scope in expand(token.scopes) else None
