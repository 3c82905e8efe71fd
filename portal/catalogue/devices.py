"""What a schema cannot say of accelerators, networks and flavors: references, names that Kubernetes would refuse, fields that need each other."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from portal.domain.shape import parse_bytes, parse_cpu

from .faults import Fault, Known, quantities

_PREFIX = r"(?:[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*/)?"
_LABEL_KEY = re.compile(rf"{_PREFIX}[A-Za-z0-9](?:[-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?", re.ASCII)
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def accelerator(document: Mapping[str, Any], known: Known) -> Iterator[Fault]:
    yield from quantities(document, memory=parse_bytes)
    if ("resource_key" in document) == ("dra" in document):
        yield Fault(
            ("resource_key",) if "dra" in document else (),
            "an accelerator has either a resource_key (a device plugin counts it) or dra (the cluster allocates it), not both or neither",
        )
    if "dra" in document and document.get("sharing", "dra") not in ("dra", "mig", "whole"):
        yield Fault(("sharing",), f"{document['sharing']} is a device plugin's; what dra allocates is dra, mig or whole")
    if document.get("sharing") == "dra" and "dra" not in document:
        yield Fault(("sharing",), "dra needs the field dra, which names the device class")
    for key in document.get("resources", {}):
        if key == document.get("resource_key"):
            yield Fault(("resources", key), "is counted by resource_key already")
    if "slice_of" in document:
        yield from _reference("slice_of", document["slice_of"], known.get("accelerator"), "accelerator")
        if document["slice_of"] == document["slug"]:
            yield Fault(("slice_of",), "is itself")
    yield from _labels("labels", document)
    yield from _labels("node_selector", document)
    yield from _keys("annotations", document)
    yield from _variables(document)


def network(document: Mapping[str, Any]) -> Iterator[Fault]:
    if document["kind"] == "rdma" and "resource_key" not in document:
        yield Fault((), "an rdma network needs a resource_key: without it no device comes into the pod")
    if document["kind"] == "tcp" and document.get("capabilities"):
        yield Fault(("capabilities",), "tcp needs none")
    yield from _keys("annotations", document)
    yield from _variables(document)


def flavor(document: Mapping[str, Any], known: Known) -> Iterator[Fault]:
    yield from quantities(document, cpu=parse_cpu, memory=parse_bytes, shm=parse_bytes, ephemeral_storage=parse_bytes)
    if ("accelerator" in document) != ("accelerator_count" in document):
        yield Fault(("accelerator",) if "accelerator" in document else ("accelerator_count",), "accelerator and accelerator_count go together")
    if "accelerator" in document:
        yield from _reference("accelerator", document["accelerator"], known.get("accelerator", ()), "accelerator")
    if "network_count" in document and "network" not in document:
        yield Fault(("network_count",), "says nothing without a network")
    if "network" in document:
        yield from _reference("network", document["network"], known.get("network", ()), "network")


def _reference(field: str, slug: str, slugs: Collection[str] | None, what: str) -> Iterator[Fault]:
    if slugs is not None and slug not in slugs:
        yield Fault((field,), f"there is no {what} {slug!r}; there are {', '.join(sorted(slugs)) or 'none'}")


def _labels(field: str, document: Mapping[str, Any]) -> Iterator[Fault]:
    yield from _keys(field, document)
    for key, value in document.get(field, {}).items():
        if not _LABEL_VALUE.fullmatch(value):
            yield Fault((field, key), f"{value!r} is no value of a label: at most 63 letters, digits, `-`, `_` and `.`")


def _keys(field: str, document: Mapping[str, Any]) -> Iterator[Fault]:
    for key in document.get(field, {}):
        if not _LABEL_KEY.fullmatch(key) or len(key.rpartition("/")[0]) > 253:
            yield Fault((field, key), f"{key!r} is no key that Kubernetes takes, such as nvidia.com/gpu.product")


def _variables(document: Mapping[str, Any]) -> Iterator[Fault]:
    for name in document.get("env", {}):
        if not _VARIABLE.fullmatch(name):
            yield Fault(("env", name), f"{name!r} is no name of a variable: letters, digits and `_`, not beginning with a digit")
