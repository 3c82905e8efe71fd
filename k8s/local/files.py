"""Files that only their owner may read."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

import yaml


def write_private(path: Path, data: bytes) -> None:
    """Writes with mode 600, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    scratch.replace(path)


def token(path: Path) -> str:
    """The bearer token, made at the first start."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_text().strip()


def write_kubeconfig(path: Path, server: str, authority: Path, bearer: str) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "embedded", "cluster": {"server": server, "certificate-authority-data": base64.b64encode(authority.read_bytes()).decode()}}],
        "users": [{"name": "admin", "user": {"token": bearer}}],
        "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": "admin", "namespace": "default"}}],
        "current-context": "embedded",
    }
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())
