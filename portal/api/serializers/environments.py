"""Environments, their events, requests for them and previews."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from portal.domain.models import Environment, Event
from portal.domain.quantities import accelerator_of

from .fields import DurationTextField, StrictCharField, StrictIntegerField, StrictSerializer


class StepSerializer(serializers.Serializer):
    key = serializers.CharField(required=False)
    title = serializers.CharField(required=False)
    state = serializers.ChoiceField(choices=["done", "active", "waiting", "failed"], required=False)
    message = serializers.CharField(required=False)


class EndpointSerializer(serializers.Serializer):
    name = serializers.CharField(required=False)
    role = serializers.CharField(required=False)
    title = serializers.CharField(required=False)
    url = serializers.CharField(required=False)
    address = serializers.CharField(required=False)


class ReplicaSerializer(serializers.Serializer):
    name = serializers.CharField(required=False, help_text="Pod name")
    role = serializers.CharField(required=False)
    state = serializers.CharField(required=False, help_text="pending, starting, running, succeeded, failed or terminating")
    ready = serializers.BooleanField(required=False)
    restarts = serializers.IntegerField(required=False)
    node = serializers.CharField(required=False, allow_null=True)
    address = serializers.CharField(required=False, allow_null=True)
    reason = serializers.CharField(required=False, allow_null=True)
    message = serializers.CharField(required=False, allow_null=True)
    containers = serializers.ListField(child=serializers.CharField(), required=False)
    simulated = serializers.BooleanField(required=False)


class QueueSerializer(serializers.Serializer):
    position = serializers.IntegerField(allow_null=True)
    eta = serializers.DateTimeField(allow_null=True)


class HeldSerializer(serializers.Serializer):
    cpu = serializers.FloatField(help_text="CPUs")
    memory_bytes = serializers.IntegerField()
    accelerators = serializers.DictField(child=serializers.IntegerField(), help_text="Devices by accelerator")


class EnvironmentSerializer(serializers.ModelSerializer):
    template = serializers.CharField(source="template.slug")
    flavor = serializers.CharField(source="flavor.slug")
    team = serializers.CharField(source="team.slug")
    owner = serializers.CharField(source="owner.username")
    queue = serializers.SerializerMethodField()
    steps = serializers.SerializerMethodField()
    endpoints = serializers.SerializerMethodField()
    replicas = serializers.SerializerMethodField()
    snippet = serializers.SerializerMethodField(help_text="Code that connects to it")
    url = serializers.SerializerMethodField(help_text="Where the notebook opens; null for clusters and before it runs")
    resources = serializers.SerializerMethodField(help_text="Quota held now")
    volume = serializers.UUIDField(source="volume_id", allow_null=True, help_text="Its home volume")
    expires_in = DurationTextField(allow_null=True)

    class Meta:
        model = Environment
        fields = [
            "id", "name", "kind", "template", "template_version", "flavor", "team", "owner", "params", "workers",
            "desired", "state", "reason", "message", "queue", "steps", "endpoints", "replicas", "snippet", "url", "resources", "volume",
            "expires_in", "expires_at", "created_at", "started_at", "stopped_at", "deleted_at", "last_seq",
        ]  # fmt: skip

    @extend_schema_field(QueueSerializer)
    def get_queue(self, environment: Environment) -> dict[str, Any]:
        return {"position": None, "eta": None}  # no queue of our own yet: what waits, waits for the cluster's scheduler

    @extend_schema_field(StepSerializer(many=True))
    def get_steps(self, environment: Environment) -> Any:
        return StepSerializer(environment.observed.get("steps", []), many=True).data

    @extend_schema_field(EndpointSerializer(many=True))
    def get_endpoints(self, environment: Environment) -> Any:
        return EndpointSerializer(environment.observed.get("endpoints", []), many=True).data

    @extend_schema_field(ReplicaSerializer(many=True))
    def get_replicas(self, environment: Environment) -> Any:
        return ReplicaSerializer(environment.observed.get("replicas", []), many=True).data

    def get_snippet(self, environment: Environment) -> str:
        return environment.observed.get("snippet") or ""

    @extend_schema_field({"type": ["string", "null"], "format": "uri"})
    def get_url(self, environment: Environment) -> str | None:
        path = environment.observed.get("hub_url")
        return f"{settings.HUB_PUBLIC_URL}{path}" if path else None

    @extend_schema_field(HeldSerializer)
    def get_resources(self, environment: Environment) -> dict[str, Any]:
        held = environment.reserved
        devices = {slug: amount for resource, amount in held.items() if (slug := accelerator_of(resource))}
        return {"cpu": held.get("cpu", 0) / 1000, "memory_bytes": held.get("memory", 0), "accelerators": devices}


class EventSerializer(serializers.ModelSerializer):
    actor = serializers.CharField(source="actor.username", default=None, allow_null=True)

    class Meta:
        model = Event
        fields = ["seq", "kind", "code", "message", "from_state", "to_state", "actor", "created_at"]


class EventPageSerializer(serializers.Serializer):
    results = EventSerializer(many=True)
    next = serializers.URLField(allow_null=True, help_text="Address of the next page; null on the last one")


class EnvironmentRequestSerializer(StrictSerializer):
    name = StrictCharField(max_length=1000, help_text="1 to 40 lower-case letters, digits and hyphens, starting with a letter", trim_whitespace=False)
    template = StrictCharField(max_length=60)
    flavor = StrictCharField(max_length=60)
    team = StrictCharField(max_length=60, required=False, help_text="May be left out by who is in one team only")
    params = serializers.DictField(required=False, help_text="As the template's JSON Schema says")
    expires_in = DurationTextField(required=False, help_text="Running time, such as 8h; the template's default when absent")


class EnvironmentChangeSerializer(StrictSerializer):
    workers = StrictIntegerField(required=False, help_text="Scale to this many workers")
    expires_in = DurationTextField(required=False, help_text="Let it run this much longer from now")
    name = StrictCharField(required=False, max_length=1000, trim_whitespace=False, help_text="Rename it; only while it is stopped")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError("Give at least one of workers, expires_in, name.")
        return attrs


class QuotaEffectSerializer(serializers.Serializer):
    scope = serializers.ChoiceField(choices=["team", "user"])
    resource = serializers.CharField()
    limit = serializers.IntegerField(allow_null=True)
    used = serializers.IntegerField()
    amount = serializers.IntegerField(help_text="What the request would add")
    fits = serializers.BooleanField()


class RoleShapeSerializer(serializers.Serializer):
    name = serializers.CharField()
    replicas = serializers.IntegerField()
    cpu = serializers.SerializerMethodField()
    memory_bytes = serializers.IntegerField()
    accelerator = serializers.CharField()
    accelerator_count = serializers.IntegerField()

    def get_cpu(self, shape: Any) -> float:
        return shape.cpu_millis / 1000


class PreviewSerializer(serializers.Serializer):
    allowed = serializers.BooleanField(help_text="Whether the quota has room now")
    refusals = serializers.ListField(child=serializers.CharField())
    quota = QuotaEffectSerializer(many=True)
    roles = RoleShapeSerializer(many=True)
    storage_bytes = serializers.IntegerField(help_text="Storage newly reserved for a home volume")
    keeps_volume = serializers.BooleanField(help_text="A home volume kept under this name is taken up again")
    expires_in = DurationTextField()
    starts_now = serializers.BooleanField(allow_null=True, help_text="Whether there is room on the nodes now; null when no node has been seen")
    queue = serializers.SerializerMethodField()

    @extend_schema_field(QueueSerializer)
    def get_queue(self, preview: Any) -> dict[str, Any]:
        return {"position": None, "eta": None}
