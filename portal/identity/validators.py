"""What the OIDC provider says about a user, and for whom it still says anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from oauth2_provider.oauth2_validators import OAuth2Validator

ADMINS = "atelier-admins"  # group of platform admins; team slugs have at most 40 characters and may not take this name from them at the Hub


class Validator(OAuth2Validator):
    """Claims of a user, and refusal of every token and code of a user who was deactivated.

    `preferred_username` is Django's user name, letter for letter: the Hub keeps its case, so that "Ann" and "ann" stay two people.
    Renaming a user makes a new person at the Hub; names are meant to stay.
    """

    oidc_claim_scope: ClassVar[dict[str, str]] = OAuth2Validator.oidc_claim_scope | {"groups": "groups"}

    def get_additional_claims(self) -> dict[str, Callable[[Any], object]]:  # type: ignore[override]
        # Without a request argument the toolkit lists these claims in the discovery document.
        return {
            "preferred_username": lambda request: request.user.username,
            "name": lambda request: request.user.get_full_name() or request.user.username,
            "email": lambda request: request.user.email,
            "locale": lambda request: request.user.language,
            "groups": lambda request: groups_of(request.user),
        }

    def validate_bearer_token(self, token: str, scopes: list[str], request: Any) -> bool:
        return super().validate_bearer_token(token, scopes, request) and self._active(request)

    def validate_refresh_token(self, refresh_token: str, client: Any, request: Any, *args: Any, **kwargs: Any) -> bool:
        return super().validate_refresh_token(refresh_token, client, request, *args, **kwargs) and self._active(request)

    def validate_code(self, client_id: str, code: str, client: Any, request: Any, *args: Any, **kwargs: Any) -> bool:
        # A code lives a minute: long enough to be deactivated between the authorize page and the token request.
        return super().validate_code(client_id, code, client, request, *args, **kwargs) and self._active(request)

    @staticmethod
    def _active(request: Any) -> bool:
        return bool(request.user and request.user.is_active)


def groups_of(user: Any) -> list[str]:
    """Slugs of the user's teams, and ADMINS for platform admins."""
    groups = list(user.teams.order_by("slug").values_list("slug", flat=True))
    return [*groups, ADMINS] if user.is_staff else groups
