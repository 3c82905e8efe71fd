"""Where data lies: storages of the catalogue, their secrets, which teams may use them, and the claims that teams share."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models

from .team import Team
from .user import User


class Access(models.TextChoices):
    """What a team may do with a storage."""

    READ = "read"
    WRITE = "write"


class Storage(models.Model):
    """One place for data. `spec` is the validated document of `portal.catalogue.storages`; no secret is in it."""

    class Kind(models.TextChoices):
        CLAIM = "claim"
        SCRATCH = "scratch"
        NFS = "nfs"
        CSI = "csi"
        OBJECT = "object"
        HDFS = "hdfs"

    slug = models.SlugField(max_length=60, unique=True)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    title = models.JSONField(default=dict)
    spec = models.JSONField(default=dict)
    position = models.PositiveIntegerField(default=100)
    enabled = models.BooleanField(default=True)
    edited = models.BooleanField(default=False, help_text="Changed here, so loading the files leaves it alone")

    class Meta:
        ordering = ["position", "slug"]

    def __str__(self) -> str:
        return self.slug

    @property
    def everyone(self) -> str:
        """What teams without a grant may do: "read", "write", or "" for nothing."""
        return str(self.spec.get("everyone", ""))

    @property
    def description(self) -> dict[str, Any]:
        return dict(self.spec.get("description") or {})

    @property
    def secret_keys(self) -> list[str]:
        """Keys of the secrets that it needs."""
        return list(self.spec.get("secrets") or {})


class StorageSecret(models.Model):
    """One secret value of a storage, encrypted (see `portal.domain.vault`). Only workers read it; nothing ever shows it."""

    storage = models.ForeignKey(Storage, on_delete=models.CASCADE, related_name="secrets")
    key = models.CharField(max_length=120)
    sealed = models.TextField(editable=False)
    set_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    set_at = models.DateTimeField()

    class Meta:
        ordering = ["key"]
        constraints = [models.UniqueConstraint(fields=["storage", "key"], name="one_value_per_storage_and_key")]

    def __str__(self) -> str:
        return f"{self.storage_id}/{self.key}"


class StorageGrant(models.Model):
    """A team may use a storage."""

    storage = models.ForeignKey(Storage, on_delete=models.CASCADE, related_name="grants")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="storage_grants")
    access = models.CharField(max_length=8, choices=Access.choices, default=Access.READ)
    granted_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    granted_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["storage", "team"]
        constraints = [models.UniqueConstraint(fields=["storage", "team"], name="one_grant_per_storage_and_team")]

    def __str__(self) -> str:
        return f"{self.storage} for {self.team.slug}"


class TeamClaim(models.Model):
    """The volume that a team's environments share, of a storage of kind `claim`. Made at its first use; holds the team's storage quota."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="claims")
    storage = models.ForeignKey(Storage, on_delete=models.PROTECT, related_name="claims")
    claim = models.CharField(max_length=100, help_text="Name of the PersistentVolumeClaim")
    size_bytes = models.BigIntegerField()
    storage_class = models.CharField(max_length=100, blank=True)
    access_mode = models.CharField(max_length=30, default="ReadWriteMany")
    created_at = models.DateTimeField(auto_now_add=True)
    purge_requested_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["team", "storage"]
        constraints = [models.UniqueConstraint(fields=["team", "storage"], name="one_claim_per_team_and_storage")]

    def __str__(self) -> str:
        return f"{self.storage} of {self.team.slug}"
