"""Environments, their events, requests for them and previews."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from portal.domain import autoscale, selectors
from portal.domain.lifecycle import State
from portal.domain.models import Approval, Environment, Event
from portal.domain.quantities import accelerator_of

from .data import MountSerializer, MountsField
from .decisions import PendingApprovalSerializer
from .fields import DurationTextField, StrictCharField, StrictIntegerField, StrictSerializer
from .queue import QueueSerializer, ScheduleField, ScheduleSerializer, queue_document


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


class HeldSerializer(serializers.Serializer):
    cpu = serializers.FloatField(help_text="CPUs")
    memory_bytes = serializers.IntegerField()
    accelerators = serializers.DictField(child=serializers.IntegerField(), help_text="Devices by accelerator")


class AutoscaleSerializer(serializers.Serializer):
    on = serializers.BooleanField()
    metric = serializers.ChoiceField(choices=list(autoscale.METRICS))
    target = serializers.FloatField(help_text="Percent of what a worker has; of a query, its value per worker")
    min = serializers.IntegerField()
    max = serializers.IntegerField()
    load = serializers.FloatField(allow_null=True, help_text="Of each worker at the last sample; null: not known, or off")


class EnvironmentSerializer(serializers.ModelSerializer):
    template = serializers.CharField(source="template.slug")
    flavor = serializers.CharField(source="flavor.slug")
    team = serializers.CharField(source="team.slug")
    owner = serializers.CharField(source="owner.username")
    update_available = serializers.SerializerMethodField(help_text="Version of its template that its next start uses instead of its own; null: its own")
    queue = serializers.SerializerMethodField(help_text="Where it stands while it waits; null before the queue has looked at it, and otherwise")
    autoscale = serializers.SerializerMethodField(help_text="Between how many workers its template's rule scales it; null: it has none")
    schedule = serializers.SerializerMethodField(help_text="When it starts and stops by itself; null: never")
    approval = serializers.SerializerMethodField(help_text="The question that waits for an answer; null: none")
    steps = serializers.SerializerMethodField()
    endpoints = serializers.SerializerMethodField()
    replicas = serializers.SerializerMethodField()
    snippet = serializers.SerializerMethodField(help_text="Code that connects to it")
    url = serializers.SerializerMethodField(help_text="Where the notebook opens; null for clusters and before it runs")
    resources = serializers.SerializerMethodField(help_text="Quota held now")
    volume = serializers.UUIDField(source="volume_id", allow_null=True, help_text="Its home volume")
    mounts = MountSerializer(many=True, help_text="Storages, datasets and models inside it")
    expires_in = DurationTextField(allow_null=True)

    class Meta:
        model = Environment
        fields = [
            "id", "name", "kind", "template", "template_version", "update_available", "flavor", "team", "owner", "params", "workers", "autoscale",
            "desired", "state", "reason", "message", "queue", "priority", "approval", "schedule", "schedule_next_at",
            "steps", "endpoints", "replicas", "snippet", "url", "resources", "volume", "mounts",
            "expires_in", "expires_at", "delete_at", "idle_since", "preempt_at", "created_at", "started_at", "stopped_at", "deleted_at", "last_seq",
        ]  # fmt: skip

    def get_update_available(self, environment: Environment) -> int | None:
        if not hasattr(self.root, "_redirects"):
            self.root._redirects = selectors.redirects()  # once for a whole page of rows
        return selectors.next_version(environment, self.root._redirects)

    @extend_schema_field(QueueSerializer(allow_null=True))
    def get_queue(self, environment: Environment) -> dict[str, Any] | None:
        return queue_document(environment.queue) if environment.state == State.QUEUED else None

    @extend_schema_field(AutoscaleSerializer(allow_null=True))
    def get_autoscale(self, environment: Environment) -> Any:
        rule = autoscale.rule_of(environment.template_spec)
        if rule is None:
            return None
        on = autoscale.is_on(environment.template_spec, environment.autoscale)
        seen = {"load": environment.autoscale.get("load") if on else None}
        return {"on": on, "metric": rule.metric, "target": rule.target, "min": rule.least, "max": rule.most, **seen}

    @extend_schema_field(ScheduleSerializer(allow_null=True))
    def get_schedule(self, environment: Environment) -> Any:
        return environment.schedule or None

    @extend_schema_field(PendingApprovalSerializer(allow_null=True))
    def get_approval(self, environment: Environment) -> Any:
        if environment.state != State.AWAITING_APPROVAL:
            return None
        pending = environment.approvals.filter(status=Approval.Status.PENDING).first()
        return PendingApprovalSerializer(pending).data if pending else None

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
    priority = StrictCharField(required=False, allow_blank=True, max_length=60, help_text="One of GET /priorities; the default when absent")
    schedule = ScheduleField(required=False, allow_null=True)
    mounts = MountsField(required=False, allow_null=True, help_text="Storages, datasets and models to have inside it")


class EnvironmentChangeSerializer(StrictSerializer):
    workers = StrictIntegerField(required=False, help_text="Scale to this many workers")
    expires_in = DurationTextField(required=False, help_text="Let it run this much longer from now")
    name = StrictCharField(required=False, max_length=1000, trim_whitespace=False, help_text="Rename it; only while it is stopped")
    schedule = ScheduleField(required=False, allow_null=True)
    autoscale = serializers.BooleanField(required=False, help_text="Let its template's rule choose the number of workers, or not any more")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError("Give at least one of workers, expires_in, name, schedule, autoscale.")
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


class ForecastSerializer(serializers.Serializer):
    position = serializers.IntegerField(help_text="0: it would start at once")
    ahead = serializers.IntegerField()
    message = serializers.CharField(allow_blank=True)
    earliest = serializers.DateTimeField(allow_null=True, help_text="null: not known")
    latest = serializers.DateTimeField(allow_null=True, help_text="null: not known")


class ApprovalNeedSerializer(serializers.Serializer):
    why = serializers.ListField(child=serializers.CharField())
    approvers = serializers.ListField(child=serializers.CharField(), help_text="User names")


class PreviewSerializer(serializers.Serializer):
    allowed = serializers.BooleanField(help_text="Whether the quota has room now")
    refusals = serializers.ListField(child=serializers.CharField())
    quota = QuotaEffectSerializer(many=True)
    roles = RoleShapeSerializer(many=True)
    storage_bytes = serializers.IntegerField(help_text="Storage newly reserved for a home volume and volumes that the team shares")
    keeps_volume = serializers.BooleanField(help_text="A home volume kept under this name is taken up again")
    expires_in = DurationTextField()
    starts_now = serializers.BooleanField(allow_null=True, help_text="Whether there is room on the nodes now; null when no node has been seen")
    queue = serializers.SerializerMethodField(help_text="Where it would stand; position 0: it would start at once; null: not known")
    approval = serializers.SerializerMethodField(help_text="Why somebody has to approve it, and who may; null: nobody has to")
    cost_accelerator_hours = serializers.FloatField(help_text="Weighted, if it runs for the whole of its time")
    largest_now = serializers.IntegerField(allow_null=True, help_text="Most replicas of the scalable role that would start at once; null: not known or none")
    cost_per_hour = serializers.FloatField(allow_null=True, help_text="Of its accelerators; null: costs are not kept here")
    cost = serializers.FloatField(allow_null=True, help_text="Of its accelerators, if it runs for the whole of its time")
    currency = serializers.SerializerMethodField(help_text="Of the costs; empty: costs are not kept here")

    def get_currency(self, preview: Any) -> str:
        return str(settings.CURRENCY)

    @extend_schema_field(ForecastSerializer(allow_null=True))
    def get_queue(self, preview: Any) -> Any:
        seen = preview.forecast
        return ForecastSerializer(seen).data if seen is not None else None

    @extend_schema_field(ApprovalNeedSerializer(allow_null=True))
    def get_approval(self, preview: Any) -> Any:
        return {"why": list(preview.approval), "approvers": list(preview.approvers)} if preview.approval else None
