"""The one OIDC client: the Hub."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.hashers import check_password
from oauth2_provider.models import get_application_model


def hub_client_ensure() -> bool:
    """Make the Hub's row as a client of the OIDC provider match the settings. Returns whether anything changed.

    Confidential, authorization code only, RS256, one exact redirect address, no consent page: it is the same product.
    """
    model = get_application_model()
    fields: dict[str, object] = {
        "name": "JupyterHub",
        "client_type": model.CLIENT_CONFIDENTIAL,
        "authorization_grant_type": model.GRANT_AUTHORIZATION_CODE,
        "algorithm": model.RS256_ALGORITHM,
        "redirect_uris": f"{settings.HUB_PUBLIC_URL}/hub/oauth_callback",
        "skip_authorization": True,
    }
    application = model.objects.filter(client_id=settings.OIDC_CLIENT_ID).first()
    if application is None:
        model.objects.create(client_id=settings.OIDC_CLIENT_ID, client_secret=settings.OIDC_CLIENT_SECRET, **fields)
        return True
    changed = [name for name, value in fields.items() if getattr(application, name) != value]
    for name in changed:
        setattr(application, name, fields[name])
    if not check_password(settings.OIDC_CLIENT_SECRET, application.client_secret):
        application.client_secret = settings.OIDC_CLIENT_SECRET  # hashed on save
        changed.append("client_secret")
    if changed:
        application.save()
    return bool(changed)
