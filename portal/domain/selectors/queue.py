"""The queue as its users see it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..lifecycle import State
from ..models import Environment, Team, User
from .environments import environments_visible_to
from .picture import waiting_rows


@dataclass(frozen=True, kw_only=True)
class QueueEntry:
    """One that waits. Of what the user may not see, only its place is told; of his own teams also team and flavor."""

    position: int
    environment: Environment | None  # None: not visible to this user
    team: str  # slug; empty: not a team of this user
    flavor: str  # slug, as above
    queued_at: datetime | None  # of what is visible


def queue_of(user: User) -> list[QueueEntry]:
    """All who wait, in the order of the queue; who has not been looked at yet comes last."""
    if not user.is_active or not user.is_authenticated:
        return []
    visible = {row.pk: row for row in environments_visible_to(user).filter(pk__in=waiting_rows().values("pk"))}
    mine = set(Team.objects.filter(memberships__user=user).values_list("pk", flat=True))
    rows = waiting_rows().order_by().values_list("pk", "queue", "queued_at", "team_id", "team__slug", "flavor__slug")
    line = sorted(rows, key=lambda row: (row[1].get("position") or 1 << 30, row[2] is None, row[2], str(row[0])))
    entries = []
    for number, (key, _, queued_at, team_id, team, flavor) in enumerate(line, start=1):
        seen, told = visible.get(key), key in visible or team_id in mine
        entries.append(
            QueueEntry(position=number, environment=seen, team=team if told else "", flavor=flavor if told else "", queued_at=queued_at if seen else None)
        )
    return entries


def queue_needs_a_look() -> bool:
    """Whether anybody waits, or is to be stopped for another."""
    marked = Environment.objects.filter(preempt_at__isnull=False, state__in=[State.QUEUED, State.PROVISIONING, State.RUNNING])
    return waiting_rows().exists() or marked.exists()
