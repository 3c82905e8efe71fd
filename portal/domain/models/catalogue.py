"""What can be asked for: templates (what to run), flavors (how much), accelerators (which chip), networks, priorities (how urgently)."""

from __future__ import annotations

from django.db import models

from ..shape import FlavorShape


class Accelerator(models.Model):
    """One kind of chip, or a share of one, as catalogue data: names differ per vendor stack, so none is in code."""

    class Family(models.TextChoices):
        GPU = "gpu"
        NPU = "npu"
        DCU = "dcu"
        MLU = "mlu"
        VPU = "vpu"
        FPGA = "fpga"
        ASIC = "asic"
        TPU = "tpu"

    class Sharing(models.TextChoices):
        """How many work on one device, and what keeps them apart."""

        WHOLE = "whole"
        MIG = "mig"
        TIME_SLICE = "time-slice"
        MPS = "mps"
        HAMI = "hami"
        VNPU = "vnpu"
        DRA = "dra"

    slug = models.SlugField(max_length=60, unique=True)
    title = models.JSONField(default=dict, help_text='{"en": "...", "zh-hans": "..."}')
    family = models.CharField(max_length=20, choices=Family.choices)
    vendor = models.CharField(max_length=60, blank=True)
    model = models.CharField(max_length=60, blank=True)
    memory_bytes = models.BigIntegerField(null=True, blank=True)
    resource_key = models.CharField(max_length=120, blank=True, help_text="Extended resource counted per device, e.g. nvidia.com/gpu; empty with `dra`")
    resources = models.JSONField(default=dict, blank=True, help_text='Further keys and how much of each per device: {"nvidia.com/gpumem": 10240}')
    dra = models.JSONField(
        default=dict, blank=True, help_text='Dynamic Resource Allocation instead of a key: {"device_class": "gpu.nvidia.com", "selectors": ["CEL", ...]}'
    )
    sharing = models.CharField(max_length=12, choices=Sharing.choices, default=Sharing.WHOLE)
    slice_of = models.CharField(max_length=60, blank=True, help_text="Slug of the accelerator of which this is a part")
    node_selector = models.JSONField(default=dict, blank=True)
    tolerations = models.JSONField(default=list, blank=True)
    runtime_class = models.CharField(max_length=60, blank=True)
    scheduler_name = models.CharField(max_length=60, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    annotations = models.JSONField(default=dict, blank=True)
    env = models.JSONField(default=dict, blank=True)
    capabilities = models.JSONField(default=list, blank=True, help_text="Linux capabilities that its pods need; a team needs an exception for each")
    quota_weight = models.FloatField(default=1.0)
    cost_per_hour = models.DecimalField(max_digits=12, decimal_places=4, null=True, blank=True, help_text="Of one device, in the setting CURRENCY")
    source = models.CharField(max_length=300, blank=True, help_text="Where its names were read")
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug

    @property
    def device_key(self) -> str:
        """Under which its devices are counted on nodes. Devices that are claimed have the key by which a ResourceQuota counts their class;
        with selectors, which leave only some of them, the accelerator's own."""
        if not self.dra:
            return self.resource_key
        key = f"{self.dra['device_class']}.deviceclass.resource.k8s.io/devices"
        return f"{key}#{self.slug}" if self.dra.get("selectors") else key

    def amounts(self, count: int) -> dict[str, int]:
        """What `count` devices take of a node, by key."""
        return {self.device_key: count, **{key: int(amount) * count for key, amount in self.resources.items()}}


class Network(models.Model):
    """What pods need beyond the cluster's usual network, such as RDMA."""

    class Kind(models.TextChoices):
        TCP = "tcp"
        RDMA = "rdma"

    slug = models.SlugField(max_length=60, unique=True)
    title = models.JSONField(default=dict)
    kind = models.CharField(max_length=8, choices=Kind.choices)
    resource_key = models.CharField(max_length=120, blank=True, help_text="Extended resource of its devices, e.g. rdma/hca_shared_devices_a")
    annotations = models.JSONField(default=dict, blank=True, help_text="Of pods, e.g. Multus' k8s.v1.cni.cncf.io/networks")
    capabilities = models.JSONField(default=list, blank=True, help_text="Linux capabilities that its pods need; a team needs an exception for each")
    env = models.JSONField(default=dict, blank=True)
    topology = models.JSONField(default=dict, blank=True, help_text='Where replicas have to be together: {"level": "rack", "mode": "required"}')
    source = models.CharField(max_length=300, blank=True, help_text="Where its names were read")
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class Flavor(models.Model):
    """A shape: CPU, memory, storage and, if any, accelerators and network devices. For a cluster it is the shape of one worker."""

    slug = models.SlugField(max_length=60, unique=True)
    title = models.JSONField(default=dict)
    cpu_millis = models.PositiveIntegerField(help_text="Millicores")
    memory_bytes = models.BigIntegerField()
    shm_bytes = models.BigIntegerField(default=0, help_text="Size of /dev/shm, taken from memory; 0 keeps the runtime's default")
    ephemeral_bytes = models.BigIntegerField(default=0, help_text="Storage of the node that goes with the pod; 0: not limited")
    accelerator = models.ForeignKey(Accelerator, null=True, blank=True, on_delete=models.PROTECT, related_name="flavors")
    accelerator_count = models.PositiveIntegerField(default=0)
    network = models.ForeignKey(Network, null=True, blank=True, on_delete=models.PROTECT, related_name="flavors")
    network_count = models.PositiveIntegerField(default=0, help_text="Network devices of one pod")
    position = models.PositiveIntegerField(default=100)
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["position", "slug"]

    def __str__(self) -> str:
        return self.slug

    def shape(self) -> FlavorShape:
        """Its figures, free of the database. Reads `accelerator` and `network`."""
        chip = self.accelerator if self.accelerator_count else None
        return FlavorShape(
            cpu_millis=self.cpu_millis,
            memory_bytes=self.memory_bytes,
            shm_bytes=self.shm_bytes,
            ephemeral_bytes=self.ephemeral_bytes,
            accelerator=chip.slug if chip else "",
            accelerator_count=self.accelerator_count if chip else 0,
            network=self.network.slug if self.network else "",
            network_key=self.network.resource_key if self.network else "",
            network_count=self.network_count if self.network else 0,
        )

    def capabilities(self) -> tuple[str, ...]:
        """Linux capabilities beyond restricted Pod Security that its pods need, in order. Reads `accelerator` and `network`."""
        chip = self.accelerator.capabilities if self.accelerator and self.accelerator_count else []
        return tuple(sorted({*chip, *(self.network.capabilities if self.network else [])}))


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
