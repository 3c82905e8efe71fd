"""Settings of sign-in and of the OIDC provider."""

from __future__ import annotations

OAUTH2_PROVIDER: dict[str, object] = {}


def account_settings() -> dict[str, object]:
    """Settings of django-allauth."""
    return {}
