"""Approvals and notifications."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from portal.domain.models import Approval, Notification

from .fields import DurationTextField, StrictCharField, StrictIntegerField, StrictSerializer


class WishSerializer(serializers.Serializer):
    flavor = serializers.CharField(required=False)
    workers = serializers.IntegerField(required=False, help_text="0 for notebooks")
    expires_in = DurationTextField(required=False, allow_null=True, help_text="null: without end")


class ApprovalSerializer(serializers.ModelSerializer):
    environment = serializers.UUIDField(source="environment_id")
    name = serializers.CharField(source="environment.name", help_text="Of the environment")
    team = serializers.CharField(source="environment.team.slug")
    template = serializers.CharField(source="environment.template.slug")
    asked_by = serializers.CharField(source="asked_by.username")
    decided_by = serializers.CharField(source="decided_by.username", default=None, allow_null=True)
    why = serializers.ListField(child=serializers.CharField(), help_text="What goes beyond self-service")
    requested = WishSerializer()
    granted = serializers.SerializerMethodField(help_text="What was approved, which may be less; null before")

    class Meta:
        model = Approval
        fields = [
            "id", "status", "environment", "name", "team", "template", "asked_by", "why", "requested", "granted", "decided_by", "note",
            "created_at", "lapses_at", "decided_at",
        ]  # fmt: skip

    @extend_schema_field(WishSerializer(allow_null=True))
    def get_granted(self, row: Approval) -> Any:
        return WishSerializer(row.granted).data if row.granted else None


class PendingApprovalSerializer(serializers.ModelSerializer):
    why = serializers.ListField(child=serializers.CharField(), help_text="What goes beyond self-service")

    class Meta:
        model = Approval
        fields = ["id", "why", "lapses_at"]


class ApproveSerializer(StrictSerializer):
    flavor = StrictCharField(required=False, max_length=60, help_text="A smaller one than asked for")
    workers = StrictIntegerField(required=False, allow_null=True, help_text="Fewer than asked for")
    expires_in = DurationTextField(required=False, help_text="Shorter than asked for")
    note = StrictCharField(required=False, max_length=1000, allow_blank=True, help_text="For the one who asked")


class RefuseSerializer(StrictSerializer):
    note = StrictCharField(max_length=1000, help_text="Why; the one who asked reads it")


class NotificationSerializer(serializers.ModelSerializer):
    environment = serializers.UUIDField(source="environment_id", allow_null=True)

    class Meta:
        model = Notification
        fields = ["id", "code", "message", "environment", "created_at", "read_at"]


class ReadSerializer(StrictSerializer):
    ids = serializers.ListField(child=StrictIntegerField(min_value=1, max_value=2**63 - 1), required=False, max_length=1000, help_text="Absent: all of yours")


class ReadAnswerSerializer(serializers.Serializer):
    read = serializers.IntegerField(help_text="How many were unread")
