"""What every cluster has from the start, and what follows from a namespace's beginning and end."""

from __future__ import annotations

import logging

from .admission.priority import SYSTEM
from .admission.service_account import default_account
from .client import Client
from .documents import Doc, clone, meta, name_of
from .errors import StatusError
from .objects import Request

log = logging.getLogger(__name__)

ROOT_CA = "kube-root-ca.crt"


def seed(client: Client, authority: str) -> None:
    """Namespaces and priority classes that are always there; `authority` is the PEM of the API's certificate authority."""
    for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
        if client.get("Namespace", None, name) is None:
            client.create("Namespace", {"metadata": {"name": name}})
    for name, (value, text) in SYSTEM.items():
        if client.get("PriorityClass", None, name) is None:
            client.create("PriorityClass", {"metadata": {"name": name}, "value": value, "description": text})
    for space in client.list("Namespace"):
        furnish(client, space, authority)


def furnish(client: Client, namespace: Doc, authority: str) -> None:
    """The `default` service account and the authority's certificate, which every live namespace has."""
    if meta(namespace).get("deletionTimestamp"):
        return
    name = name_of(namespace)
    if client.get("ServiceAccount", name, "default") is None:
        client.create("ServiceAccount", default_account(name))
    wanted = {"ca.crt": authority}
    found = client.get("ConfigMap", name, ROOT_CA)
    if found is None:
        client.create("ConfigMap", {"metadata": {"name": ROOT_CA, "namespace": name}, "data": wanted})
    elif found.get("data") != wanted:
        client.modify("ConfigMap", name, ROOT_CA, lambda doc: doc.update(data=dict(wanted)))


def empty(client: Client, namespace: Doc) -> bool:
    """Deletes the content of a namespace that is going; when none is left, the namespace itself. True when it is gone."""
    name = name_of(namespace)
    left = 0
    for resource in client.kinds.stored_all():
        if not resource.namespaced:
            continue
        for doc in client.store.docs(resource.store_key, name):
            if not meta(doc).get("deletionTimestamp"):
                try:
                    client.objects.delete(resource, name, name_of(doc), {"propagationPolicy": "Background"}, Request(inside=True))
                except StatusError as error:
                    if error.code != 404:
                        log.warning("deleting %s %s/%s: %s", resource.plural, name, name_of(doc), error)
            left += client.store.get(resource.store_key, name, name_of(doc)) is not None
    if left:
        return False
    bare = clone(namespace)
    bare["spec"] = {**(bare.get("spec") or {}), "finalizers": []}
    try:
        client.objects.finalize(client.kinds.named("Namespace"), "", name, bare)
    except StatusError as error:
        if error.code != 404:
            raise
    return client.get("Namespace", None, name) is None
