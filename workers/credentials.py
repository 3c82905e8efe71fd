"""Secrets of environments: made once per run, in the cluster and nowhere else. No row, event, log line or answer ever holds one."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from k8s import cluster as api
from k8s import errors, manifests, names
from k8s.cluster import Cluster
from k8s.spec import EnvironmentSpec

from .context import selector


def ensure(cluster: Cluster, spec: EnvironmentSpec, owner: manifests.Document) -> None:
    """Make those of an environment's secrets that are not there. `owner`: the reference to its parent. Raises `k8s.errors`.

    What is there stays: replicas that run hold it already. The cluster decides who was first, so two workers make one secret.
    """
    if not spec.secrets:
        return
    present = there(cluster, spec)
    for secret, kind in spec.secrets.items():
        if names.secret_name(spec.base_name, secret) in present:
            continue
        document = manifests.secret_document(spec, secret, _KINDS[kind](), owner)
        try:
            cluster.create(document)
        except errors.Conflict as error:
            if isinstance(error, errors.Terminating):
                raise
            name = document["metadata"]["name"]
            if name not in there(cluster, spec):  # that of an earlier run is still going, or it is somebody else's
                raise errors.Terminating(f"Secret {name} is not this run's; it is tried again", reason="Terminating") from error


def there(cluster: Cluster, spec: EnvironmentSpec) -> frozenset[str]:
    """Names of the environment's Secret objects, by their metadata alone: their content is never read."""
    found, _ = cluster.find_at(api.SECRETS, spec.namespace, labels=selector(spec.id), metadata_only=True)
    return frozenset(item["metadata"]["name"] for item in found if not item["metadata"].get("deletionTimestamp"))


def _token() -> dict[str, bytes]:
    return {"value": secrets.token_urlsafe(32).encode()}


def _ssh_key() -> dict[str, bytes]:
    """A key pair by which the replicas of one environment reach each other, and nobody else does."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" atelier\n"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return {"id_ed25519": private, "id_ed25519.pub": public, "authorized_keys": public}


_KINDS: dict[str, Callable[[], dict[str, bytes]]] = {"token": _token, "ssh-key": _ssh_key}
