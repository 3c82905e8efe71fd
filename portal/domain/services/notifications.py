"""What somebody should know without looking for it: told once per cause, live where a page is open, kept until read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from .. import outbound
from ..models import Environment, Notification, User

_KEPT_READ = timedelta(days=30)
_PURGED_AT_ONCE = 1000


def notify(users: Iterable[User], code: str, message: str, environment: Environment | None = None, *, source: str) -> int:
    """Tell each active user once per `source` (at most 120 characters); how many were told now. Inside the transaction of its cause, if there is one."""
    source = source[:120]
    with transaction.atomic():
        people = {user.pk: user for user in users if user.is_active}
        told = set(Notification.objects.filter(source=source, user__in=people).values_list("user_id", flat=True))
        rows = [
            Notification(user=user, environment=environment, code=code[:60], message=message.replace("\x00", "\ufffd")[:4000], source=source)
            for key, user in people.items()
            if key not in told
        ]
        Notification.objects.bulk_create(rows, ignore_conflicts=True)  # another process may be telling the same
        for row in rows:
            outbound.announce_notification(row.user_id, environment)
        return len(rows)


def notifications_read(*, actor: User, ids: Iterable[int] | None = None) -> int:
    """Mark the actor's notifications as read: those of `ids`, or all for None. How many were unread. Others' are left alone."""
    unread = Notification.objects.filter(user=actor, read_at=None)
    if ids is not None:
        unread = unread.filter(pk__in=[key for key in ids if type(key) is int and 0 < key < 2**63])
    with transaction.atomic():
        count = unread.update(read_at=timezone.now())
        if count:
            outbound.announce_notification(actor.pk)
        return count


def notifications_purge(now: datetime) -> int:
    """Forget read ones after 30 days, some at a time."""
    old = list(Notification.objects.filter(read_at__lt=now - _KEPT_READ).order_by().values_list("pk", flat=True)[:_PURGED_AT_ONCE])
    return Notification.objects.filter(pk__in=old).delete()[0] if old else 0
