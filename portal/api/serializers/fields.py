"""Fields and the strict input serializer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.utils.translation import get_language
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from portal.domain.durations import format_duration, parse_duration


class StrictSerializer(serializers.Serializer):
    """Refuses fields it does not know, since a misspelt field would otherwise be silently ignored."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = [str(name) for name in data if name not in self.fields]
            if unknown:
                known = ", ".join(name for name, field in self.fields.items() if not field.read_only)
                raise serializers.ValidationError({name[:100]: [f"There is no such field; there are {known}."] for name in unknown[:20]})
        return super().to_internal_value(data)


class StrictCharField(serializers.CharField):
    """Text only: DRF's own turns numbers into text, which hides mistakes."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be text.")
        return super().to_internal_value(data)


class StrictIntegerField(serializers.IntegerField):
    """Whole numbers only, not "3", 3.0 or true."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError("Must be a whole number.")
        return super().to_internal_value(data)


@extend_schema_field({"type": "string", "pattern": r"^(?=\d)(\d{1,6}d)?(\d{1,6}h)?(\d{1,6}m)?(\d{1,9}s)?$", "examples": ["8h", "90m", "1d12h"]})
class DurationTextField(serializers.Field):
    """A span of time as text, such as 8h. Input gives a timedelta; output takes a timedelta or seconds."""

    def to_internal_value(self, data: Any) -> timedelta:
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be text such as 30m, 8h or 2d.")
        try:
            return parse_duration(data)
        except ValueError as error:
            raise serializers.ValidationError(f"{error}.") from None

    def to_representation(self, value: Any) -> str:
        return format_duration(value if isinstance(value, timedelta) else timedelta(seconds=value))


def said(texts: Any) -> str:
    """The text in the language of the request from {"en": ..., "zh-hans": ...}, or a plain one as it is."""
    if not isinstance(texts, Mapping):
        return str(texts)
    language = get_language() or "en"
    return str(texts.get(language) or texts.get(language.split("-")[0]) or texts.get("en") or "")


@extend_schema_field({"type": "string"})
class LocalizedField(serializers.Field):
    """Text in the language of the request (Accept-Language) from {"en": ..., "zh-hans": ...}."""

    def to_representation(self, value: Any) -> str:
        return said(value) if isinstance(value, Mapping) else ""
