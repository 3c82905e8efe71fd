"""The caller, quotas, volumes, tokens."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from portal.domain.models import ApiToken, Membership, Quota, User, Volume
from portal.domain.tokens import SCOPES

from .fields import DurationTextField, StrictCharField, StrictSerializer

UNITS = {
    "environments": "count",
    "cpu": "millicores",
    "memory": "bytes",
    "storage": "bytes",
    "accelerators": "thousandths of a device",  # each device by its weight in the catalogue
    "accelerator_seconds": "seconds",  # of weighted devices, in the month that began on `period`
}


class QuotaSerializer(serializers.ModelSerializer):
    team = serializers.CharField(source="team.slug")
    user = serializers.CharField(source="user.username", default=None, allow_null=True, help_text="null: the whole team")
    unit = serializers.SerializerMethodField()
    free = serializers.IntegerField(source="headroom", allow_null=True, help_text="null: unlimited")

    class Meta:
        model = Quota
        fields = ["team", "user", "resource", "unit", "limit", "used", "free", "period"]
        extra_kwargs = {"limit": {"help_text": "null: unlimited"}, "period": {"help_text": "First day of the month that `used` is about; null: not by month"}}

    @extend_schema_field({"type": "string", "enum": sorted({"devices", *UNITS.values()})})
    def get_unit(self, row: Quota) -> str:
        return UNITS.get(row.resource, "devices")


class MembershipSerializer(serializers.ModelSerializer):
    slug = serializers.CharField(source="team.slug")
    name = serializers.CharField(source="team.name")

    class Meta:
        model = Membership
        fields = ["slug", "name", "role"]


class MeSerializer(serializers.ModelSerializer):
    name = serializers.CharField(source="get_full_name")
    is_admin = serializers.BooleanField(source="is_staff")
    teams = MembershipSerializer(source="memberships", many=True)
    quotas = QuotaSerializer(many=True, source="effective_quotas", help_text="The limits that apply to you: your teams' and your own within them")
    scopes = serializers.ListField(child=serializers.CharField(), allow_null=True, help_text="Scopes of the token used; null for a browser session")

    class Meta:
        model = User
        fields = ["username", "name", "email", "is_admin", "language", "timezone", "teams", "quotas", "scopes"]


class MeChangeSerializer(StrictSerializer):
    timezone = StrictCharField(required=False, max_length=64, allow_blank=True, help_text="IANA name such as Asia/Shanghai; empty: the installation's")
    language = StrictCharField(required=False, max_length=16, allow_blank=True, help_text="en or zh-hans; empty: as the browser says")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError("Give at least one of timezone, language.")
        return attrs


class VolumeSerializer(serializers.ModelSerializer):
    team = serializers.CharField(source="team.slug")
    owner = serializers.CharField(source="owner.username")
    environment = serializers.UUIDField(source="live_environment", allow_null=True, help_text="The environment that has it; null: kept after deletion")

    class Meta:
        model = Volume
        fields = ["id", "name", "team", "owner", "size_bytes", "environment", "purge_requested_at", "created_at"]


class TokenSerializer(serializers.ModelSerializer):
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=list(SCOPES)))

    class Meta:
        model = ApiToken
        fields = ["id", "name", "prefix", "scopes", "created_at", "expires_at", "last_used_at"]


class TokenMadeSerializer(TokenSerializer):
    token = serializers.SerializerMethodField(help_text="The token itself, shown only now; null when a repeated request is answered again")

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "token"]

    @extend_schema_field({"type": ["string", "null"]})
    def get_token(self, row: ApiToken) -> Any:
        return self.context["plaintext"]


class TokenCreateSerializer(StrictSerializer):
    name = StrictCharField(max_length=100, help_text="What it is for")
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=list(SCOPES)), allow_empty=False, max_length=len(SCOPES))
    expires_in = DurationTextField(required=False, help_text="1m to 365d; 30d when absent")


class TokenPageSerializer(serializers.Serializer):
    results = TokenSerializer(many=True)
    next = serializers.URLField(allow_null=True)
