"""The queue, priorities, schedules: in an environment, in a preview, and by themselves."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from .fields import LocalizedField


class EtaSerializer(serializers.Serializer):
    earliest = serializers.DateTimeField()
    latest = serializers.DateTimeField(allow_null=True, help_text="null: not known")


class QueueSerializer(serializers.Serializer):
    """Where one that waits stands."""

    position = serializers.IntegerField(allow_null=True, help_text="1 goes first; null: the queue that decides tells no position")
    ahead = serializers.IntegerField(allow_null=True, help_text="Environments that go first; null: not known")
    code = serializers.CharField(help_text="Stable for programs, e.g. WaitingForRoom", allow_blank=True)
    message = serializers.CharField(help_text="The same for people", allow_blank=True)
    eta = EtaSerializer(allow_null=True, help_text="Estimated start as a range; null: not known")


def queue_document(told: Any) -> dict[str, Any] | None:
    """`Environment.queue` in the form of QueueSerializer, whatever it lacks; None while the queue has said nothing yet."""
    if not told:
        return None
    eta = told.get("eta") or {}
    return {
        "position": _number(told.get("position")),
        "ahead": _number(told.get("ahead")),
        "code": str(told.get("code") or ""),
        "message": str(told.get("message") or ""),
        "eta": {"earliest": eta["earliest"], "latest": eta.get("latest")} if eta.get("earliest") else None,
    }


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


class ScheduleSerializer(serializers.Serializer):
    start = serializers.CharField(allow_null=True, help_text="Time of day such as 09:00; null: not started by itself")
    stop = serializers.CharField(allow_null=True)
    days = serializers.ListField(child=serializers.IntegerField(min_value=1, max_value=7), help_text="1 is Monday")
    timezone = serializers.CharField()


_TIME = {"type": ["string", "null"], "examples": ["09:00"]}


@extend_schema_field(
    {
        "type": "object",
        "description": "When it starts and stops by itself; {} or null: never. Days default to 1 to 5, the time zone to yours.",
        "properties": {
            "start": _TIME,
            "stop": _TIME,
            "days": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 7}},
            "timezone": {"type": "string"},
        },
    }
)
class ScheduleField(serializers.JSONField):
    """Checked by the services, whose words are the only ones."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError("Must be an object with start, stop, days and timezone, or null.")
        return super().to_internal_value(data)


class QueueEntrySerializer(serializers.Serializer):
    position = serializers.IntegerField()
    environment = serializers.UUIDField(source="environment.pk", default=None, allow_null=True, help_text="null: one that you may not see")
    name = serializers.CharField(source="environment.name", default=None, allow_null=True)
    owner = serializers.CharField(source="environment.owner.username", default=None, allow_null=True)
    team = serializers.SerializerMethodField(help_text="null: not a team of yours")
    flavor = serializers.SerializerMethodField(help_text="null: not of a team of yours")
    priority = serializers.CharField(source="environment.priority", default=None, allow_null=True)
    queued_at = serializers.DateTimeField(allow_null=True)
    queue = serializers.SerializerMethodField()

    @extend_schema_field({"type": ["string", "null"]})
    def get_team(self, entry: Any) -> str | None:
        return entry.team or None

    @extend_schema_field({"type": ["string", "null"]})
    def get_flavor(self, entry: Any) -> str | None:
        return entry.flavor or None

    @extend_schema_field(QueueSerializer(allow_null=True))
    def get_queue(self, entry: Any) -> dict[str, Any] | None:
        return queue_document(entry.environment.queue) if entry.environment else None


class PrioritySerializer(serializers.Serializer):
    slug = serializers.CharField()
    title = LocalizedField()
    value = serializers.IntegerField(help_text="Higher goes first")
    preempts = serializers.BooleanField(help_text="May stop environments of lower priority whose template allows it")
    default = serializers.BooleanField(help_text="What a request has that names none")
    teams = serializers.ListField(child=serializers.CharField(), help_text="Your teams in which you may use it")
