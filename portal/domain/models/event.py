"""The history of an environment: append-only, numbered from 1 without gaps."""

from __future__ import annotations

from django.db import models

from .environment import Environment
from .user import User


class Event(models.Model):
    """One line of an environment's history. A move of state and its event are written in one transaction."""

    class Kind(models.TextChoices):
        STATE = "state"
        ACTION = "action"  # somebody asked for something
        INFO = "info"
        WARNING = "warning"

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="events")
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=16, choices=Kind.choices)
    code = models.CharField(max_length=60, help_text="Stable for programs, e.g. FailedScheduling")
    message = models.TextField()
    from_state = models.CharField(max_length=20, blank=True)
    to_state = models.CharField(max_length=20, blank=True)
    actor = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL)
    source = models.CharField(max_length=120, blank=True, help_text="Identity of what caused it, so that it is recorded once")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["environment", "seq"]
        constraints = [
            models.UniqueConstraint(fields=["environment", "seq"], name="one_event_per_number"),
            models.UniqueConstraint(fields=["environment", "source"], condition=~models.Q(source=""), name="one_event_per_source"),
        ]
