"""docs/catalogue.md: every entry of the built-in catalogue, by which mechanism it works, and what has shown that it does."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .loader import BUILTIN, FOLDERS, Document, read

HEAD = """# The catalogue

Made from the catalogue's files and from what the tests say they run: `.venv/bin/python manage.py catalogue_table > docs/catalogue.md`; a test holds it to
them. "schema": every document of every template with every flavor that it takes is valid by Kubernetes 1.36's own schemas and within restricted Pod
Security but for the capabilities named (`tests/portal/catalogue/test_matrix.py`), operators' objects by their custom resources' schemas
(`tests/portal/catalogue/test_operator_documents.py`), documents of storages and of devices whole (`tests/k8s/test_volumes.py`, `tests/k8s/test_devices.py`).
"run": really run on the embedded cluster by the test named. No entry has been run on a real cluster with the hardware it is about: `pytest tests/contracts
--kubeconfig PATH` and one environment of the entry there is what that takes.
"""
TITLES = {
    "template": "Templates",
    "accelerator": "Accelerators",
    "network": "Networks",
    "flavor": "Flavors",
    "storage": "Storages",
    "priority": "Priorities",
}


def page(documents: Iterable[Document], runs: Mapping[str, Sequence[str]]) -> str:
    """The page. `runs`: "kind:slug" -> names of the tests that run it."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for document in documents:
        by_kind.setdefault(document.kind, []).append(document.data)
    parts = [HEAD]
    for kind, title in TITLES.items():
        if entries := by_kind.get(kind):
            rows = [_row(kind, entry, runs) for entry in sorted(entries, key=lambda entry: str(entry["slug"]))]
            last = "validated by" if kind in ("template", "storage") else "names from" if kind == "accelerator" else ""
            parts.append(_table(title, ["entry", "what", "mechanism", *([last] if last else [])], rows))
    return "\n".join(parts)


def documents() -> list[Document]:
    """Every file of the built-in catalogue, as it is read; whether it is sound the loader says."""
    return [read(kind, file) for kind, folder in FOLDERS.items() for file in sorted((BUILTIN / folder).glob("*.yaml"))]


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"## {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row[: len(head)])} |" for row in rows]
    return "\n".join(lines) + "\n"


def _row(kind: str, entry: Mapping[str, Any], runs: Mapping[str, Sequence[str]]) -> list[str]:
    tests = ", ".join(f"`{name}`" for name in runs.get(f"{kind}:{entry['slug']}", ()))
    shown = {"accelerator": str(entry.get("source", ""))}.get(kind, f"schema; run: {tests}" if tests else "schema")
    mechanism = _MECHANISMS.get(kind, lambda _: "")(entry)
    return [f"`{entry['slug']}`", str(entry["title"]["en"]), mechanism, shown]


def _template(entry: Mapping[str, Any]) -> str:
    if entry["kind"] == "notebook":
        parts = ["named server of the Hub"]
    else:
        parts = [f"{role['name']}: {'Job' if role.get('run') == 'once' else 'StatefulSet'}" for role in entry["roles"]]
    if any(role.get("files") for role in entry["roles"]):
        parts.append("files from a ConfigMap")
    if entry.get("secrets"):
        parts.append("generated Secret")
    either = "only as" if entry.get("needs_operator") else "or"
    parts += [f"{either} {operator['kind']} ({operator['api']}) where it is installed" for operator in entry.get("operators", ())]
    if not entry.get("enabled", True):
        parts.append("disabled until an admin says so")
    return "; ".join(parts)


def _accelerator(entry: Mapping[str, Any]) -> str:
    if dra := entry.get("dra"):
        parts = [f"ResourceClaimTemplate, class `{dra['device_class']}`"]
    else:
        parts = [f"device plugin, `{entry['resource_key']}`", *(f"`{key}`" for key in entry.get("resources", {}))]
    if (sharing := entry.get("sharing", "whole")) != "whole":
        parts.append(sharing)
    parts += [f"{word} `{entry[field]}`" for field, word in (("runtime_class", "runtime class"), ("scheduler_name", "scheduler")) if entry.get(field)]
    return ", ".join(parts)


def _network(entry: Mapping[str, Any]) -> str:
    parts = [str(entry["kind"])]
    parts += [f"`{entry['resource_key']}`"] if entry.get("resource_key") else []
    parts += [f"capability {name} (an admin has to grant it to the team)" for name in entry.get("capabilities", ())]
    return ", ".join(parts)


def _flavor(entry: Mapping[str, Any]) -> str:
    parts = [f"{entry['cpu']} CPU", f"{entry['memory']} memory"]
    parts += [f"{entry['shm']} shared memory"] if "shm" in entry else []
    parts += [f"{entry['accelerator_count']} x `{entry['accelerator']}`"] if "accelerator" in entry else []
    parts += [f"network `{entry['network']}`"] if "network" in entry else []
    return ", ".join(parts)


def _storage(entry: Mapping[str, Any]) -> str:
    return f"{entry['kind']}{'' if entry.get('enabled', True) else '; disabled until an admin fills it in'}"


_MECHANISMS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "template": _template,
    "accelerator": _accelerator,
    "network": _network,
    "flavor": _flavor,
    "storage": _storage,
}


def runs_in(folder: Path) -> dict[str, list[str]]:
    """What the tests below `folder` say they run, by their marks `@pytest.mark.runs("template:ray")`: entry -> names of the tests."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for entry in (name for mark in node.decorator_list for name in _run_by(mark)):
                    found.setdefault(entry, []).append(f"{file.relative_to(folder.parent)}::{node.name}")
    return found


def _run_by(mark: ast.expr) -> list[str]:
    if not (isinstance(mark, ast.Call) and isinstance(mark.func, ast.Attribute) and mark.func.attr == "runs"):
        return []
    return [str(argument.value) for argument in mark.args if isinstance(argument, ast.Constant)]
