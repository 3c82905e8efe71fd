"""Who has to agree before something starts: the rules, and each question asked by them."""

from __future__ import annotations

from django.db import models

from .catalogue import Flavor, Template
from .environment import Environment
from .team import Team
from .user import User


class ApprovalRule(models.Model):
    """A threshold of self-service. A request that matches every field that is set has to be approved.

    `resource` is a quota resource (see `Quota`) or `hours` (of running time asked for); `above` is in its unit. Without a
    resource, naming the template or the flavor is enough.
    """

    team = models.ForeignKey(Team, null=True, blank=True, on_delete=models.CASCADE, related_name="approval_rules", help_text="Empty: every team")
    template = models.ForeignKey(Template, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    flavor = models.ForeignKey(Flavor, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    resource = models.CharField(max_length=80, blank=True)
    above = models.BigIntegerField(null=True, blank=True, help_text="Self-service goes up to this amount")
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["team", "id"]
        constraints = [
            models.CheckConstraint(
                condition=(models.Q(resource="") & models.Q(above=None) & (models.Q(template__isnull=False) | models.Q(flavor__isnull=False)))
                | (~models.Q(resource="") & models.Q(above__gte=0)),
                name="approval_rule_names_something",
            )
        ]


class Approval(models.Model):
    """One question to the leads of a team. While it is pending its environment is `awaiting_approval` and holds no compute quota."""

    class Status(models.TextChoices):
        PENDING = "pending"
        APPROVED = "approved"
        REFUSED = "refused"
        LAPSED = "lapsed"  # nobody answered in time
        WITHDRAWN = "withdrawn"  # stopped or deleted by its owner meanwhile

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="approvals")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.PENDING)
    asked_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    why = models.JSONField(default=list, help_text="Sentences: what goes beyond self-service")
    requested = models.JSONField(default=dict, help_text='What was asked for: {"flavor": slug, "workers": n, "expires_in": seconds}')
    granted = models.JSONField(default=dict, help_text="The same as approved; may be smaller")
    decided_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    note = models.TextField(blank=True, help_text="The decision's reason, in the lead's words")
    created_at = models.DateTimeField(auto_now_add=True)
    lapses_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["created_at", "id"]
        constraints = [models.UniqueConstraint(fields=["environment"], condition=models.Q(status="pending"), name="one_pending_approval_per_environment")]
        indexes = [models.Index(fields=["status", "lapses_at"])]
