"""Storages in the cluster: what a team's namespace holds for them, brought in line with grants, and what an environment's pods mount."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings

from k8s import cluster as api
from k8s import errors, names
from k8s.cluster import Cluster
from k8s.spec import Mount
from k8s.volumes import STATIC_CLAIM_BYTES, SharedClaim, TeamStorage, claim_name, object_name, shared_claim, storage_documents
from portal.domain import selectors, services, vault
from portal.domain.lifecycle import State
from portal.domain.models import Access, Environment, Storage, Team, TeamClaim
from portal.domain.shape import parse_bytes

logger = logging.getLogger(__name__)

Document = dict[str, Any]

HADOOP_CONF = "/etc/hadoop/conf"
KEYTABS = "/etc/security/keytabs"
_VARIABLE = re.compile(r"\$\{(endpoint|region|bucket|prefix)\}")
_KINDS = (api.CLAIMS, api.SECRETS, api.CONFIG_MAPS)
_AT_REST = (State.STOPPED, State.FAILED, State.DELETED)


def team_storage(team: str, document: Mapping[str, Any], access: str, secret: Mapping[str, bytes] | None = None) -> TeamStorage:
    """A storage's document as `team` (a slug) may use it: `access` is "read" or "write"."""
    kind = document["kind"]
    csi, source = document.get("csi"), {}
    if kind == "nfs":
        source = {"nfs": {"server": document["nfs"]["server"], "path": document["nfs"]["path"]}}
    elif csi:
        source = {"csi": {"driver": csi["driver"]}}
        if csi.get("attributes"):
            source["csi"]["volumeAttributes"] = dict(csi["attributes"])
        if csi.get("fs_type"):
            source["csi"]["fsType"] = csi["fs_type"]
    return TeamStorage(
        slug=document["slug"],
        install=settings.INSTALL_ID,
        team=team,
        namespace=names.namespace(team),
        read_only=access == Access.READ,
        capacity_bytes=parse_bytes(str(document.get("capacity", "1Gi"))),
        source=source,
        volume_handle=(csi or {}).get("volume_handle", ""),
        mount_options=tuple((csi or document.get("nfs") or {}).get("mount_options", ())),
        secret_refs=tuple((csi or {}).get("secret_refs", ())),
        files=dict(document["hdfs"]["config"]) if kind == "hdfs" else {},
        secret=secret or {},
    )


# --- what pods mount ---------------------------------------------------------------


def mounts_of(environment: Environment) -> tuple[Mount, ...]:
    """What an environment's pods mount, from its row alone."""
    return tuple(mount for entry in environment.mounts for mount in _mounts(environment.team.slug, entry))


def _mounts(team: str, entry: Mapping[str, Any]) -> Iterable[Mount]:
    document, path = entry["document"], entry["mount_path"]
    kind = document.get("kind", "")
    if kind == "scratch":
        block = document["scratch"]
        yield Mount(mount_path=path, scratch_bytes=parse_bytes(str(block["size"])), in_memory=block.get("medium") == "memory")
        return
    claim = entry["claim"]
    if not claim and (kind == "nfs" or "csi" in document):
        claim = claim_name(team_storage(team, document, entry["access"]))
    if claim and path:
        yield Mount(mount_path=path, read_only=entry["read_only"], claim=claim, sub_path=entry["sub_path"])
    if not entry["ref"]:
        yield from _given(document)


def _given(document: Mapping[str, Any]) -> Iterable[Mount]:
    """Variables and files that a storage gives beside a folder."""
    kind, slug = document.get("kind", ""), document.get("slug", "")
    block = document.get(kind) or {}
    variables = block.get("env") or {}
    values = {key: str(block.get(key, "")) for key in ("endpoint", "region", "bucket", "prefix")}
    env = {name: _VARIABLE.sub(lambda match: values[match[1]], value) for name, value in variables.items() if isinstance(value, str)}
    secret_env = {name: (object_name(slug), value["secret"]) for name, value in variables.items() if not isinstance(value, str)}
    if kind == "hdfs":
        folder = block.get("config_path", HADOOP_CONF)
        env = {"HADOOP_CONF_DIR": folder, **env}
        if "krb5.conf" in block["config"]:
            env["KRB5_CONFIG"] = f"{folder}/krb5.conf"
        if block.get("principal"):
            env["KRB5PRINCIPAL"] = block["principal"]
        yield Mount(mount_path=folder, read_only=True, config_map=object_name(slug))
        if block.get("keytab"):
            keytab = f"{block['keytab']}.keytab".replace(".keytab.keytab", ".keytab")
            env |= {"KRB5KEYTAB": f"{KEYTABS}/{keytab}", "KRB5_CLIENT_KTNAME": f"{KEYTABS}/{keytab}"}
            yield Mount(mount_path=KEYTABS, read_only=True, secret=object_name(slug), secret_files={block["keytab"]: keytab})
    if env or secret_env:
        yield Mount(env=env, secret_env=secret_env)


# --- what namespaces hold ------------------------------------------------------------


def static_bytes(team: Team) -> int:
    """What the claims of static volumes ask for in a team's namespace, the old and the new of a storage that is being changed."""
    return 2 * STATIC_CLAIM_BYTES * sum(_is_static(storage) for storage, _ in selectors.storage_access(team).values())


def _is_static(storage: Storage) -> bool:
    return storage.kind == Storage.Kind.NFS or "csi" in storage.spec


def ensure(cluster: Cluster, environment: Environment) -> None:
    """Make what the environment's mounts need in its team's namespace; nothing for a grant that is gone. Raises `k8s.errors`."""
    if not environment.mounts:
        return
    access = selectors.storage_access(environment.team)
    documents: list[Document] = []
    for entry in environment.mounts:
        if entry["storage"] in access:
            documents += _documents(environment.team, entry["document"], entry["access"])
    _apply(cluster, [*documents, *_claims(environment.team)])


def sync(cluster: Cluster, team: Team) -> None:
    """Bring the team's namespace in line with what the team may use: make what is missing, remove what no grant asks for. Raises `k8s.errors`.

    What runs with an older form of a storage keeps that form's volume until it stops, unless the grant itself is gone. A claim in use goes
    when its last pod does; that is Kubernetes' own care.
    """
    access = selectors.storage_access(team)
    wanted: list[Document] = []
    for storage, may in access.values():
        wanted += _documents(team, storage.spec, may)
    running = Environment.objects.filter(team=team).exclude(state__in=_AT_REST).exclude(mounts=[])
    for entry in (entry for mounts in running.values_list("mounts", flat=True) for entry in mounts):
        if entry["storage"] in access and entry["document"]:
            wanted += [document for document in _documents(team, entry["document"], entry["access"]) if document["kind"].startswith("PersistentVolume")]
    wanted += _claims(team)
    failed: errors.ClusterError | None = None
    try:
        _apply(cluster, wanted)
    except errors.ClusterError as error:
        failed = error  # what has to go goes all the same
    _remove(cluster, team, {(document["kind"], document["metadata"]["name"]) for document in wanted})
    for claim in TeamClaim.objects.filter(team=team).exclude(purge_requested_at=None):
        if cluster.get(api.CLAIMS, claim.claim, names.namespace(team.slug)) is None:
            services.team_claim_forget(claim.pk)
            logger.info("shared volume purged: team=%s storage=%s", team.slug, claim.storage_id)
    if failed is not None:
        raise failed


def _documents(team: Team, document: Mapping[str, Any], access: str) -> list[Document]:
    """Objects of one storage. The Secret is the present one, whatever form the storage had."""
    storage = Storage.objects.filter(slug=document["slug"]).first()
    secret: Mapping[str, bytes] = {}
    if storage is not None and storage.secret_keys:
        try:
            secret = services.storage_secrets(storage)
        except vault.VaultError as error:
            logger.error("secret not readable: storage=%s error=%s", storage.slug, error)
    return storage_documents(team_storage(team.slug, document, access, secret))


def _claims(team: Team) -> list[Document]:
    return [
        shared_claim(
            SharedClaim(
                slug=row.storage.slug,
                install=settings.INSTALL_ID,
                team=team.slug,
                namespace=names.namespace(team.slug),
                claim=row.claim,
                size_bytes=row.size_bytes,
                storage_class=row.storage_class or settings.STORAGE_CLASS,
                access_mode=row.access_mode,
            )
        )
        for row in selectors.team_claims(team).filter(purge_requested_at=None)
    ]


def _apply(cluster: Cluster, documents: list[Document]) -> None:
    """Make objects, each once; the first error is raised after all were tried, so that one storage does not keep the others back.

    A static volume that has lost its claim binds no other: it is removed, and made anew at the next try.
    """
    once = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    failed: errors.ClusterError | None = None
    for (kind, name), document in once.items():
        try:
            found = cluster.get(api.VOLUMES, name) if kind == "PersistentVolume" else None
            if found is not None and found.get("status", {}).get("phase") in ("Released", "Failed"):
                cluster.delete(found)
                raise errors.Terminating(f"PersistentVolume {name} was released and is made anew", reason="Terminating")
            cluster.apply(document)
        except errors.ClusterError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _remove(cluster: Cluster, team: Team, wanted: set[tuple[str, str]]) -> None:
    """Delete what this installation made for storages in the namespace and nothing wants: claims first, for a volume in use does not go."""
    selector = f"{names.INSTALL}={settings.INSTALL_ID},{names.MANAGED_BY}={names.MANAGER},{names.TEAM}={names.label_value(team.slug)},{names.STORAGE}"
    namespace = names.namespace(team.slug)
    lists = cluster.gather([*((kind, namespace, selector, "") for kind in _KINDS), (api.VOLUMES, "", selector, "")])
    for item in (item for items in lists for item in items):
        name = item["metadata"]["name"]
        if (item["kind"], name) not in wanted and not item["metadata"].get("deletionTimestamp") and cluster.delete(item):
            logger.info("storage removed from the namespace: team=%s kind=%s name=%s", team.slug, item["kind"], name)
