"""What was held, by whom and for how long: the ground of budgets and of usage reports."""

from __future__ import annotations

from django.db import models

from .environment import Environment
from .team import Team
from .user import User


class Usage(models.Model):
    """One resource held by one environment from `started_at` to `ended_at`, at one amount. A change of amount ends a row and begins another.

    It is open from the moment the queue admits an environment until its quota is given back. `weight` is the accelerator's at that
    time, in thousandths of a device; 0 for resources that are no accelerators.
    """

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="usage")
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="+")
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    resource = models.CharField(max_length=80, help_text="cpu (millicores), memory (bytes) or accelerator:<slug> (devices)")
    amount = models.BigIntegerField()
    weight = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    granted_seconds = models.PositiveIntegerField(null=True, blank=True, help_text="Running time granted when it began; null: no expiry")

    class Meta:
        ordering = ["started_at", "id"]
        indexes = [models.Index(fields=["team", "started_at"]), models.Index(fields=["ended_at"])]
        constraints = [
            models.UniqueConstraint(fields=["environment", "resource"], condition=models.Q(ended_at=None), name="one_open_usage_per_environment_and_resource"),
            models.CheckConstraint(condition=models.Q(ended_at=None) | models.Q(ended_at__gte=models.F("started_at")), name="usage_ends_after_it_starts"),
        ]
