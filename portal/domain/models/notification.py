"""What somebody should know without looking for it."""

from __future__ import annotations

from django.db import models

from .environment import Environment
from .user import User


class Notification(models.Model):
    """One message to one person, shown until read. `source` tells it once however often its cause is seen."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="notifications")
    environment = models.ForeignKey(Environment, null=True, blank=True, on_delete=models.CASCADE, related_name="notifications")
    code = models.CharField(max_length=60, help_text="Stable for programs, e.g. ExpirySoon, ApprovalAsked")
    message = models.TextField()
    source = models.CharField(max_length=120)
    created_at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["user", "source"], name="one_notification_per_source")]
        indexes = [models.Index(fields=["user", "read_at"])]
