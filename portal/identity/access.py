"""Ending what a user was given: OIDC codes and tokens here, sessions and tokens at the Hub through a worker."""

from __future__ import annotations

from django.db import transaction
from oauth2_provider.models import get_access_token_model, get_grant_model, get_id_token_model, get_refresh_token_model

from portal.domain import outbound
from portal.domain.models import User


@transaction.atomic
def hub_access_end(*, user: User) -> None:
    """End the user's access to the Hub, in all browsers.

    Tokens do not say in which browser session they were issued, so all of them go; a browser that is still signed in to the
    portal gets new ones without being asked. The Hub's own sessions are ended by a worker; should its message be lost, the Hub
    finds out within its `auth_refresh_age`, when the tokens deleted here no longer answer.
    """
    # Refresh tokens first: they point to access tokens, which point to id tokens.
    for model in (get_grant_model(), get_refresh_token_model(), get_access_token_model(), get_id_token_model()):
        model.objects.filter(user=user).delete()
    outbound.hub_revoke(user.username)
