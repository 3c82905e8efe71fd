"""Reads the catalogue's YAML files and puts them into the database, all or nothing.

A folder holds `accelerators/`, `networks/`, `flavors/`, `templates/`, `priorities/` and `storages/`, one document per file. The files win over
what the database has for the same slug, but for `enabled` and the teams of a priority, which belong to the admin, and for storages that an admin has
changed. Rows whose file is gone are left alone: environments may still name them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import yaml
from django.db import DatabaseError, transaction

from portal.domain import services
from portal.domain.errors import DomainError
from portal.domain.models import Accelerator, Flavor, Network, Priority, Storage, Template

from . import rows, storages
from .faults import Fault, Path
from .validator import faults_of

BUILTIN = FilePath(__file__).parent / "builtin"
FOLDERS = {"accelerator": "accelerators", "network": "networks", "flavor": "flavors", "template": "templates", "priority": "priorities", "storage": "storages"}


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
    text: str = ""

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
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError([f"{file}:1: not readable: {error}"]) from error
    return parse(kind, text, file)


def parse(kind: str, text: str, file: FilePath) -> Document:
    """Parse what is in `file`, or is typed in its place. Raises CatalogueError with the line of what is not YAML."""
    try:
        reader = _Reader(text)
        try:
            node = reader.get_single_node()
            data = reader.construct_document(node) if node is not None else None
        finally:
            reader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise CatalogueError([f"{file}:{mark.line + 1 if mark else 1}: not readable: {getattr(error, 'problem', None) or error}"]) from error
    lines: dict[Path, int] = {}
    if node is not None:
        _mark(node, (), lines)
    return Document(kind, file, data, lines, text)


def _mark(node: yaml.Node, path: Path, lines: dict[Path, int], within: tuple[int, ...] = ()) -> None:
    if id(node) in within:
        return  # an anchor that holds itself
    within = (*within, id(node))
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[(*path, key.value)] = key.start_mark.line + 1
            _mark(value, (*path, key.value), lines, within)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _mark(value, (*path, index), lines, within)


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
    known = known_slugs(documents)
    first: dict[tuple[str, str], Document] = {}
    for document in documents:
        found = faults_of(document.kind, document.data, known) or beside(document.kind, document.data)
        faults += [document.located(fault) for fault in found]
        if not found:
            key = (document.kind, document.data["slug"])
            if key in first:
                faults.append(document.located(Fault(("slug",), f"{document.data['slug']} is already in {first[key].file}")))
            first.setdefault(key, document)
    if faults:
        raise CatalogueError(faults)
    return documents


def known_slugs(documents: Iterable[Document] = ()) -> dict[str, set[str]]:
    """Of each kind, the slugs that documents may name: those of the documents themselves and those in the database."""
    models: dict[str, Any] = {
        "accelerator": Accelerator,
        "network": Network,
        "flavor": Flavor,
        "template": Template,
        "priority": Priority,
        "storage": Storage,
    }
    known = {kind: set(model.objects.values_list("slug", flat=True)) for kind, model in models.items()}
    for document in documents:
        slug = document.data.get("slug") if isinstance(document.data, dict) else None
        if isinstance(slug, str):
            known[document.kind].add(slug)
    return known


def beside(kind: str, data: Any) -> list[Fault]:
    """Faults of a valid document beside what the database has under its slug."""
    return [Fault((field,), message) for field, message in services.template_faults(data).items()] if kind == "template" else []


def load(folders: Iterable[FilePath] = (BUILTIN,), *, check: bool = False) -> dict[str, int]:
    """Load the folders; how many documents of each kind. Raises CatalogueError, and then nothing was changed; nor is it with `check`."""
    documents = read_all(folders)
    counts = dict.fromkeys(FOLDERS, 0)
    with transaction.atomic():
        for kind, store in _STORES.items():
            for document in documents:
                if document.kind == kind:
                    try:
                        store(document)
                    except (DatabaseError, DomainError, OverflowError) as error:
                        # What no check foresaw: another one that loads at this moment, a value that a column cannot hold.
                        raise CatalogueError([document.located(Fault((), f"could not be stored: {error}"))]) from error
                    counts[kind] += 1
        if check:
            transaction.set_rollback(True)
            return counts
        services.quota_rows_ensure()
    return counts


def _accelerator(document: Document) -> None:
    Accelerator.objects.update_or_create(slug=document.data["slug"], defaults=rows.accelerator(document.data))


def _network(document: Document) -> None:
    Network.objects.update_or_create(slug=document.data["slug"], defaults=rows.network(document.data))


def _flavor(document: Document) -> None:
    data, values = document.data, rows.flavor(document.data)
    values["accelerator"] = Accelerator.objects.get(slug=data["accelerator"]) if "accelerator" in data else None
    values["network"] = Network.objects.get(slug=data["network"]) if "network" in data else None
    Flavor.objects.update_or_create(slug=data["slug"], defaults=values)


def _template(document: Document) -> None:
    services.template_store(spec=document.data, source=document.text)


def _storage(document: Document) -> None:
    storages.store(document.data)


def _priority(document: Document) -> None:
    data = document.data
    # Which teams may use one that is not for everyone is the admin's to say.
    values = {"title": data["title"], "value": data["value"]}
    values |= {"everyone": data.get("everyone", True), "leads_only": data.get("leads_only", False), "preempts": data.get("preempts", False)}
    Priority.objects.update_or_create(slug=data["slug"], defaults=values)


# In the order in which they are stored: what others name goes first.
_STORES = {"accelerator": _accelerator, "network": _network, "flavor": _flavor, "priority": _priority, "storage": _storage, "template": _template}
