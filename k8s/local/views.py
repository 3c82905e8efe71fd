"""Objects as a client wants to see them: in the version it asked for, as a Table, or only their metadata."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import tables
from .documents import Doc, encode, meta, name_of
from .kinds import Resource
from .store import Entry


@dataclass(frozen=True)
class Wanted:
    """What the Accept header asks for."""

    form: str = "object"  # object | table | metadata
    include: str = "Metadata"  # of a table's rows: None | Metadata | Object


def wanted(accept: str, include: str) -> Wanted | None:
    """None when nothing that is offered is accepted (only protobuf, for example)."""
    for part in accept.split(",") if accept.strip() else ["application/json"]:
        media, *parameters = [each.strip() for each in part.split(";")]
        options = dict(each.split("=", 1) for each in parameters if "=" in each)
        if media not in {"application/json", "*/*", "application/*", "application/yaml"}:
            continue
        match options.get("as"):
            case "Table":
                return Wanted("table", include or "Metadata")
            case "PartialObjectMetadata" | "PartialObjectMetadataList":
                return Wanted("metadata")
            case None:
                return Wanted()
    return None


def convert(resource: Resource, doc: Doc) -> Doc:
    """A stored document in the version of `resource`."""
    if resource.storage == "events":
        return _as_events_event(doc)
    if doc.get("apiVersion") != resource.api_version:
        return {**doc, "apiVersion": resource.api_version}
    return doc


def unconvert(resource: Resource, doc: Doc) -> Doc:
    """A document that a client sent, in the version in which its kind is stored."""
    return _as_core_event(doc) if resource.storage == "events" else doc


def _as_events_event(doc: Doc) -> Doc:
    found = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": doc["metadata"],
        "eventTime": doc.get("eventTime"),
        "series": doc.get("series"),
        "reportingController": doc.get("reportingComponent") or (doc.get("source") or {}).get("component", ""),
        "reportingInstance": doc.get("reportingInstance"),
        "action": doc.get("action"),
        "reason": doc.get("reason"),
        "regarding": doc.get("involvedObject"),
        "related": doc.get("related"),
        "note": doc.get("message"),
        "type": doc.get("type"),
        "deprecatedSource": doc.get("source"),
        "deprecatedFirstTimestamp": doc.get("firstTimestamp"),
        "deprecatedLastTimestamp": doc.get("lastTimestamp"),
        "deprecatedCount": doc.get("count"),
    }
    return {key: value for key, value in found.items() if value is not None or key == "eventTime"}


def _as_core_event(doc: Doc) -> Doc:
    found = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": doc.get("metadata"),
        "eventTime": doc.get("eventTime"),
        "series": doc.get("series"),
        "reportingComponent": doc.get("reportingController"),
        "reportingInstance": doc.get("reportingInstance"),
        "action": doc.get("action"),
        "reason": doc.get("reason"),
        "involvedObject": doc.get("regarding") or {},
        "related": doc.get("related"),
        "message": doc.get("note"),
        "type": doc.get("type"),
        "source": doc.get("deprecatedSource"),
        "firstTimestamp": doc.get("deprecatedFirstTimestamp"),
        "lastTimestamp": doc.get("deprecatedLastTimestamp"),
        "count": doc.get("deprecatedCount"),
    }
    return {key: value for key, value in found.items() if value is not None}


def one(resource: Resource, entry: Entry, view: Wanted) -> bytes:
    """One object, encoded; the stored encoding itself where nothing needs changing."""
    if view.form == "table":
        return encode(tables.table(resource, [convert(resource, entry.doc)], view.include, str(entry.revision)))
    if view.form == "metadata":
        return encode(_partial(entry.doc, with_kind=True))
    doc = convert(resource, entry.doc)
    return entry.body if doc is entry.doc else encode(doc)


def _partial(doc: Doc, *, with_kind: bool) -> Doc:
    kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"} if with_kind else {}
    return {**kind, "metadata": doc["metadata"]}


def many(resource: Resource, entries: list[Entry], view: Wanted, metadata: Doc) -> bytes:
    """A list. Items of built-in kinds bear neither kind nor apiVersion, as from a real API server."""
    if view.form == "table":
        found = tables.table(resource, [convert(resource, each.doc) for each in entries], view.include, metadata["resourceVersion"])
        found["metadata"] = metadata
        return encode(found)
    if view.form == "metadata":
        head: Doc = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        items = [encode(_partial(each.doc, with_kind=True)) for each in entries]
    else:
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        items = [_item(resource, each) for each in entries]
    return encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"


def _item(resource: Resource, entry: Entry) -> bytes:
    doc = convert(resource, entry.doc)
    body = entry.body if doc is entry.doc else encode(doc)
    prefix = f'{{"apiVersion":"{resource.api_version}","kind":"{resource.kind}",'.encode()
    return b"{" + body[len(prefix) :] if resource.custom is None and body.startswith(prefix) else body


def deleted(resource: Resource, doc: Doc) -> dict[str, Any]:
    details = {"name": name_of(doc), "group": resource.group, "kind": resource.plural, "uid": meta(doc).get("uid")}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": {key: value for key, value in details.items() if value}}
