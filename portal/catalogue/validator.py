"""Checks catalogue documents. Every fault is told with its field, all at once; nothing here touches files or the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import jsonschema

from . import choices, devices, schemas, storages, templates
from .faults import Fault, Known, Path, unfit

__all__ = ["Fault", "Path", "faults_of"]


_SCHEMAS: dict[str, dict[str, Any]] = {
    "accelerator": schemas.ACCELERATOR,
    "network": schemas.NETWORK,
    "flavor": schemas.FLAVOR,
    "template": schemas.TEMPLATE,
    "priority": schemas.PRIORITY,
    "storage": storages.STORAGE,
}


def faults_of(kind: str, document: Any, known: Known | None = None) -> list[Fault]:
    """Every fault of one document. `kind`: one of _SCHEMAS; `known`: the slugs of other kinds that it may name, see `loader.known_slugs`.
    A kind that is missing there is not checked."""
    if found := list(unfit(document)):
        return found  # not JSON: neither a schema nor the database could take it
    known = known or {}
    schema = _SCHEMAS[kind]
    found = [Fault(tuple(error.absolute_path), _worded(error)) for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]
    if found:
        return found  # the other checks rely on the form
    checks: dict[str, Callable[[], Iterator[Fault]]] = {
        "accelerator": lambda: devices.accelerator(document, known),
        "network": lambda: devices.network(document),
        "flavor": lambda: devices.flavor(document, known),
        "template": lambda: chain(templates.faults(document), choices.faults(document, known)),
        "priority": lambda: _priority(document),
        "storage": lambda: storages.faults(document),
    }
    return list(checks[kind]())


def _worded(error: jsonschema.ValidationError) -> str:
    if error.validator == "pattern":
        return f"{error.instance!r} has not the form {error.validator_value}"
    return error.message[:300]


def _priority(document: Mapping[str, Any]) -> Iterator[Fault]:
    if len(document["slug"]) > 40:
        yield Fault(("slug",), "longer than 40 characters")
