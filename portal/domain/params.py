"""Parameters of templates: a JSON Schema with texts in several languages, what may be in it, and what a request's values are held to. Pure.

A property is a string (also `format: multiline` or `image`), an integer, a number, a boolean, an `enum`, or an array of strings. Beside JSON Schema's
own words, `title` and `description` may be `{en: ..., zh-hans: ...}`, and `titles` names the values of an enum.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonschema

from . import images
from .errors import ValidationError

EMPTY: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
ORDER = "x-order"  # names in the order of the document, which PostgreSQL's jsonb forgets
Say = Callable[[Any], str]  # {"en": ..., "zh-hans": ...} or a string -> the text to show


def english(texts: Any) -> str:
    """The text in English of one that may be in several languages."""
    return str(texts.get("en", "")) if isinstance(texts, Mapping) else str(texts)


def plain(schema: Mapping[str, Any], say: Say = english) -> dict[str, Any]:
    """The schema with one language in it, as JSON Schema wants it."""

    def said(definition: Any) -> Any:
        if not isinstance(definition, Mapping):
            return definition
        one = {key: say(value) if key in ("title", "description") and isinstance(value, Mapping) else value for key, value in definition.items()}
        if isinstance(one.get("titles"), Mapping):
            one["titles"] = {value: say(text) for value, text in definition["titles"].items()}
        return one

    whole = said(schema)
    properties = in_order(schema)
    return {**whole, "properties": {name: said(definition) for name, definition in properties.items()}} if properties else whole


def in_order(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The properties in the order in which they were written."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    order = schema.get(ORDER)
    first = [name for name in order if name in properties] if isinstance(order, Sequence) else []
    return {name: properties[name] for name in [*first, *(name for name in properties if name not in first)]}


def check_values(schema: Mapping[str, Any], given: object, image_prefixes: Sequence[str] = ()) -> dict[str, Any]:
    """Values with the schema's defaults filled in. Raises ValidationError naming each wrong one as `params.<name>`.

    `image_prefixes`: what images may begin with; empty: any.
    """
    if not isinstance(given, Mapping):
        raise ValidationError.field("params", "Must be an object of parameter names and values.")
    values = dict(given)
    text = json.dumps(values, ensure_ascii=True)
    if "\\u0000" in text or re.search(r"\\ud[89a-f]", text):
        raise ValidationError.field("params", "Must not hold NUL characters or broken Unicode.")
    errors: dict[str, list[str]] = {}
    for error in jsonschema.Draft202012Validator(schema).iter_errors(values):
        field = ".".join(["params", *(str(part) for part in error.absolute_path)])
        errors.setdefault(field, []).append(error.message[:300] + ".")
    properties = schema.get("properties", {})
    for name, definition in properties.items():
        if name not in values and "default" in definition:
            values[name] = definition["default"]
        if definition.get("format") == "image" and isinstance(values.get(name), str) and (wrong := images.refusal(values[name], image_prefixes)):
            errors.setdefault(f"params.{name}", []).append(wrong)
    if errors:
        raise ValidationError("; ".join(f"{field}: {messages[0]}" for field, messages in errors.items()), errors=errors)
    return values
