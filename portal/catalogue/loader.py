"""Reads the catalogue's YAML files and puts them into the database, all or nothing.

A folder holds `accelerators/`, `flavors/`, `templates/` and `priorities/`, one document per file. The files win over what the database has for the
same slug, but for `enabled` and the teams of a priority, which belong to the admin. Rows whose file is gone are left alone: environments may still name them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import yaml
from django.db import transaction

from portal.domain import services
from portal.domain.models import Accelerator, Flavor, Priority, Template
from portal.domain.shape import parse_bytes, parse_cpu

from .validator import Fault, Path, faults_of

BUILTIN = FilePath(__file__).parent / "builtin"
FOLDERS = {"accelerator": "accelerators", "flavor": "flavors", "template": "templates", "priority": "priorities"}


class CatalogueError(Exception):
    """The catalogue has faults; `faults` holds one line each: file, line, field, message."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Document:
    """One YAML document and where each of its fields stands."""

    kind: str
    file: FilePath
    data: Any
    lines: dict[Path, int]

    def located(self, fault: Fault) -> str:
        """The fault as `file:line: field: message`; a missing field is told at the line of what should hold it."""
        path = fault.path
        while path not in self.lines and path:
            path = path[:-1]
        return f"{self.file}:{self.lines.get(path, 1)}: {fault.field}: {fault.message}"


class _Reader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(kind: str, file: FilePath) -> Document:
    """Parse one file. Raises CatalogueError with the line of what is not YAML."""
    try:
        reader = _Reader(file.read_text(encoding="utf-8"))
        try:
            node = reader.get_single_node()
            data = reader.construct_document(node) if node is not None else None
        finally:
            reader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise CatalogueError([f"{file}:{mark.line + 1 if mark else 1}: not readable: {getattr(error, 'problem', None) or error}"]) from error
    lines: dict[Path, int] = {}
    if node is not None:
        _mark(node, (), lines)
    return Document(kind, file, data, lines)


def _mark(node: yaml.Node, path: Path, lines: dict[Path, int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*path, key.value)] = key.start_mark.line + 1
            _mark(value, (*path, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _mark(value, (*path, index), lines)


def read_all(folders: Iterable[FilePath]) -> list[Document]:
    """Every document of the folders, checked. Raises CatalogueError with all faults of all files."""
    documents, faults = [], []
    for folder in folders:
        if not folder.is_dir():
            raise CatalogueError([f"{folder}: there is no such folder"])
        for kind, name in FOLDERS.items():
            for file in sorted((folder / name).glob("*.y*ml")):
                try:
                    documents.append(read(kind, file))
                except CatalogueError as error:
                    faults += error.faults
    known = {d.data["slug"] for d in documents if d.kind == "accelerator" and isinstance(d.data, dict) and isinstance(d.data.get("slug"), str)}
    known |= set(Accelerator.objects.values_list("slug", flat=True))
    first: dict[tuple[str, str], Document] = {}
    for document in documents:
        found = faults_of(document.kind, document.data, known)
        faults += [document.located(fault) for fault in found]
        if not found:
            key = (document.kind, document.data["slug"])
            if key in first:
                faults.append(document.located(Fault(("slug",), f"{document.data['slug']} is already in {first[key].file}")))
            first.setdefault(key, document)
    if faults:
        raise CatalogueError(faults)
    return documents


def load(folders: Iterable[FilePath] = (BUILTIN,)) -> dict[str, int]:
    """Load the folders; how many documents of each kind. Raises CatalogueError, and then nothing was changed."""
    documents = read_all(folders)
    counts = dict.fromkeys(FOLDERS, 0)
    with transaction.atomic():
        for kind, store in (("accelerator", _accelerator), ("flavor", _flavor), ("template", _template), ("priority", _priority)):
            for document in documents:
                if document.kind == kind:
                    store(document.data)
                    counts[kind] += 1
        services.quota_rows_ensure()
    return counts


def _accelerator(data: dict[str, Any]) -> None:
    fields = ("title", "family", "vendor", "model", "resource_key", "node_selector", "tolerations", "runtime_class", "scheduler_name", "annotations", "env")
    empty: dict[str, Any] = {"tolerations": [], "node_selector": {}, "annotations": {}, "env": {}}
    values = {field: data.get(field, empty.get(field, "")) for field in fields}
    values |= {"memory_bytes": parse_bytes(str(data["memory"])) if "memory" in data else None, "quota_weight": float(data.get("quota_weight", 1))}
    Accelerator.objects.update_or_create(slug=data["slug"], defaults=values)


def _flavor(data: dict[str, Any]) -> None:
    values = {
        "title": data["title"],
        "cpu_millis": parse_cpu(str(data["cpu"])),
        "memory_bytes": parse_bytes(str(data["memory"])),
        "shm_bytes": parse_bytes(str(data["shm"])) if "shm" in data else 0,
        "accelerator": Accelerator.objects.get(slug=data["accelerator"]) if "accelerator" in data else None,
        "accelerator_count": data.get("accelerator_count", 0),
        "position": data.get("position", 100),
    }
    Flavor.objects.update_or_create(slug=data["slug"], defaults=values)


def _template(data: dict[str, Any]) -> None:
    values = {field: data[field] for field in ("version", "kind", "title")}
    values |= {"description": data.get("description", {}), "icon": data.get("icon", ""), "position": data.get("position", 100), "spec": data}
    Template.objects.update_or_create(slug=data["slug"], defaults=values)


def _priority(data: dict[str, Any]) -> None:
    # Which teams may use one that is not for everyone is the admin's to say.
    values = {"title": data["title"], "value": data["value"]}
    values |= {"everyone": data.get("everyone", True), "leads_only": data.get("leads_only", False), "preempts": data.get("preempts", False)}
    Priority.objects.update_or_create(slug=data["slug"], defaults=values)
