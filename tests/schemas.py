"""Kubernetes' own schemas, kept compiled: `kubernetes_validate.validate` reads and indexes all definitions anew for each document."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from referencing import Registry, Resource

VERSION = "1.36.0"
_FOLDER = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{VERSION}-local-strict"


@lru_cache(maxsize=1)
def _definitions() -> Registry:
    contents = json.loads((_FOLDER / "_definitions.json").read_text())
    return (Resource.from_contents(contents) @ Registry()).with_resource("_definitions.json", Resource.from_contents(contents)).crawl()


@lru_cache(maxsize=64)
def _validator(kind: str, api_version: str) -> jsonschema.Draft202012Validator:
    api = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads((_FOLDER / f"{kind.lower()}-{api}.json").read_text())
    return jsonschema.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _definitions())


def faults(document: dict[str, Any]) -> list[str]:
    """What is wrong with a document by the strict schema of its kind; unknown fields are faults."""
    found = _validator(document["kind"], document["apiVersion"]).iter_errors(document)
    return [f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message[:200]}" for error in found]
