"""Label and field selectors: parsing what stands in a query, and matching."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .documents import Doc, meta
from .errors import bad_request
from .kinds import Resource

Predicate = Callable[[Doc], bool]


def matches_selector(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """A LabelSelector of a document; None selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_requirement(each["key"], each.get("operator", ""), each.get("values") or (), labels) for each in selector.get("matchExpressions") or ())


def _requirement(key: str, operator: str, values: Any, labels: Mapping[str, str]) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt" | "Lt":
            try:
                number = int(labels[key])
                return number > int(values[0]) if operator == "Gt" else number < int(values[0])
            except (KeyError, ValueError, IndexError):
                return False
    return False


# --- labelSelector= --------------------------------------------------------------------------------------------------

_PARTS = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<nokey>[^\s,=!()<>]+)|(?P<key>[^\s,=!()<>]+)\s*(?:(?P<eq>==|=|!=)\s*(?P<value>[^\s,()=!]*)"
    r"|(?P<cmp>[<>])\s*(?P<bound>-?\d+)|\s(?P<in>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)
_KEY_OK = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_VALUE_OK = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")


def label_predicate(text: str) -> Predicate | None:
    """Parses `a=b,c!=d,e in (f,g),!h`. 400 when it is not a selector; None when it is empty."""
    if not text.strip():
        return None
    found: list[tuple[str, str, tuple[str, ...]]] = []
    position = 0
    while position < len(text):
        part = _PARTS.match(text, position)
        if part is None or part.end() == position:
            raise bad_request(f"unable to parse requirement: found '{text[position:]}', expected: identifier")
        position = part.end()
        if part["absent"]:
            found.append((part["nokey"], "DoesNotExist", ()))
        elif part["eq"]:
            found.append((part["key"], "NotIn" if part["eq"] == "!=" else "In", (part["value"],)))
        elif part["in"]:
            found.append((part["key"], "In" if part["in"] == "in" else "NotIn", tuple(each.strip() for each in part["values"].split(","))))
        elif part["cmp"]:
            found.append((part["key"], "Gt" if part["cmp"] == ">" else "Lt", (part["bound"],)))
        else:
            found.append((part["key"], "Exists", ()))
    for key, _, values in found:
        if not _KEY_OK.match(key):
            raise bad_request(
                f"unable to parse requirement: <nil>: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.'"
            )
        for value in values:
            if not _VALUE_OK.match(value) or len(value) > 63:
                raise bad_request(f'unable to parse requirement: values[0][{key}]: Invalid value: "{value}": a valid label must be an empty string or consist '
                                  "of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character")  # fmt: skip
    return lambda doc: all(_requirement(key, operator, values, meta(doc).get("labels") or {}) for key, operator, values in found)


# --- fieldSelector= --------------------------------------------------------------------------------------------------

_ALWAYS = ("metadata.name", "metadata.namespace")
_FIELDS: dict[str, tuple[str, ...]] = {
    "pods": ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork", "status.phase", "status.podIP",
             "status.podIPs", "status.nominatedNodeName"),
    "events": ("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion",
               "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"),
    "nodes": ("spec.unschedulable",),
    "namespaces": ("status.phase",),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "jobs.batch": ("status.successful",),
    "replicasets.apps": ("status.replicas",),
}  # fmt: skip
# The same events under another group have other names for what they are about.
_RENAMED = {"regarding": "involvedObject", "reportingController": "reportingComponent"}


def field_predicate(resource: Resource, text: str) -> Predicate | None:
    """Parses `metadata.name=x,status.phase!=Running`. 400 for a field that this kind does not offer."""
    if not text.strip():
        return None
    tests: list[tuple[str, str, bool]] = []
    selectable = [each["jsonPath"].lstrip(".") for each in (resource.custom or {}).get("selectableFields") or ()]
    for part in text.split(","):
        if not part.strip():
            continue
        match = re.match(r"^\s*([^=!\s]+)\s*(==|=|!=)\s*(.*?)\s*$", part)
        if match is None:
            raise bad_request(f"invalid selector: \"{text}\"; can't understand '{part}'")
        field, operator, value = match.groups()
        head, dot, rest = field.partition(".")
        field_here = f"{_RENAMED[head]}{dot}{rest}" if resource.storage and head in _RENAMED else field
        if field_here not in (*_ALWAYS, *_FIELDS.get(resource.store_key, ()), *selectable):
            raise bad_request(f"field label not supported: {field}")
        tests.append((field_here, value.replace("\\,", ",").replace("\\=", "="), operator != "!="))
    return lambda doc: all((_field(doc, field) == value) is wanted for field, value, wanted in tests)


def exact_name(text: str) -> str | None:
    """The one name that a field selector asks for, so that a list need not look at every object."""
    match = re.match(r"^\s*metadata\.name\s*==?\s*([^,=!\s]+)\s*$", text)
    return match[1] if match else None


def _field(doc: Any, path: str) -> str:
    value = doc
    if path == "source":
        value = (doc.get("source") or {}).get("component") or doc.get("reportingComponent")
        return str(value or "")
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, bool) or path in {"spec.unschedulable", "spec.hostNetwork"}:
        return "true" if value else "false"
    return "" if value is None else str(value)
