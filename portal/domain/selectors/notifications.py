"""A user's notifications."""

from __future__ import annotations

from django.db.models import QuerySet

from ..models import Notification, User


def notifications_of(user: User, unread: bool = False) -> QuerySet[Notification]:
    """The user's own, newest first; with `unread` only those. Nothing for an inactive or anonymous user."""
    query = Notification.objects.select_related("environment")
    if not user.is_active or not user.is_authenticated:
        return query.none()
    query = query.filter(user=user)
    return query.filter(read_at=None) if unread else query
