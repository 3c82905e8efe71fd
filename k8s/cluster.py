"""A cluster's objects, synchronously. Raw JSON in and out; what goes wrong is one of `k8s.errors` (see `k8s.transport`).

Raw, because turning lists into model objects costs most of a controller's time and memory, and because what is applied
are the documents of `k8s.manifests` as they are. Every call has a timeout; connections are kept and reused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes.config import list_kube_config_contexts
from kubernetes.config.config_exception import ConfigException

from . import errors, names
from .manifests import SPEC_HASH, sealed
from .transport import CONNECT_SECONDS, READ_SECONDS, Object, Transport, patience, watch_event

_T = TypeVar("_T")

WATCH_SECONDS = 240.0  # the server ends a watch after this unless told otherwise; `Expired` and silence end it earlier
SILENCE_SECONDS = 70.0  # bookmarks come about once a minute; a watch that says nothing for longer is dead
_PAGE = 500


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Where a kind lives in the API."""

    version: str
    name: str
    plural: str
    namespaced: bool = True


NAMESPACES = Kind(version="v1", name="Namespace", plural="namespaces", namespaced=False)
NODES = Kind(version="v1", name="Node", plural="nodes", namespaced=False)
PODS = Kind(version="v1", name="Pod", plural="pods")
SERVICES = Kind(version="v1", name="Service", plural="services")
SECRETS = Kind(version="v1", name="Secret", plural="secrets")
CONFIG_MAPS = Kind(version="v1", name="ConfigMap", plural="configmaps")
CLAIMS = Kind(version="v1", name="PersistentVolumeClaim", plural="persistentvolumeclaims")
VOLUMES = Kind(version="v1", name="PersistentVolume", plural="persistentvolumes", namespaced=False)
EVENTS = Kind(version="v1", name="Event", plural="events")
SERVICE_ACCOUNTS = Kind(version="v1", name="ServiceAccount", plural="serviceaccounts")
QUOTAS = Kind(version="v1", name="ResourceQuota", plural="resourcequotas")
LIMIT_RANGES = Kind(version="v1", name="LimitRange", plural="limitranges")
STATEFUL_SETS = Kind(version="apps/v1", name="StatefulSet", plural="statefulsets")
JOBS = Kind(version="batch/v1", name="Job", plural="jobs")
POLICIES = Kind(version="networking.k8s.io/v1", name="NetworkPolicy", plural="networkpolicies")
LEASES = Kind(version="coordination.k8s.io/v1", name="Lease", plural="leases")
PRIORITY_CLASSES = Kind(version="scheduling.k8s.io/v1", name="PriorityClass", plural="priorityclasses", namespaced=False)
CLAIM_TEMPLATES = Kind(version="resource.k8s.io/v1", name="ResourceClaimTemplate", plural="resourceclaimtemplates")
DEVICE_CLAIMS = Kind(version="resource.k8s.io/v1", name="ResourceClaim", plural="resourceclaims")
DEVICE_CLASSES = Kind(version="resource.k8s.io/v1", name="DeviceClass", plural="deviceclasses", namespaced=False)
DEVICE_SLICES = Kind(version="resource.k8s.io/v1", name="ResourceSlice", plural="resourceslices", namespaced=False)
# Of clusters that have these queues, see k8s.queues
POD_GROUPS = Kind(version="scheduling.volcano.sh/v1beta1", name="PodGroup", plural="podgroups")
WORKLOADS = Kind(version="kueue.x-k8s.io/v1beta2", name="Workload", plural="workloads")
WORKLOAD_PRIORITIES = Kind(version="kueue.x-k8s.io/v1beta2", name="WorkloadPriorityClass", plural="workloadpriorityclasses", namespaced=False)

KINDS = {
    (kind.version, kind.name): kind
    for kind in (
        NAMESPACES,
        NODES,
        PODS,
        SERVICES,
        SECRETS,
        CONFIG_MAPS,
        CLAIMS,
        VOLUMES,
        EVENTS,
        SERVICE_ACCOUNTS,
        QUOTAS,
        LIMIT_RANGES,
        STATEFUL_SETS,
        JOBS,
        POLICIES,
        LEASES,
        PRIORITY_CLASSES,
        CLAIM_TEMPLATES,
        POD_GROUPS,
        WORKLOADS,
        WORKLOAD_PRIORITIES,
    )
}
# Only labels, owners and times of objects, which is a fraction of a pod: for one object or a watch, and for a list.
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# Kinds that bear an environment's label. Deletion is complete when none of them is left.
ENVIRONMENT_KINDS = (PODS, STATEFUL_SETS, JOBS, SERVICES, CONFIG_MAPS, SECRETS, POLICIES, CLAIMS)


def kind_of(document: Mapping[str, Any]) -> Kind:
    """The `Kind` of a document; KeyError for one that this project does not make."""
    return KINDS[document["apiVersion"], document["kind"]]


def know(kind: Kind) -> Kind:
    """Take a kind of an installed operator among those that can be made; templates name them."""
    return KINDS.setdefault((kind.version, kind.name), kind)


class Cluster(Transport):
    """One cluster. Safe for threads; made anew after a fork (see `connect`)."""

    # --- objects ---------------------------------------------------------------

    def get(self, kind: Kind, name: str, namespace: str = "", *, seconds: float = READ_SECONDS) -> Object | None:
        """The object, or None when there is none."""
        try:
            return self._json("GET", _path(kind, namespace, name), seconds=seconds)
        except errors.Gone:
            return None

    def read(self, path: str) -> Object | None:
        """What the API gives at a path that is no object of ours, such as /apis; None where there is nothing."""
        try:
            return self._json("GET", path)
        except errors.Gone:
            return None

    def read_text(self, path: str) -> str | None:
        """As `read`, where the answer is plain text, such as at /metrics."""
        try:
            response = self._open("GET", path, {}, accept="text/plain", timeout=(CONNECT_SECONDS, READ_SECONDS))
            return response.data.decode(errors="replace")
        except errors.Gone:
            return None
        except urllib3.exceptions.HTTPError as error:
            raise errors.Unreachable(f"the cluster's answer broke off: {type(error).__name__}") from error

    def find(self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """Every object of a kind, in one namespace or in all."""
        return self.find_at(kind, namespace, labels=labels, fields=fields)[0]

    def find_at(self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "", metadata_only: bool = False) -> tuple[list[Object], str]:
        """As `find`, and the resourceVersion from which a watch goes on.

        The list is whole or there is none: when a later page cannot be had, this raises, `Expired` included. It names no resourceVersion,
        so the server answers with the newest state.
        """
        items: list[Object] = []
        token = ""
        while True:
            query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE), "continue": token}
            page = self._json("GET", _path(kind, namespace), query, accept=_METADATA_LIST if metadata_only else "")
            # Items of a list come without kind and apiVersion.
            items.extend({**item, "apiVersion": kind.version, "kind": kind.name} for item in page["items"])
            token = page["metadata"].get("continue", "")
            if not token:
                return items, page["metadata"]["resourceVersion"]

    def apply(self, document: Object) -> Object:
        """Bring an object to what `document` says, by server-side apply, and return it as it now is.

        An object that is there already is changed only when it is ours and differs; a claim or a Job not even then, since its spec cannot change.
        Raises `Foreign` when the name is taken by someone else's object, `Conflict` while the old one is being deleted.
        """
        kind, metadata = kind_of(document), document["metadata"]
        document = sealed(document)
        existing = self.get(kind, metadata["name"], metadata.get("namespace", ""))
        if existing is not None:
            _check_ours(existing, document)
            if existing["metadata"].get("deletionTimestamp"):
                raise errors.Terminating(f"{kind.name} {metadata['name']} is still being deleted", reason="Terminating")
            if kind in (CLAIMS, JOBS) or is_current(existing, document):
                return existing
        query = {"fieldManager": names.MANAGER, "force": "true"}
        path = _path(kind, metadata.get("namespace", ""), metadata["name"])
        return self._json("PATCH", path, query, body=document, content_type="application/apply-patch+yaml")

    def apply_all(self, documents: Iterable[Object]) -> list[Object]:
        """Apply documents that do not depend on each other, side by side. The first error is raised after all have ended."""
        return _all([self._pool().submit(self.apply, document) for document in documents])

    def gather(self, requests: Sequence[tuple[Kind, str, str, str]]) -> list[list[Object]]:
        """Several lists side by side: (kind, namespace, labels, fields) each."""
        return _all([self._pool().submit(self.find, kind, namespace, labels=labels, fields=fields) for kind, namespace, labels, fields in requests])

    def list_labelled(self, namespace: str, labels: Mapping[str, str]) -> list[Object]:
        """Everything with all of `labels` in a namespace, of the kinds that environments are made of."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        return [item for items in self.gather([(kind, namespace, selector, "") for kind in ENVIRONMENT_KINDS]) for item in items]

    def create(self, document: Object, *, seconds: float = READ_SECONDS) -> Object:
        """Make an object. Raises `Conflict` when its name is taken."""
        path = _path(kind_of(document), document["metadata"].get("namespace", ""))
        return self._json("POST", path, {"fieldManager": names.MANAGER}, body=document, seconds=seconds)

    def replace(self, document: Object, *, seconds: float = READ_SECONDS) -> Object:
        """Put an object in the place of the one whose resourceVersion it bears. Raises `Conflict` when that has changed meanwhile."""
        metadata = document["metadata"]
        path = _path(kind_of(document), metadata.get("namespace", ""), metadata["name"])
        return self._json("PUT", path, {"fieldManager": names.MANAGER}, body=document, seconds=seconds)

    def delete(self, item: Mapping[str, Any], *, grace_seconds: int | None = None, unchanged: bool = False) -> bool:
        """Delete an object as it was read: by name, and only if it is still the same one (uid). What it owns goes after it.

        `unchanged`: only if nobody has written to it since (resourceVersion). False when it was gone, or another object has taken its
        name, or it was changed.
        """
        metadata = item["metadata"]
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": metadata["uid"]},
        }
        if unchanged:
            options["preconditions"]["resourceVersion"] = metadata["resourceVersion"]
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            self._json("DELETE", _path(kind_of(item), metadata.get("namespace", ""), metadata["name"]), body=options)
        except (errors.Gone, errors.Conflict):
            return False
        return True

    def annotate(self, item: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
        """Add annotations to an object as it was read; nothing happens when it is gone or is another one now."""
        metadata = item["metadata"]
        patch = {"metadata": {"uid": metadata["uid"], "annotations": dict(annotations)}}
        path = _path(kind_of(item), metadata.get("namespace", ""), metadata["name"])
        try:
            self._json("PATCH", path, {"fieldManager": f"{names.MANAGER}-notes"}, body=patch, content_type="application/merge-patch+json")
        except (errors.Gone, errors.Conflict):
            pass

    def disrupt(self, pod: Mapping[str, Any], message: str) -> None:
        """Write into a pod's status that it was disrupted, in the place of a node that will not: its Job keeps a finalizer on it, and makes
        no other before it knows how this one ended. Nothing happens when the pod is gone or is another one now."""
        metadata, when = pod["metadata"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByNodeLoss", "message": message, "lastTransitionTime": when}
        patch = {"metadata": {"uid": metadata["uid"]}, "status": {"phase": "Failed", "conditions": [condition]}}
        path = f"{_path(PODS, metadata['namespace'], metadata['name'])}/status"
        try:
            self._json("PATCH", path, {"fieldManager": f"{names.MANAGER}-notes"}, body=patch, content_type="application/strategic-merge-patch+json")
        except (errors.Gone, errors.Conflict):
            pass

    # --- logs and watches --------------------------------------------------------

    def read_log(self, namespace: str, pod: str, container: str, *, max_bytes: int, previous: bool = False, seconds: float = 30.0) -> tuple[bytes, bool]:
        """The last `max_bytes` of a container's log, each line with its time; and whether something before them was left out.

        `limitBytes` of the API keeps the beginning, so the end is cut out of the stream here, at a line.
        """
        query = {"container": container, "timestamps": "true", "previous": "true" if previous else ""}
        response = self._open("GET", f"{_path(PODS, namespace, pod)}/log", query, timeout=(CONNECT_SECONDS, READ_SECONDS))
        kept, cut = bytearray(), False
        deadline = time.monotonic() + seconds
        try:
            for chunk in response.stream(64 * 1024):
                kept += chunk
                if len(kept) > max_bytes + 1024 * 1024:
                    del kept[:-max_bytes]
                    cut = True
                if time.monotonic() > deadline:
                    cut = True
                    break
        except urllib3.exceptions.HTTPError as error:
            raise errors.Unreachable(f"the log of {pod} broke off: {type(error).__name__}") from error
        finally:
            response.close()
        if len(kept) > max_bytes:
            del kept[:-max_bytes]
            cut = True
        if cut:
            del kept[: kept.find(b"\n") + 1]
        return bytes(kept), cut

    def watch(
        self,
        kind: Kind,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        resource_version: str,
        metadata_only: bool = False,
        seconds: float = WATCH_SECONDS,
    ) -> Iterator[tuple[str, Object]]:
        """Changes after `resource_version` as ("ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK", object), until the server ends the watch after `seconds`.

        Raises `Expired` when that version is too old (list again) and `Unreachable` when the connection breaks or no whole event, not even
        a bookmark, has come for SILENCE_SECONDS.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "fieldSelector": fields,
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        # The head comes at once; only between events may there be a long time.
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        response = self._open("GET", _path(kind, namespace), query, timeout=timeout, accept=_METADATA if metadata_only else "")
        rest = b""
        heard = time.monotonic()
        try:
            patience(response, min(SILENCE_SECONDS, seconds + READ_SECONDS))
            # read1 hands over what has arrived; stream() would wait for a whole block.
            while chunk := response.read1(256 * 1024):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield watch_event(line)
                if lines:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENCE_SECONDS:
                    raise errors.Unreachable(f"the watch of {kind.plural} sends bytes but no events")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise errors.Unreachable(f"the watch of {kind.plural} broke off: {type(error).__name__}") from error
        finally:
            response.close()


_shared: dict[tuple[int, Path], Cluster] = {}


def home_namespace(kubeconfig: Path) -> str:
    """Namespace of the kubeconfig's context, where this installation keeps what belongs to no team; `default` unless it names one.

    Raises `Unreachable` when there is no usable kubeconfig.
    """
    try:
        active = list_kube_config_contexts(config_file=str(kubeconfig))[1]
    except (ConfigException, OSError) as error:
        raise errors.Unreachable(f"there is no usable kubeconfig at {kubeconfig}") from error
    return str(active["context"].get("namespace") or "default")


def connect(kubeconfig: Path) -> Cluster:
    """The process's own `Cluster`. Connections must not cross a fork, hence the pid."""
    key = (os.getpid(), kubeconfig)
    if key not in _shared:
        _shared.clear()
        _shared[key] = Cluster(kubeconfig)
    return _shared[key]


def _all(futures: Sequence[Future[_T]]) -> list[_T]:
    """Results in order. Waits for every one before an error is raised: nothing goes on behind the caller's back."""
    wait(futures)
    return [future.result() for future in futures]


def _path(kind: Kind, namespace: str = "", name: str = "") -> str:
    path = f"/api/{kind.version}" if "/" not in kind.version else f"/apis/{kind.version}"
    if kind.namespaced and namespace:
        path += f"/namespaces/{namespace}"
    return f"{path}/{kind.plural}" + (f"/{name}" if name else "")


def is_current(existing: Mapping[str, Any], document: Object) -> bool:
    """True when `existing` was last applied from this very (sealed) document."""
    return existing["metadata"].get("annotations", {}).get(SPEC_HASH) == document["metadata"]["annotations"][SPEC_HASH]


def _check_ours(existing: Object, document: Object) -> None:
    """Raise `Foreign` unless `existing` was made by this installation, for the same environment if for any."""
    have, want = existing["metadata"].get("labels") or {}, document["metadata"]["labels"]
    if have.get(names.MANAGED_BY) != names.MANAGER or any(have.get(key) != want.get(key) for key in (names.INSTALL, names.ENVIRONMENT)):
        raise errors.Foreign(f"{existing['kind']} {existing['metadata']['name']} exists and was not made by this portal; it is left as it is")
