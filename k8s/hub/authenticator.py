"""Signing in at the Hub: the portal says who it is, and goes on being asked."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any

from oauthenticator.generic import GenericOAuthenticator
from tornado.httpclient import HTTPClientError
from traitlets import Bool, Integer, List, Unicode

from .handlers import ACTIVITY_TOKEN_NOTE, SERVER_TOKEN_NOTE, handlers

# How long people keep working in their notebooks while the portal does not answer. Who signs out or is deactivated needs a portal that runs.
PORTAL_GRACE_SECONDS = 600


class PortalAuthenticator(GenericOAuthenticator):
    """Generic OIDC with the portal's conventions, set here because nothing works with others."""

    portal_url = Unicode(config=True, help="Address of the portal, without a slash at the end")
    login_service = Unicode("Atelier", config=True)
    scope = List(Unicode(), ["openid", "profile", "email", "groups"], config=True)
    username_claim = Unicode("preferred_username", config=True)
    auth_state_groups_key = Unicode("oauth_user.groups", config=True)
    enable_pkce = Bool(True, config=True)
    allow_all = Bool(True, config=True)  # the portal gives a code to active users only
    auto_login = Bool(True, config=True)
    manage_groups = Bool(True, config=True)
    enable_auth_state = Bool(True, config=True)
    # Seconds after which a user's next request makes the Hub ask the portal again, and refuse when it says no or says nothing.
    auth_refresh_age = Integer(60, config=True)
    auth_refresh_strict = Bool(True, config=True)
    # Servers are started by the portal's service, also for users who have never been at the Hub; the portal has checked them.
    refresh_pre_spawn = Bool(False, config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._checked: dict[str, float] = {}  # user name -> time.monotonic() of the last answer that the user is still welcome

    def normalize_username(self, username: str) -> str:
        """As it is. Lower-casing, the default, would let "Ann" into the servers of "ann"."""
        return username

    def validate_username(self, username: str) -> bool:
        """Names that are whole path segments; `.` and `..` would point elsewhere."""
        return username not in (".", "..") and super().validate_username(username)

    def get_handlers(self, app: Any) -> list[tuple[Any, ...]]:
        """Handlers of the authenticator come before JupyterHub's own, which is how pages are replaced."""
        return [*super().get_handlers(app), *handlers(self.portal_url)]

    async def authenticate(self, handler: Any, data: Any = None, **kwargs: Any) -> Any:
        model = await super().authenticate(handler, data, **kwargs)
        if model:
            self._checked[model["name"]] = time.monotonic()
        return model

    async def refresh_user(self, user: Any, handler: Any = None, **kwargs: Any) -> Any:
        """Ask the portal whether the user is still welcome; False means no.

        Requests of one user are checked one at a time: two that used the same refresh token would look like a stolen one, and the
        portal would revoke them all.
        """
        token = handler.get_token() if handler is not None else None
        if token is not None and (token.note or "").startswith((SERVER_TOKEN_NOTE, ACTIVITY_TOKEN_NOTE)):
            # A server that reports activity, or the Hub that asks for it, is no user who signs in; the server may outlive the session.
            # JupyterHub now takes the user for freshly checked; put the time of the real check back right after.
            asyncio.get_running_loop().call_soon(setattr, user, "_auth_refreshed", user._auth_refreshed)
            return True
        async with self._locks[user.name]:
            if time.monotonic() - self._checked.get(user.name, float("-inf")) < self.auth_refresh_age / 2:
                return True
            try:
                refreshed = await super().refresh_user(user, handler, **kwargs)
            except (HTTPClientError, OSError):  # the portal is restarting or unreachable; a "no" from it is not an exception
                if time.monotonic() - self._checked.get(user.name, float("-inf")) < PORTAL_GRACE_SECONDS:
                    return True
                raise
            if isinstance(refreshed, dict):
                # Saved here, inside the lock: JupyterHub saves it too, but only after the next request may have read the old one.
                await user.save_auth_state(refreshed["auth_state"])
            if refreshed:
                self._checked[user.name] = time.monotonic()
            else:
                self._checked.pop(user.name, None)
            return refreshed

    def forget(self, user: Any) -> None:
        """Make the next request of the user ask the portal."""
        self._checked.pop(user.name, None)
        user._auth_refreshed = None
