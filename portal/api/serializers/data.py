"""Datasets, models and their versions; storages; what environments mount. No secret and no server's address is in here."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from portal.domain.models import Artifact, ArtifactVersion

from .fields import LocalizedField, StrictCharField, StrictIntegerField, StrictSerializer


class StorageSerializer(serializers.Serializer):
    slug = serializers.CharField(source="storage.slug")
    title = LocalizedField(source="storage.title")
    description = LocalizedField(source="storage.description")
    kind = serializers.ChoiceField(source="storage.kind", choices=["claim", "scratch", "nfs", "csi", "object", "hdfs"])
    mount_path = serializers.SerializerMethodField(help_text="Where it appears unless a request says otherwise; null: it is given as variables only")
    access = serializers.DictField(child=serializers.ChoiceField(choices=["read", "write"]), help_text="What each of your teams may do, by slug")

    @extend_schema_field({"type": ["string", "null"]})
    def get_mount_path(self, use: Any) -> str | None:
        return use.storage.spec.get("mount_path")


class LineageSerializer(serializers.Serializer):
    environment = serializers.UUIDField()
    name = serializers.CharField(help_text="Of the environment, as it was then")
    template = serializers.CharField()
    template_version = serializers.IntegerField()
    inputs = serializers.ListField(child=serializers.CharField(), help_text="Datasets and models that it mounted")


class VersionSerializer(serializers.ModelSerializer):
    reference = serializers.CharField(help_text="Such as dataset:imagenet@3; to be mounted as that")
    storage = serializers.CharField(source="storage.slug", default=None, allow_null=True)
    volume = serializers.UUIDField(source="volume_id", allow_null=True, help_text="The home volume in which it lies, if in one")
    lineage = serializers.SerializerMethodField(help_text="What made it; null: not said")
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)

    class Meta:
        model = ArtifactVersion
        fields = [
            "reference", "number", "storage", "volume", "path", "description", "format", "size_bytes", "checksum", "lineage", "created_by", "created_at",
        ]  # fmt: skip

    @extend_schema_field(LineageSerializer(allow_null=True))
    def get_lineage(self, version: ArtifactVersion) -> Any:
        return version.lineage or None


class VersionPageSerializer(serializers.Serializer):
    results = VersionSerializer(many=True)
    next = serializers.URLField(allow_null=True)


class ArtifactSerializer(serializers.ModelSerializer):
    owner = serializers.CharField(source="owner.username")
    team = serializers.CharField(source="team.slug")
    latest = serializers.SerializerMethodField(help_text="Its newest version; null: none yet")

    class Meta:
        model = Artifact
        fields = ["kind", "name", "description", "owner", "team", "visibility", "latest", "created_at"]

    @extend_schema_field(VersionSerializer(allow_null=True))
    def get_latest(self, artifact: Artifact) -> Any:
        version = artifact.versions.select_related("artifact", "storage", "created_by").order_by("-number").first()
        return VersionSerializer(version).data if version else None


class ArtifactCreateSerializer(StrictSerializer):
    name = StrictCharField(max_length=200, trim_whitespace=False, help_text="1 to 60 lower-case letters, digits, dots, underscores and hyphens")
    team = StrictCharField(max_length=60, required=False, help_text="May be left out by who is in one team only")
    description = StrictCharField(max_length=4000, required=False, allow_blank=True)
    visibility = serializers.ChoiceField(choices=Artifact.Visibility.values, required=False, help_text="team when absent")


class ArtifactChangeSerializer(StrictSerializer):
    description = StrictCharField(max_length=4000, required=False, allow_blank=True)
    visibility = serializers.ChoiceField(choices=Artifact.Visibility.values, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs:
            raise serializers.ValidationError("Give at least one of description, visibility.")
        return attrs


class VersionCreateSerializer(StrictSerializer):
    path = StrictCharField(max_length=1000, help_text="A folder or file within the storage or volume, such as imagenet/v3")
    storage = StrictCharField(max_length=60, required=False, help_text="Slug of the storage in which it lies; absent: the environment's home volume")
    environment = serializers.UUIDField(required=False, help_text="Of yours: what made it is kept with the version")
    description = StrictCharField(max_length=4000, required=False, allow_blank=True)
    format = StrictCharField(max_length=40, required=False, help_text="Such as onnx, safetensors or parquet")
    size_bytes = StrictIntegerField(required=False, min_value=0, max_value=2**62)
    checksum = StrictCharField(max_length=160, required=False, help_text="sha256:, sha512: or md5: and the digest; kept as given")


class MountWishSerializer(serializers.Serializer):
    """For the OpenAPI document; the service checks what is given, so that every door has the same words."""

    storage = serializers.CharField(required=False, help_text="Slug of a storage, or")
    ref = serializers.CharField(required=False, help_text="a dataset or model such as dataset:imagenet@3 or model:resnet@latest")
    mount_path = serializers.CharField(required=False, help_text="Where it appears; its own place when absent")
    read_only = serializers.BooleanField(required=False)


@extend_schema_field(MountWishSerializer(many=True))
class MountsField(serializers.JSONField):
    """What a request wants mounted, passed on as it is."""


class MountSerializer(serializers.Serializer):
    storage = serializers.SerializerMethodField(help_text="null: a home volume")
    ref = serializers.SerializerMethodField(help_text="The dataset or model, its version pinned; null: a storage")
    mount_path = serializers.SerializerMethodField(help_text="null: given as variables only")
    read_only = serializers.BooleanField()

    @extend_schema_field({"type": ["string", "null"]})
    def get_storage(self, entry: Any) -> str | None:
        return entry["storage"] or None

    @extend_schema_field({"type": ["string", "null"]})
    def get_ref(self, entry: Any) -> str | None:
        return entry["ref"] or None

    @extend_schema_field({"type": ["string", "null"]})
    def get_mount_path(self, entry: Any) -> str | None:
        return entry["mount_path"] or None
