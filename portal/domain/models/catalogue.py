"""What can be asked for: templates (what to run), flavors (how much), accelerators (which chip), priorities (how urgently)."""

from __future__ import annotations

from django.db import models


class Accelerator(models.Model):
    """One kind of chip, as catalogue data: names differ per vendor stack, so none is in code."""

    slug = models.SlugField(max_length=60, unique=True)
    title = models.JSONField(default=dict, help_text='{"en": "...", "zh-hans": "..."}')
    family = models.CharField(max_length=20, help_text="gpu, npu, dcu, mlu, vpu, fpga, tpu")
    vendor = models.CharField(max_length=60, blank=True)
    model = models.CharField(max_length=60, blank=True)
    memory_bytes = models.BigIntegerField(null=True, blank=True)
    resource_key = models.CharField(max_length=120, help_text="Extended resource counted per device, e.g. nvidia.com/gpu")
    node_selector = models.JSONField(default=dict, blank=True)
    tolerations = models.JSONField(default=list, blank=True)
    runtime_class = models.CharField(max_length=60, blank=True)
    scheduler_name = models.CharField(max_length=60, blank=True)
    annotations = models.JSONField(default=dict, blank=True)
    env = models.JSONField(default=dict, blank=True)
    quota_weight = models.FloatField(default=1.0)
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Flavor(models.Model):
    """A shape: CPU, memory, shared memory and, if any, accelerators. For a cluster it is the shape of one worker."""

    slug = models.SlugField(max_length=60, unique=True)
    title = models.JSONField(default=dict)
    cpu_millis = models.PositiveIntegerField(help_text="Millicores")
    memory_bytes = models.BigIntegerField()
    shm_bytes = models.BigIntegerField(default=0, help_text="Size of /dev/shm, taken from memory; 0 keeps the runtime's default")
    accelerator = models.ForeignKey(Accelerator, null=True, blank=True, on_delete=models.PROTECT, related_name="flavors")
    accelerator_count = models.PositiveIntegerField(default=0)
    position = models.PositiveIntegerField(default=100)
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["position", "slug"]

    def __str__(self) -> str:
        return self.slug


class Template(models.Model):
    """Something to run. `spec` is the validated template document (see docs/adding-a-template.md)."""

    class Kind(models.TextChoices):
        NOTEBOOK = "notebook"
        CLUSTER = "cluster"

    slug = models.SlugField(max_length=60, unique=True)
    version = models.PositiveIntegerField(default=1)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    title = models.JSONField(default=dict)
    description = models.JSONField(default=dict)
    icon = models.CharField(max_length=40, blank=True)
    spec = models.JSONField(default=dict)
    position = models.PositiveIntegerField(default=100)
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["position", "slug"]

    def __str__(self) -> str:
        return self.slug


class TemplateVersion(models.Model):
    """A template as it was or is under one number; never changed, so that what was made from it can be read for ever.

    `replaced_by` is the number of the version with which environments made from this one start next. It is always a higher one: chains end.
    """

    template = models.ForeignKey(Template, on_delete=models.CASCADE, related_name="versions")
    version = models.PositiveIntegerField()
    spec = models.JSONField()
    source = models.TextField(blank=True, help_text="The YAML it was read from, comments and all; empty: not known")
    replaced_by = models.PositiveIntegerField(null=True, blank=True, help_text="Environments made from this version start with that one the next time")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["template", "-version"]
        constraints = [
            models.UniqueConstraint(fields=["template", "version"], name="one_spec_per_template_version"),
            models.CheckConstraint(condition=models.Q(replaced_by=None) | models.Q(replaced_by__gt=models.F("version")), name="replaced_by_a_later_version"),
        ]

    def __str__(self) -> str:
        return f"{self.template.slug} {self.version}"


class Priority(models.Model):
    """A class of urgency in the queue. Higher values go first; the one named by the setting is everyone's default."""

    slug = models.SlugField(max_length=40, unique=True)
    title = models.JSONField(default=dict)
    value = models.IntegerField(help_text="Higher goes first")
    everyone = models.BooleanField(default=True, help_text="Every team may use it; else only those listed")
    leads_only = models.BooleanField(default=False, help_text="Within a team, only its leads may use it")
    teams = models.ManyToManyField("domain.Team", blank=True, related_name="priorities")
    preempts = models.BooleanField(default=False, help_text="May stop preemptible environments of lower priority")

    class Meta:
        ordering = ["-value", "slug"]
        verbose_name_plural = "priorities"

    def __str__(self) -> str:
        return self.slug
