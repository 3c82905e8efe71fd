"""Usage reports, and the pages of short lists."""

from __future__ import annotations

from rest_framework import serializers

from .queue import PrioritySerializer, QueueEntrySerializer


class HoursField(serializers.FloatField):
    """Exact hours as a number with four decimals."""

    def to_representation(self, value: object) -> float:
        return round(float(value), 4)  # type: ignore[arg-type]


class UsageRowSerializer(serializers.Serializer):
    key = serializers.CharField(help_text="User name or slug; empty: without accelerator", allow_blank=True)
    environments = serializers.IntegerField(help_text="How many held anything")
    accelerator_hours = HoursField(help_text="Devices times hours")
    weighted_hours = HoursField(help_text="The same, each device by its weight in the catalogue: what the budget counts")
    cpu_hours = HoursField(help_text="Cores times hours")
    memory_hours = HoursField(help_text="GiB times hours")


class UsageSerializer(serializers.Serializer):
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    group_by = serializers.ChoiceField(choices=["user", "team", "accelerator", "template"])
    results = UsageRowSerializer(many=True)


class QueuePageSerializer(serializers.Serializer):
    results = QueueEntrySerializer(many=True)
    next = serializers.URLField(allow_null=True)


class PriorityPageSerializer(serializers.Serializer):
    results = PrioritySerializer(many=True)
    next = serializers.URLField(allow_null=True)
