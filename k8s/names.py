"""Names and labels of everything made in a cluster. Pure."""

from __future__ import annotations

import re
from hashlib import sha256

PREFIX = "atelier.dev"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "atelier"  # value of MANAGED_BY, and the field manager of every apply
INSTALL = f"{PREFIX}/install"
ENVIRONMENT = f"{PREFIX}/environment"  # the environment's id
NAME = f"{PREFIX}/name"
KIND = f"{PREFIX}/kind"
TEAM = f"{PREFIX}/team"
OWNER = f"{PREFIX}/owner"  # label-safe form, see label_value
ROLE = f"{PREFIX}/role"
STORAGE = f"{PREFIX}/storage"  # on what a storage has in a team's namespace: its slug, label-safe
SIMULATED = f"{PREFIX}/simulated"  # on nodes of the embedded cluster that are not real
EXPIRES_AT = f"{PREFIX}/expires-at"  # annotation, RFC 3339
OWNER_NAME = f"{PREFIX}/owner-name"  # annotation: the user name as it is

_UNSAFE = re.compile(r"[^a-z0-9]+")


def label_value(text: str) -> str:
    """`text` as a label value and part of an object name: at most 40 characters, lower-case, distinct for distinct input.

    Text that is already safe stays as it is; otherwise a digest keeps two different inputs apart.
    """
    safe = _UNSAFE.sub("-", text.lower()).strip("-")
    if safe == text and len(safe) <= 40 and not re.search(r"-x[0-9a-f]{8}$", safe):
        return safe
    return f"{safe[:29].rstrip('-') or 'u'}-x{sha256(text.encode()).hexdigest()[:8]}"


def namespace(team: str) -> str:
    """Namespace of a team, by its slug."""
    return f"atelier-{team}"


def object_name(name: str, environment_id: str) -> str:
    """Base name of an environment's objects: the beginning of its name and the first 8 digits of its id, at most 30 characters.

    It is a notebook's server name too, and JupyterHub takes 30 characters and no two hyphens in a row.
    """
    return f"{re.sub('-+', '-', name)[:21].rstrip('-')}-{environment_id.replace('-', '')[:8]}"


def role_name(base: str, role: str) -> str:
    """Name of a role's StatefulSet or Job, Service and ConfigMap."""
    return f"{base}-{role}"


def secret_name(base: str, secret: str) -> str:
    """Name of the Secret object of one of an environment's secrets."""
    return f"{base}-{secret}"


def priority_name(slug: str) -> str:
    """Name of a priority class of ours in the cluster, for its PriorityClass and for Kueue's WorkloadPriorityClass."""
    return f"atelier-{slug}"
