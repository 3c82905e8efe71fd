"""Addresses that this Hub has beyond JupyterHub's own, and pages of JupyterHub that give way to the portal's."""

from __future__ import annotations

from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.utils import maybe_future
from tornado import web

USERS_SCOPE = "custom:atelier:users"
ACTIVITY_SCOPE = "custom:atelier:activity"
SERVER_TOKEN_NOTE = "Server at "  # noqa: S105 - how JupyterHub marks the token that it puts into a server's environment
ACTIVITY_TOKEN_NOTE = "The Hub asks for activity"  # noqa: S105 - of the tokens with which the Hub itself asks servers


def handlers(portal_url: str) -> list[tuple[Any, ...]]:
    """Routes below /hub. Order matters: these come before JupyterHub's."""
    from .activity import ActivityHandler

    to_portal = {"portal_url": portal_url}
    return [
        (r"/api/atelier/users/([^/]+)", UserHandler),
        (r"/api/atelier/users/([^/]+)/sessions", SessionsHandler),
        (r"/api/atelier/activity", ActivityHandler),
        (r"/home", PortalPage, to_portal),
        (r"/spawn", PortalPage, to_portal),
        (r"/spawn/.*", PortalPage, to_portal),
        (r"/spawn-pending/.*", PortalPage, to_portal),
        (r"/token", PortalPage, to_portal),
        (r"/admin.*", PortalPage, to_portal),
    ]


class PortalPage(BaseHandler):
    """Pages on which users would start, stop or list servers: the portal has them."""

    def initialize(self, portal_url: str) -> None:
        self.portal_url = portal_url

    def get(self) -> None:
        self.redirect(f"{self.portal_url}/")

    def post(self) -> None:
        raise web.HTTPError(403, "Servers are started in the portal.")


class ScopedHandler(APIHandler):
    """For holders of `scope`. Everyone else gets 403, whether the user exists or not."""

    scope = USERS_SCOPE

    def require_scope(self) -> None:
        # JupyterHub's decorator knows custom scopes only after they are configured, which is after this module is imported.
        if not self.current_user or not self.has_scope(self.scope):
            raise web.HTTPError(403, f"Requires the scope {self.scope}")


class UserHandler(ScopedHandler):
    async def put(self, name: str) -> None:
        """Make the user if absent. 201 when made, 200 when there; 400 for a name that the Hub cannot route.

        JupyterHub's own way needs `admin:users`, which also reads everyone's OIDC tokens and can make admins.
        """
        self.require_scope()
        if not self.authenticator.validate_username(name):
            raise web.HTTPError(400, f"Not a usable user name: {name!r}")
        made = self.find_user(name) is None
        if made:
            user = self.user_from_username(name)
            await maybe_future(self.authenticator.add_user(user))
        self.set_status(201 if made else 200)
        self.write({"name": name})


class SessionsHandler(ScopedHandler):
    async def delete(self, name: str) -> None:
        """End every session of the user at the Hub and at single-user servers. 204, also for a user who is not there.

        Goes at once: the Hub's cookies (they name `cookie_id`, which changes), OAuth tokens that browsers hold for servers, other API
        tokens, the stored OIDC tokens. Single-user servers ask the Hub about a browser's token again after `CACHE_SECONDS`.
        Stays: the servers' own tokens, or they could not let their owner in again; they run until the portal stops them. Also stay
        websockets that are already open, until they close.
        """
        self.require_scope()
        user = self.find_user(name)
        if user is not None:
            end_sessions(self.db, user.orm_user)
            await user.save_auth_state(None)
            self.authenticator.forget(user)
            self.log.info("Ended all sessions of %s", name)
        self.set_status(204)


def end_sessions(db: Any, orm_user: Any) -> None:
    """The database's part of ending sessions."""
    orm_user.cookie_id = orm.new_token()
    for code in db.query(orm.OAuthCode).filter_by(user_id=orm_user.id):
        db.delete(code)
    for token in list(orm_user.api_tokens):
        if not (token.note or "").startswith(SERVER_TOKEN_NOTE):
            db.delete(token)
    db.commit()
