"""Making and revoking API tokens."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from .. import tokens
from ..durations import format_duration
from ..errors import Forbidden, NotFound, ValidationError
from ..models import ApiToken, User

DEFAULT_LIFE = timedelta(days=30)
MAX_LIFE = timedelta(days=365)
MIN_LIFE = timedelta(minutes=1)
MAX_TOKENS = 100


def token_create(*, actor: User, name: str, scopes: Iterable[str], expires_in: timedelta | None = None) -> tuple[ApiToken, str]:
    """A new token and its plaintext, which is nowhere else. None: 30 days. Raises ValidationError, Forbidden (inactive user)."""
    errors: dict[str, list[str]] = {}
    name = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(name) <= 100 or "\x00" in name:
        errors["name"] = ["Give it a name of 1 to 100 characters that says what it is for."]
    chosen = list(scopes)
    unknown = [str(scope)[:40] for scope in chosen if scope not in tokens.SCOPES]
    if unknown or not chosen:
        errors["scopes"] = [f"Choose one or more of {', '.join(tokens.SCOPES)}" + (f"; unknown: {', '.join(unknown)}." if unknown else ".")]
    life = DEFAULT_LIFE if expires_in is None else expires_in
    if not MIN_LIFE <= life <= MAX_LIFE:
        errors["expires_in"] = [f"Choose between {format_duration(MIN_LIFE)} and {format_duration(MAX_LIFE)}."]
    if errors:
        raise ValidationError(" ".join(message for messages in errors.values() for message in messages), errors=errors)
    plaintext, now = tokens.generate(), timezone.now()
    with transaction.atomic():
        # Serialises with user_deactivate, which must not miss a token made at the same moment.
        user = User.objects.select_for_update(no_key=True).filter(pk=actor.pk, is_active=True).first()
        if user is None:
            raise Forbidden("This account is deactivated.")
        if ApiToken.objects.filter(user=user, revoked_at=None, expires_at__gt=now).count() >= MAX_TOKENS:
            raise ValidationError.field("name", f"You have {MAX_TOKENS} valid tokens; revoke some first.")
        row = ApiToken.objects.create(
            user=user, name=name, prefix=plaintext[:8], digest=tokens.digest(plaintext), scopes=sorted(set(chosen)), expires_at=now + life
        )
    return row, plaintext


def token_revoke(*, actor: User, token_id: UUID | str) -> ApiToken:
    """End a token of the actor's own; a platform admin may end anyone's. Revoking twice is no error. Raises NotFound."""
    try:
        key = UUID(str(token_id))
    except ValueError:
        raise NotFound("There is no such token.") from None
    query = ApiToken.objects.filter(pk=key) if actor.is_staff else ApiToken.objects.filter(pk=key, user=actor)
    with transaction.atomic():
        query.filter(revoked_at=None).update(revoked_at=timezone.now())
        row = query.first()
    if row is None:
        raise NotFound("There is no such token.")
    return row
