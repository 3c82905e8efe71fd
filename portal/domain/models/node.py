"""Nodes of the cluster as the watcher last saw them: what is free now, shown before anyone asks."""

from __future__ import annotations

from django.db import models


class Node(models.Model):
    """One schedulable node. Quantities: cpu in millicores, memory in bytes, every other resource key in devices."""

    name = models.CharField(max_length=253, unique=True)
    allocatable = models.JSONField(default=dict, help_text='{"cpu": 8000, "memory": 17179869184, "pods": 110, "nvidia.com/gpu": 8}')
    used = models.JSONField(default=dict, help_text="Sum of the requests of its pods, ours and others', same units")
    environments = models.JSONField(
        default=dict, help_text='Part of `used` that is ours: {environment id: {"roles": {role: pods}, "resources": {"cpu": 500, ...}}}'
    )
    labels = models.JSONField(default=dict)
    taints = models.JSONField(default=list)
    ready = models.BooleanField(default=True)
    simulated = models.BooleanField(default=False, help_text="A node of the embedded cluster that has no such hardware")
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ["name"]
