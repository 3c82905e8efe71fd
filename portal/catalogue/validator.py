"""Checks catalogue documents. Every fault is told with its field, all at once; nothing here touches files or the database."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain
from typing import Any

import jsonschema

from portal.domain.shape import parse_bytes, parse_cpu

from . import choices, schemas, templates
from .faults import Fault, Known, Path, quantities, unfit

__all__ = ["Fault", "Path", "faults_of"]


def faults_of(kind: str, document: Any, known: Known | None = None) -> list[Fault]:
    """Every fault of one document. `kind`: "accelerator", "flavor", "template" or "priority"; `known`: the slugs of other kinds that it may
    name, see `loader.known_slugs`. A kind that is missing there is not checked."""
    if found := list(unfit(document)):
        return found  # not JSON: neither a schema nor the database could take it
    known = known or {}
    schema = {"accelerator": schemas.ACCELERATOR, "flavor": schemas.FLAVOR, "template": schemas.TEMPLATE, "priority": schemas.PRIORITY}[kind]
    found = [Fault(tuple(error.absolute_path), _worded(error)) for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]
    if found:
        return found  # the other checks rely on the form
    checks: dict[str, Callable[[], Iterator[Fault]]] = {
        "accelerator": lambda: quantities(document, memory=parse_bytes),
        "flavor": lambda: _flavor(document, known.get("accelerator", ())),
        "template": lambda: chain(templates.faults(document), choices.faults(document, known)),
        "priority": lambda: _priority(document),
    }
    return list(checks[kind]())


def _worded(error: jsonschema.ValidationError) -> str:
    if error.validator == "pattern":
        return f"{error.instance!r} has not the form {error.validator_value}"
    return error.message[:300]


def _flavor(document: Mapping[str, Any], accelerators: Collection[str]) -> Iterator[Fault]:
    yield from quantities(document, cpu=parse_cpu, memory=parse_bytes, shm=parse_bytes)
    if ("accelerator" in document) != ("accelerator_count" in document):
        yield Fault(("accelerator",) if "accelerator" in document else ("accelerator_count",), "accelerator and accelerator_count go together")
    if "accelerator" in document and document["accelerator"] not in accelerators:
        yield Fault(("accelerator",), f"there is no accelerator {document['accelerator']!r}; there are {', '.join(sorted(accelerators)) or 'none'}")


def _priority(document: Mapping[str, Any]) -> Iterator[Fault]:
    if len(document["slug"]) > 40:
        yield Fault(("slug",), "longer than 40 characters")
