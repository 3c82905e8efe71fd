"""Templates, flavors and accelerators."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from portal.domain import selectors
from portal.domain.allowed import allowed
from portal.domain.durations import format_duration
from portal.domain.models import Template
from portal.domain.params import plain
from portal.domain.services import checks
from portal.domain.shape import parameters

from .fields import LocalizedField, said


class TemplateSerializer(serializers.ModelSerializer):
    title = LocalizedField()
    description = LocalizedField()
    roles = serializers.SerializerMethodField()
    params = serializers.SerializerMethodField(help_text="JSON Schema of the parameters")
    expires_in = serializers.SerializerMethodField()
    has_home = serializers.SerializerMethodField()
    flavors = serializers.SerializerMethodField(help_text="Slugs of the flavors that it can be asked for with")
    priority = serializers.SerializerMethodField(help_text="Priority of requests that name none, where the requester may use it; empty: the usual one")

    class Meta:
        model = Template
        fields = ["slug", "version", "kind", "title", "description", "icon", "roles", "params", "expires_in", "has_home", "flavors", "priority"]

    @extend_schema_field({"type": "array", "items": {"type": "string"}})
    def get_roles(self, template: Template) -> list[str]:
        return [role["name"] for role in template.spec["roles"]]

    @extend_schema_field({"type": "object", "additionalProperties": True})
    def get_params(self, template: Template) -> dict[str, Any]:
        return plain(parameters(template.spec), said)

    def get_expires_in(self, template: Template) -> str:
        """Running time granted when a request names none."""
        return format_duration(checks.check_expiry(template.spec, None))

    @extend_schema_field({"type": "array", "items": {"type": "string"}})
    def get_flavors(self, template: Template) -> list[str]:
        if not hasattr(self.root, "_flavors"):
            self.root._flavors = selectors.flavors_of({"roles": []})  # all, once for a whole page of rows
        return [flavor.slug for flavor in allowed(template.spec, self.root._flavors)]

    def get_priority(self, template: Template) -> str:
        return (template.spec.get("scheduling") or {}).get("priority", "")

    def get_has_home(self, template: Template) -> bool:
        """Whether it comes with a home volume that outlives it."""
        return "home" in template.spec


class CapacitySerializer(serializers.Serializer):
    total = serializers.IntegerField(help_text="Replicas of this flavor that empty nodes hold")
    in_use = serializers.IntegerField(help_text="Of those, how many the present use takes away")
    free = serializers.IntegerField(help_text="Replicas for which there is room now")
    starts_now = serializers.IntegerField(help_text="Replicas that you could start at once: room now, within your quota")
    known = serializers.BooleanField(help_text="False while no node has been seen; the other figures then say nothing")
    simulated = serializers.BooleanField(help_text="True when only simulated nodes can hold it")
    nodes = serializers.IntegerField(help_text="Nodes that can hold one when they are empty")
    nodes_free = serializers.IntegerField(help_text="Nodes on which one starts at once")
    largest = serializers.IntegerField(help_text="Replicas of one cluster that start at once, within one network domain where its network asks for that")


class FlavorSerializer(serializers.Serializer):
    slug = serializers.CharField(source="flavor.slug")
    title = LocalizedField(source="flavor.title")
    cpu = serializers.SerializerMethodField(help_text="CPUs of one replica")
    memory_bytes = serializers.IntegerField(source="flavor.memory_bytes")
    shm_bytes = serializers.IntegerField(source="flavor.shm_bytes")
    accelerator = serializers.CharField(source="flavor.accelerator.slug", default=None, allow_null=True)
    accelerator_count = serializers.IntegerField(source="flavor.accelerator_count")
    ephemeral_bytes = serializers.IntegerField(source="flavor.ephemeral_bytes", help_text="Storage of the node; 0: not limited")
    network = serializers.CharField(source="flavor.network.slug", default=None, allow_null=True)
    network_count = serializers.IntegerField(source="flavor.network_count")
    capabilities = serializers.ListField(
        child=serializers.CharField(), source="flavor.capabilities", help_text="Exceptions to restricted Pod Security that a team needs for it"
    )
    cost_per_hour = serializers.SerializerMethodField(help_text="Of one replica, in the installation's currency; null: costs are not kept here")
    capacity = serializers.SerializerMethodField()
    fits = serializers.BooleanField(source="capacity.fits", help_text="False when no node can ever hold one replica")
    reason = serializers.CharField(source="capacity.reason", help_text="Why it does not fit; empty when it does")

    def get_cost_per_hour(self, row: Any) -> float | None:
        chip = row.flavor.accelerator
        shown = settings.CURRENCY and chip is not None and chip.cost_per_hour is not None
        return float(chip.cost_per_hour * row.flavor.accelerator_count) if shown else None

    def get_cpu(self, row: Any) -> float:
        return row.flavor.cpu_millis / 1000

    @extend_schema_field(CapacitySerializer)
    def get_capacity(self, row: Any) -> dict[str, Any]:
        seen = row.capacity
        return {
            "total": seen.total,
            "in_use": seen.in_use,
            "free": seen.free,
            "starts_now": row.starts_now,
            "known": seen.known,
            "simulated": seen.simulated,
            "nodes": seen.nodes,
            "nodes_free": seen.nodes_free,
            "largest": seen.largest,
        }


class DevicesSerializer(serializers.Serializer):
    total = serializers.IntegerField(help_text="Devices on the nodes that have it")
    in_use = serializers.IntegerField(help_text="Devices in use, by anyone")
    free = serializers.IntegerField(help_text="Devices free now")
    known = serializers.BooleanField(help_text="False while no node has been seen")
    simulated = serializers.BooleanField(help_text="True when only simulated nodes have it")
    nodes = serializers.IntegerField(help_text="Nodes that have it")
    nodes_free = serializers.IntegerField(help_text="Nodes with one free now")
    largest = serializers.IntegerField(help_text="Most that one pod can have at once: free on one node")


class AcceleratorSerializer(serializers.Serializer):
    slug = serializers.CharField(source="accelerator.slug")
    title = LocalizedField(source="accelerator.title")
    family = serializers.CharField(source="accelerator.family")
    vendor = serializers.CharField(source="accelerator.vendor")
    model = serializers.CharField(source="accelerator.model")
    memory_bytes = serializers.IntegerField(source="accelerator.memory_bytes", allow_null=True)
    resource_key = serializers.CharField(source="accelerator.resource_key", help_text="Empty: the cluster allocates it dynamically")
    device_class = serializers.SerializerMethodField(help_text="With Dynamic Resource Allocation; else empty")
    sharing = serializers.CharField(source="accelerator.sharing")
    slice_of = serializers.CharField(source="accelerator.slice_of", help_text="The accelerator of which it is a part; empty: it is none")
    quota_weight = serializers.FloatField(source="accelerator.quota_weight")
    reason = serializers.CharField(help_text="Why nobody can have one here; empty when somebody can")
    capacity = DevicesSerializer(source="*")

    def get_device_class(self, row: Any) -> str:
        return str(row.accelerator.dra.get("device_class", ""))
