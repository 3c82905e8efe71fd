"""Which pods stand behind a Service: the computation, and the Endpoints and EndpointSlice objects that show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k8s.local.documents import Doc, at, labels_of, meta, name_of, namespace_of
from k8s.local.errors import StatusError
from k8s.local.store import matches

if TYPE_CHECKING:
    from k8s.local.client import Client

COMPONENT = "endpoints-controller"
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"


@dataclass(frozen=True)
class Backend:
    """One pod behind a service. `ports` by the service port's name ("" when it has none)."""

    ip: str
    hostname: str
    node: str
    pod: tuple[str, str, str]  # namespace, name, uid
    ready: bool
    terminating: bool
    ports: tuple[tuple[str, int, str], ...]  # name, number, protocol


def backends(service: Doc, pods: list[Doc]) -> list[Backend]:
    """The pods that a service selects and that have an address. Nothing for a service without selector."""
    selector = at(service, "spec.selector")
    if not selector or at(service, "spec.type") == "ExternalName":
        return []
    found = []
    for pod in pods:
        ip = at(pod, "status.podIP", "")
        if not ip or at(pod, "status.phase") in ("Succeeded", "Failed") or not matches(pod, selector):
            continue
        terminating = bool(meta(pod).get("deletionTimestamp"))
        spec = pod["spec"]
        hostname = spec.get("hostname", "") if spec.get("subdomain") == name_of(service) else ""
        ports = tuple(
            (port.get("name") or "", number, port.get("protocol") or "TCP")
            for port in at(service, "spec.ports", [])
            if (number := target_port(port, pod)) is not None
        )
        ready = pod_ready(pod) and not terminating
        found.append(Backend(ip, hostname, spec.get("nodeName", ""), (namespace_of(pod), name_of(pod), meta(pod)["uid"]), ready, terminating, ports))
    return sorted(found, key=lambda item: item.pod)


def target_port(port: Doc, pod: Doc) -> int | None:
    """The pod's port that a service port leads to; None when the pod has none of that name."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int) or str(target).isdigit():
        return int(target)
    for container in pod["spec"]["containers"]:
        for item in container.get("ports") or []:
            if item.get("name") == target:
                return int(item["containerPort"])
    return None


def pod_ready(pod: Doc) -> bool:
    return any(item["type"] == "Ready" and item["status"] == "True" for item in at(pod, "status.conditions", []))


def published(service: Doc, found: list[Backend]) -> list[Backend]:
    """Those that names and connections lead to."""
    everything = bool(at(service, "spec.publishNotReadyAddresses"))
    return [item for item in found if item.ready or everything]


def endpoints_document(service: Doc, found: list[Backend]) -> Doc:
    everything = bool(at(service, "spec.publishNotReadyAddresses"))
    groups: dict[tuple[tuple[str, int, str], ...], dict[str, list[Doc]]] = {}
    for item in found:
        if item.terminating and not everything:
            continue
        namespace, name, uid = item.pod
        address: Doc = {"ip": item.ip, "targetRef": {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid}}
        if item.node:
            address["nodeName"] = item.node
        if item.hostname:
            address["hostname"] = item.hostname
        lists = groups.setdefault(item.ports, {"addresses": [], "notReadyAddresses": []})
        lists["addresses" if item.ready or everything else "notReadyAddresses"].append(address)
    subsets = []
    for ports, lists in sorted(groups.items()):
        subset: Doc = {key: value for key, value in lists.items() if value}
        if ports:
            subset["ports"] = [_port(*port) for port in ports]
        subsets.append(subset)
    labels = dict(labels_of(service))
    if at(service, "spec.clusterIP") == "None":
        labels["service.kubernetes.io/headless"] = ""
    metadata: Doc = {"name": name_of(service), "namespace": namespace_of(service)}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, **({"subsets": subsets} if subsets else {})}


def slice_document(service: Doc, found: list[Backend]) -> Doc:
    everything = bool(at(service, "spec.publishNotReadyAddresses"))
    items = []
    for item in found:
        namespace, name, uid = item.pod
        ready = item.ready or everything
        endpoint: Doc = {
            "addresses": [item.ip],
            "conditions": {"ready": ready, "serving": item.ready, "terminating": item.terminating},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid},
        }
        if item.node:
            endpoint["nodeName"] = item.node
        if item.hostname:
            endpoint["hostname"] = item.hostname
        items.append(endpoint)
    labels = {**labels_of(service), SERVICE_NAME: name_of(service), MANAGED_BY: f"{COMPONENT}.k8s.io"}
    if at(service, "spec.clusterIP") == "None":
        labels["service.kubernetes.io/headless"] = ""
    owner = {
        "apiVersion": "v1",
        "kind": "Service",
        "name": name_of(service),
        "uid": meta(service)["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    ports = found[0].ports if found else ()
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name_of(service)}-local", "namespace": namespace_of(service), "labels": labels, "ownerReferences": [owner]},
        "addressType": "IPv4",
        "endpoints": items,
        "ports": [_port(*port) for port in ports],
    }


def _port(name: str, number: int, protocol: str) -> Doc:
    return {**({"name": name} if name else {}), "port": number, "protocol": protocol}


def write(client: Client, service: Doc, found: list[Backend]) -> None:
    """Stores both objects where they differ from what is there."""
    if not at(service, "spec.selector"):
        return
    for wanted, content in ((endpoints_document(service, found), ("subsets",)), (slice_document(service, found), ("endpoints", "ports"))):
        kind = wanted["kind"]
        name, namespace = name_of(wanted), namespace_of(wanted)
        try:
            if client.get(kind, namespace, name) is None:
                client.create(kind, wanted)
            else:
                client.modify(kind, namespace, name, _changer(wanted, content))
        except StatusError as error:
            if error.code not in (403, 404, 409):  # the namespace is going away, or someone was first
                raise


def _changer(wanted: Doc, content: tuple[str, ...]) -> Any:
    def change(doc: Doc) -> None:
        for key in content:
            if wanted.get(key):
                doc[key] = wanted[key]
            else:
                doc.pop(key, None)
        meta(doc)["labels"] = meta(wanted).get("labels", {})

    return change


def remove(client: Client, service: Doc) -> None:
    """The Endpoints of a service that has gone; its slice goes by its owner."""
    try:
        client.delete("Endpoints", namespace_of(service), name_of(service))
    except StatusError as error:
        if error.code != 404:
            raise
