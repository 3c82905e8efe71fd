"""What a template lets people choose - parameters, flavors, priority - and which of its versions it replaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import jsonschema

from portal.domain import images
from portal.domain.params import plain

from . import schemas
from .faults import Fault, Known, Path

_TYPES = ("string", "integer", "number", "boolean", "array")
_FORMATS = ("multiline", "image")
_LANGUAGES = ("en", "zh-hans")


def faults(document: Mapping[str, Any], known: Known) -> Iterator[Fault]:
    """All but the parameters', which other checks rely on. `known`: kind -> slugs; a kind that is missing is not checked."""
    yield from _flavors(document, known)
    yield from _priority(document, known)
    yield from _versions(document)


def params(schema: Mapping[str, Any]) -> Iterator[Fault]:
    """Faults of the JSON Schema of a template's parameters: a form has to be made of it."""
    if wrong := list(_texts(schema)):
        yield from wrong
        return
    try:
        jsonschema.Draft202012Validator.check_schema(plain(schema))
    except jsonschema.SchemaError as error:
        yield Fault(("params", *error.absolute_path), f"not a JSON Schema: {error.message[:200]}")
        return
    if schema.get("type") != "object" or schema.get("additionalProperties") is not False:
        yield Fault(("params",), "must say `type: object` and `additionalProperties: false`, so that unknown parameters are refused")
        return
    properties = schema.get("properties", {})
    for name, definition in properties.items():
        at: Path = ("params", "properties", name)
        if not isinstance(definition, Mapping):
            yield Fault(at, "must be an object that says what the parameter is")
            continue
        yield from _property(definition, at)
        if "default" in definition:
            for error in jsonschema.Draft202012Validator(definition).iter_errors(definition["default"]):
                yield Fault((*at, "default"), error.message[:200])
    for index, name in enumerate(schema.get("required", ())):
        if name not in properties:
            yield Fault(("params", "required", index), f"there is no parameter {name!r} in params.properties")


def _texts(schema: Mapping[str, Any]) -> Iterator[Fault]:
    """Titles and descriptions in languages that there are not, or without English."""
    properties = schema.get("properties")
    for name, definition in properties.items() if isinstance(properties, Mapping) else ():
        if not isinstance(definition, Mapping):
            continue
        named = definition.get("titles")
        texts: dict[Path, Any] = {(key,): definition[key] for key in ("title", "description") if key in definition}
        texts |= {("titles", str(value)): text for value, text in named.items()} if isinstance(named, Mapping) else {}
        if "titles" in definition and not (isinstance(named, Mapping) and isinstance(definition.get("enum"), list)):
            yield Fault(("params", "properties", name, "titles"), "must be an object of values and their titles, beside an enum")
        for path, text in texts.items():
            at: Path = ("params", "properties", name, *path)
            if isinstance(text, Mapping):
                if "en" not in text or not set(text) <= set(_LANGUAGES) or not all(isinstance(each, str) for each in text.values()):
                    yield Fault(at, "must be a text, or {en: text, zh-hans: text}")
            elif not isinstance(text, str):
                yield Fault(at, "must be a text, or {en: text, zh-hans: text}")


def _property(definition: Mapping[str, Any], at: Path) -> Iterator[Fault]:
    """What no form can ask for, or must not."""
    kind, form = definition.get("type"), definition.get("format")
    if definition.get("writeOnly") or form == "password":
        yield Fault(at, "parameters are shown to everyone who sees the environment; use `secrets` for what nobody should see")
    elif "enum" in definition:
        for value in sorted(set(definition.get("titles", {})) - {str(value) for value in definition["enum"]}):
            yield Fault((*at, "titles", value), f"{value} is not in the enum")
        if len({str(value) for value in definition["enum"]}) < len(definition["enum"]):
            yield Fault((*at, "enum"), "two of the values read alike")
    elif kind not in _TYPES:
        yield Fault((*at, "type") if "type" in definition else at, f"must be one of {', '.join(_TYPES)}, or have an enum: a form is made of it")
    elif kind == "array":
        items = definition.get("items")
        if not isinstance(items, Mapping) or items.get("type") != "string":
            yield Fault((*at, "items") if "items" in definition else at, "an array must have `items: {type: string}`: a form asks for one per line")
    elif form is not None and (kind != "string" or form not in _FORMATS):
        yield Fault((*at, "format"), f"must be one of {', '.join(_FORMATS)}, of a string")
    elif form == "image" and isinstance(definition.get("default"), str) and (wrong := images.refusal(definition["default"], ())):
        yield Fault((*at, "default"), wrong)


def _flavors(document: Mapping[str, Any], known: Known) -> Iterator[Fault]:
    """Families that there are not, and globs that match no flavor. `known["flavor"]`: slugs."""
    rule = document.get("flavors", {})
    families = ("cpu", *schemas.ACCELERATOR["properties"]["family"]["enum"])
    for index, family in enumerate(rule.get("families", ())):
        if family not in families:
            yield Fault(("flavors", "families", index), f"there is no family {family!r}; there are {', '.join(families)}")
    if "flavor" not in known:
        return
    for key in ("only", "not"):
        for index, glob in enumerate(rule.get(key, ())):
            if not any(fnmatchcase(slug, glob) for slug in known["flavor"]):
                yield Fault(("flavors", key, index), f"{glob!r} matches no flavor; there are {', '.join(sorted(known['flavor'])) or 'none'}")


def _priority(document: Mapping[str, Any], known: Known) -> Iterator[Fault]:
    """A default priority that there is not. `known["priority"]`: slugs."""
    slug = document.get("scheduling", {}).get("priority")
    if slug is not None and "priority" in known and slug not in known["priority"]:
        yield Fault(("scheduling", "priority"), f"there is no priority {slug!r}; there are {', '.join(sorted(known['priority'])) or 'none'}")


def _versions(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Only what is older can be replaced, so no chain of replacements comes back to where it began."""
    for index, number in enumerate(document.get("replaces", ())):
        if number >= document["version"]:
            yield Fault(("replaces", index), f"version {number} is not older than this one, {document['version']}; only older ones can be replaced")
