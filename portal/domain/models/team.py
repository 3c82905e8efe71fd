"""Teams, who is in them, and what they may use."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from .user import User


class Team(models.Model):
    """A team has one namespace, `atelier-<slug>`, and one quota."""

    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=100)
    members: models.ManyToManyField[User, Membership] = models.ManyToManyField(User, through="Membership", related_name="teams")
    self_approval = models.BooleanField(default=False, help_text="Leads may approve what they asked for themselves")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user's part in a team. Leads own the team's quota and see its environments."""

    class Role(models.TextChoices):
        ENGINEER = "engineer"
        LEAD = "lead"

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.ENGINEER)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "user"], name="one_membership_per_user_and_team")]


class Quota(models.Model):
    """One limited resource of a team, or of one user within a team.

    `resource` is `environments` (count), `cpu` (millicores), `memory` (bytes), `storage` (bytes), `accelerator:<slug>` (devices),
    `accelerators` (all devices together, each by its catalogue weight, in thousandths) or `accelerator_seconds` (the month's
    budget: weighted devices times seconds, running ones counted up to their expiry). `limit` null means unlimited. `used` is kept
    for every row, limited or not, so that a limit can be set later. Rows are changed by conditional updates only (see services).
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="quotas")
    user = models.ForeignKey(User, null=True, blank=True, on_delete=models.CASCADE, related_name="quotas", help_text="Empty: the whole team")
    resource = models.CharField(max_length=80)
    limit = models.BigIntegerField(null=True, blank=True)
    used = models.BigIntegerField(default=0, editable=False)
    period = models.DateField(null=True, blank=True, editable=False, help_text="First day of the month that `used` is about; null: not by month")

    class Meta:
        ordering = ["team", "user", "resource"]
        constraints = [
            # two constraints, since SQLite has no NULLS NOT DISTINCT
            models.UniqueConstraint(fields=["team", "resource"], condition=Q(user=None), name="one_quota_per_team_and_resource"),
            models.UniqueConstraint(fields=["team", "user", "resource"], condition=Q(user__isnull=False), name="one_quota_per_user_and_resource"),
            models.CheckConstraint(condition=Q(used__gte=0), name="quota_used_not_negative"),
            # no "used <= limit" here: lowering a limit below present use is allowed and only blocks new requests
            models.CheckConstraint(condition=Q(limit__isnull=True) | Q(limit__gte=0), name="quota_limit_not_negative"),
        ]

    def headroom(self) -> int | None:
        """What is still free, never below zero; None when unlimited."""
        return None if self.limit is None else max(0, self.limit - self.used)


def fits(amount: int) -> Q:
    """Condition under which `amount` more can be reserved on a quota row."""
    return Q(limit__isnull=True) | Q(limit__gte=F("used") + amount)
