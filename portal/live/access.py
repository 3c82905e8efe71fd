"""Who is asking, looked up anew each time: a socket outlives the sign-in that opened it, so every few seconds it must prove itself again."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib.auth import get_user

from portal.domain import selectors, tokens
from portal.domain.errors import DomainError, Forbidden, NotFound
from portal.domain.models import Environment, User

SCOPE = "environments:read"


class SignInNeeded(DomainError):
    """Nobody is signed in, or no longer."""

    status = 401
    code = "not_authenticated"
    title = "Sign-in needed"


@dataclass(frozen=True)
class Caller:
    """A browser's session or a script's Authorization header. Kept instead of the user, who may be deactivated meanwhile."""

    session_key: str = ""
    authorization: str = ""

    @classmethod
    def of_scope(cls, scope: dict[str, Any]) -> Caller:
        """The caller of a websocket behind channels' AuthMiddlewareStack."""
        session = scope.get("session")
        return cls(session_key=(session.session_key or "") if session is not None else "")

    def user(self) -> User:
        """The active user behind it now. Raises SignInNeeded, or Forbidden for a token without the scope. Reads the database."""
        if self.authorization:
            token = tokens.token_of(self.authorization)
            if token is None:
                raise SignInNeeded("The token is not valid, was revoked, or has expired.")
            if SCOPE not in tokens.expand(token.scopes):
                raise Forbidden(f"The token lacks the scope {SCOPE}.")
            return token.user
        if self.session_key:
            store = import_module(settings.SESSION_ENGINE).SessionStore(self.session_key)
            # also checks the session's hash, so a changed password ends it
            signed_in = get_user(SimpleNamespace(session=store))  # type: ignore[arg-type]
            if isinstance(signed_in, User) and signed_in.is_active:
                return signed_in
        raise SignInNeeded("Sign in first.")

    def environment(self, environment_id: UUID | str) -> Environment:
        """An environment that is visible to the caller now. Raises SignInNeeded or NotFound. Reads the database."""
        return selectors.environment_get(self.user(), environment_id)


def close_code(error: DomainError) -> int:
    """How a websocket says it: 4401 sign in, 4404 no such environment, 4400 anything else."""
    return 4401 if isinstance(error, SignInNeeded) else 4404 if isinstance(error, NotFound) else 4400
