"""An environment: a notebook or a cluster someone asked for. The row is the truth; every message is only a wake-up."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone

from ..lifecycle import Desired, State
from .catalogue import Flavor, Template
from .team import Team
from .user import User


class Volume(models.Model):
    """A home volume. It outlives its environment unless purged; a new environment of the same name, owner and team takes it up again."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="volumes")
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="volumes")
    name = models.CharField(max_length=63, help_text="Name of the environment it belongs to")
    claim = models.CharField(max_length=63, help_text="Name of the PersistentVolumeClaim")
    size_bytes = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    purge_requested_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["team", "owner", "name"], name="one_volume_per_owner_and_name")]


class Environment(models.Model):
    """What was asked for (`desired`, shape, parameters) and what was last seen (`state`, `observed`)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=40, help_text="Lower-case letters, digits and hyphens; unique per owner and team among those not deleted")
    kind = models.CharField(max_length=16, choices=Template.Kind.choices)
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="environments")
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="environments")
    template = models.ForeignKey(Template, on_delete=models.PROTECT, related_name="environments")
    template_version = models.PositiveIntegerField()
    template_spec = models.JSONField(help_text="The template's spec as it was when asked for")
    flavor = models.ForeignKey(Flavor, on_delete=models.PROTECT, related_name="environments")
    params = models.JSONField(default=dict)
    workers = models.PositiveIntegerField(default=0, help_text="Replicas of the scalable role; 0 for notebooks")
    volume = models.ForeignKey(Volume, null=True, blank=True, on_delete=models.SET_NULL, related_name="environments")

    mounts = models.JSONField(default=list, blank=True, help_text="Storages, datasets and models inside it, resolved; see portal.domain.services.mounts")

    desired = models.CharField(max_length=16, choices=[(d.value, d.value) for d in Desired], default=Desired.RUNNING.value)
    desired_generation = models.PositiveIntegerField(default=1, help_text="Grows with every write of a user; the worker starts afresh when it does")
    purge = models.BooleanField(default=False, help_text="Delete the home volume too")

    state = models.CharField(max_length=20, choices=[(s.value, s.value) for s in State], default=State.REQUESTED.value)
    reason = models.CharField(max_length=60, blank=True, help_text="Code of why it is in this state, e.g. ErrImagePull, Expired")
    message = models.TextField(blank=True, help_text="The same in words, with what to do")
    observed = models.JSONField(default=dict, help_text='{"replicas": [...], "endpoints": [...], "steps": [...]}, see k8s.status')
    observed_at = models.DateTimeField(null=True, blank=True)

    reserved = models.JSONField(default=dict, help_text="Quota held now: {resource: amount}")
    expires_in = models.PositiveIntegerField(null=True, blank=True, help_text="Seconds of running time granted; null: no expiry")
    expires_at = models.DateTimeField(null=True, blank=True)
    expiry_warned_at = models.DateTimeField(null=True, blank=True)
    delete_at = models.DateTimeField(null=True, blank=True, help_text="When it is deleted if it stays stopped; null: not by itself")
    delete_warned_at = models.DateTimeField(null=True, blank=True)
    schedule = models.JSONField(default=dict, blank=True, help_text='{"start": "09:00", "stop": "20:00", "days": [1, 2, 3, 4, 5], "timezone": "Asia/Shanghai"}')
    schedule_next_at = models.DateTimeField(null=True, blank=True, help_text="When the schedule starts or stops it next")
    activity = models.JSONField(default=dict, blank=True, help_text="Last signs of use, see portal.domain.services.idleness")
    idle_since = models.DateTimeField(null=True, blank=True, help_text="Every sign of use has been absent since; null: in use, or not known")
    idle_warned_at = models.DateTimeField(null=True, blank=True)

    autoscale = models.JSONField(default=dict, blank=True, help_text='Whether its rule scales it ("on") and what that remembers, see portal.domain.autoscale')

    priority = models.CharField(max_length=40, default="normal", help_text="Slug of its priority class")
    priority_value = models.IntegerField(default=50)
    queued_at = models.DateTimeField(null=True, blank=True, help_text="When it entered the queue")
    admitted_at = models.DateTimeField(null=True, blank=True, help_text="When the queue let it go; null: it waits")
    placement = models.JSONField(default=dict, blank=True, help_text='{"nodes": {node: {role: count}}, "topology": {"key", "value", "required"}, "queue": ""}')
    queue = models.JSONField(
        default=dict, blank=True, help_text='While it waits: {"position", "ahead", "code", "message", "eta": {"earliest", "latest"} | null}'
    )
    preempt_at = models.DateTimeField(null=True, blank=True, help_text="When it is stopped in favour of one of higher priority")
    preempted_for = models.UUIDField(null=True, blank=True)
    approved = models.JSONField(default=dict, blank=True, help_text="What was approved last: {quota resource: amount, hours: n}")

    last_seq = models.PositiveIntegerField(default=0, help_text="Number of its newest event")
    attempts = models.PositiveIntegerField(default=0, help_text="Failed tries to converge since the last success")
    next_check_at = models.DateTimeField(default=timezone.now, help_text="When the sweep nudges it at the latest")
    lease_holder = models.CharField(max_length=80, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)

    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True, help_text="Last time it became running")
    stopped_at = models.DateTimeField(null=True, blank=True)
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["team", "owner", "name"], condition=~models.Q(state=State.DELETED.value), name="one_live_environment_per_owner_and_name"
            )
        ]
        indexes = [
            models.Index(fields=["state", "next_check_at"]),
            models.Index(fields=["owner", "state"]),
            models.Index(fields=["team", "state"]),
            models.Index(fields=["expires_at"]),
            models.Index(fields=["state", "admitted_at"]),
            models.Index(fields=["schedule_next_at"]),
            models.Index(fields=["delete_at"]),
            # the first page of a list must not sort everything there ever was
            models.Index(fields=["-created_at", "id"]),
            models.Index(fields=["owner", "-created_at", "id"]),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


class LogArchive(models.Model):
    """What one container printed, kept when its pod was torn down. The bytes are in the `archive` storage, not in the database."""

    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="log_archives")
    replica = models.CharField(max_length=80, help_text="Pod name")
    role = models.CharField(max_length=40)
    container = models.CharField(max_length=63)
    path = models.CharField(max_length=300)
    size_bytes = models.PositiveIntegerField()
    truncated = models.BooleanField(default=False, help_text="Only the last part was kept")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at", "replica", "container"]


class IdempotencyKey(models.Model):
    """A POST that was already answered: repeating it with the same key answers the same and makes nothing."""

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    key = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of method, path and body")
    status = models.PositiveIntegerField(null=True, help_text="Null while the first request is still being answered")
    body = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="one_answer_per_idempotency_key")]
