"""Datasets and models: names under which people find data, and the versions behind them."""

from __future__ import annotations

from django.db import models

from .environment import Environment, Volume
from .storage import Storage
from .team import Team
from .user import User


class Artifact(models.Model):
    """A dataset or a model. `dataset:imagenet@3` names a version of one, so a name is given once in the installation."""

    class Kind(models.TextChoices):
        DATASET = "dataset"
        MODEL = "model"

    class Visibility(models.TextChoices):
        PRIVATE = "private"
        TEAM = "team"
        EVERYONE = "everyone"

    kind = models.CharField(max_length=16, choices=Kind.choices)
    name = models.CharField(max_length=60)
    description = models.TextField(blank=True)
    owner = models.ForeignKey(User, on_delete=models.PROTECT, related_name="artifacts")
    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="artifacts")
    visibility = models.CharField(max_length=16, choices=Visibility.choices, default=Visibility.TEAM)
    last_number = models.PositiveIntegerField(default=0, help_text="Number of its newest version, deleted ones included")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["kind", "name"]
        constraints = [models.UniqueConstraint(fields=["kind", "name"], name="one_artifact_per_kind_and_name")]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


class ArtifactVersion(models.Model):
    """A folder or file that does not change: in a storage, or in the home volume of an environment."""

    artifact = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    storage = models.ForeignKey(Storage, null=True, blank=True, on_delete=models.PROTECT, related_name="versions")
    volume = models.ForeignKey(Volume, null=True, blank=True, on_delete=models.PROTECT, related_name="versions")
    path = models.CharField(max_length=500, blank=True, help_text="Within the storage or volume, without a leading slash")
    description = models.TextField(blank=True)
    format = models.CharField(max_length=40, blank=True, help_text="What it is, e.g. onnx, safetensors, parquet")
    size_bytes = models.BigIntegerField(null=True, blank=True)
    checksum = models.CharField(max_length=160, blank=True, help_text="As given, e.g. sha256:...")
    environment = models.ForeignKey(Environment, null=True, blank=True, on_delete=models.SET_NULL, related_name="produced")
    lineage = models.JSONField(default=dict, blank=True, help_text='{"environment", "name", "template", "template_version", "inputs": [references]}')
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["artifact", "-number"]
        constraints = [models.UniqueConstraint(fields=["artifact", "number"], name="one_version_per_artifact_and_number")]

    def __str__(self) -> str:
        return self.reference

    @property
    def reference(self) -> str:
        """Such as dataset:imagenet@3."""
        return f"{self.artifact}@{self.number}"
