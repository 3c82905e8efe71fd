"""Exceptions to restricted Pod Security."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from .team import Team
from .user import User


class PodException(models.Model):
    """A team's pods may have a Linux capability that restricted Pod Security forbids. Rows are kept when they are revoked: they are the record
    of who allowed what, when and why."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="pod_exceptions")
    capability = models.CharField(max_length=40, help_text="e.g. IPC_LOCK")
    reason = models.CharField(max_length=300, help_text="What the team needs it for")
    granted_by = models.ForeignKey(User, null=True, on_delete=models.PROTECT, related_name="+", help_text="Empty: the installation itself")
    granted_at = models.DateTimeField(auto_now_add=True)
    revoked_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["team", "capability", "-granted_at"]
        constraints = [models.UniqueConstraint(fields=["team", "capability"], condition=Q(revoked_at=None), name="one_live_exception_per_team_and_capability")]

    def __str__(self) -> str:
        return f"{self.team.slug}: {self.capability}"
