"""Sign-out, a changed password and deactivation end access to the Hub, whichever page or command they come from."""

from __future__ import annotations

from typing import Any

from allauth.account.signals import password_changed
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils import translation

from portal.domain.models import User

from .access import hub_access_end


@receiver(user_logged_out)
def end_access_on_sign_out(sender: Any, request: Any, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        hub_access_end(user=user)


@receiver(password_changed)
def end_access_on_password_change(sender: Any, user: User, **kwargs: Any) -> None:
    hub_access_end(user=user)


@receiver(post_save, sender=User)
def end_access_on_deactivation(sender: Any, instance: User, created: bool, raw: bool, **kwargs: Any) -> None:
    if not instance.is_active and not created and not raw:
        hub_access_end(user=instance)


@receiver(user_logged_in)
def use_language_of_user(sender: Any, request: Any, user: User, **kwargs: Any) -> None:
    """The page after sign-in is in the user's language; `views.sign_in` keeps it in the cookie."""
    if user.language:
        translation.activate(user.language)
