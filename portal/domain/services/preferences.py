"""What a person chooses for the portal itself: language and time zone."""

from __future__ import annotations

from zoneinfo import available_timezones

from django.conf import settings

from ..errors import Forbidden, ValidationError
from ..models import User


def check_timezone(name: object) -> str:
    """`name` when it is an IANA time zone. Raises ValidationError naming `timezone`."""
    if not isinstance(name, str) or name not in available_timezones():
        raise ValidationError.field("timezone", "There is no such time zone; use an IANA name such as Asia/Shanghai.")
    return name


def preferences_set(*, actor: User, timezone: str | None = None, language: str | None = None) -> User:
    """Change what is given; "" goes back to the installation's time zone, or to the browser's language. Raises ValidationError, Forbidden."""
    errors: dict[str, list[str]] = {}
    if timezone:
        try:
            check_timezone(timezone)
        except ValidationError as error:
            errors |= error.errors
    if language and language not in dict(settings.LANGUAGES):
        errors["language"] = [f"There is no such language; there are {', '.join(code for code, _ in settings.LANGUAGES)}."]
    if errors:
        raise ValidationError(" ".join(message for messages in errors.values() for message in messages), errors=errors)
    changes = {name: value for name, value in (("timezone", timezone), ("language", language)) if value is not None}
    if changes and not User.objects.filter(pk=actor.pk, is_active=True).update(**changes):
        raise Forbidden("This account is deactivated.")
    for name, value in changes.items():
        setattr(actor, name, value)
    return actor
