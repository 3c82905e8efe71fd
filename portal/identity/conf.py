"""Settings of sign-in (django-allauth) and of the OIDC provider (django-oauth-toolkit)."""

from __future__ import annotations

from datetime import timedelta

# Sign-out and deactivation end Hub access at once; an access token that was copied elsewhere dies with this.
ACCESS_TOKEN_SECONDS = 600


def provider_settings(*, public_url: str, rsa_key: str) -> dict[str, object]:
    """The OIDC provider at `<public_url>/o`: authorization code with PKCE only, RS256, tokens stored as digests."""
    return {
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": rsa_key,
        "OIDC_ISS_ENDPOINT": f"{public_url}/o",
        "OAUTH2_VALIDATOR_CLASS": "portal.identity.validators.Validator",
        "SCOPES": {"openid": "Who you are", "profile": "Your name", "email": "Your e-mail address", "groups": "Your teams"},
        "DEFAULT_SCOPES": ["openid"],
        "OIDC_RESPONSE_TYPES_SUPPORTED": ["code"],
        "OAUTH2_RESPONSE_TYPES_SUPPORTED": ["code"],
        "OAUTH2_GRANT_TYPES_SUPPORTED": ["authorization_code", "refresh_token"],
        "PKCE_REQUIRED": True,
        "AUTHORIZATION_CODE_EXPIRE_SECONDS": 60,
        "ACCESS_TOKEN_EXPIRE_SECONDS": ACCESS_TOKEN_SECONDS,
        "ID_TOKEN_EXPIRE_SECONDS": ACCESS_TOKEN_SECONDS,
        "REFRESH_TOKEN_EXPIRE_SECONDS": int(timedelta(days=14).total_seconds()),
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 0,
        # The portal has one client, whose sign-out goes through /accounts/logout/; an end_session endpoint would be a second way.
        "OIDC_RP_INITIATED_LOGOUT_ENABLED": False,
        "ALLOWED_REDIRECT_URI_SCHEMES": ["https"] if public_url.startswith("https://") else ["http", "https"],
        "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
        "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
        "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
        "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
        "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
        "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
        "COMPLIANT_BCP_RFC9700_REFRESH_TOKEN": True,
        "COMPLIANT_BCP_RFC9700_REDIRECT_URI_MATCHING": True,
        "COMPLIANT_BCP_RFC9700_PKCE_REQUIRED": True,
    }


def account_settings() -> dict[str, object]:
    """Settings of django-allauth: local accounts made by an admin, signed in to by user name and password."""
    return {
        "ACCOUNT_ADAPTER": "portal.identity.adapter.AccountAdapter",
        "ACCOUNT_LOGIN_METHODS": {"username"},
        "ACCOUNT_SIGNUP_FIELDS": ["username*", "password1*", "password2*"],
        "ACCOUNT_EMAIL_VERIFICATION": "none",
        "ACCOUNT_EMAIL_NOTIFICATIONS": False,
        "ACCOUNT_SESSION_REMEMBER": True,  # as long as SESSION_COOKIE_AGE
        "ACCOUNT_LOGOUT_ON_GET": False,
        "ACCOUNT_LOGOUT_REDIRECT_URL": "account_login",
        "ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE": False,
        "ACCOUNT_PRESERVE_USERNAME_CASING": True,
        # Failed sign-ins: per address, and per user name and address. Counted in Django's cache, so per web process.
        "ACCOUNT_RATE_LIMITS": {"login": "60/m/ip", "login_failed": "20/m/ip,5/5m/key", "change_password": "5/m/user"},
    }
