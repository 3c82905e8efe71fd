"""Kubernetes documents of a team's namespace: quota, limits, network policies. Pure, as `k8s.manifests`."""

from __future__ import annotations

import ipaddress
from typing import Any

from . import names, quantity
from .spec import TeamSpec

Document = dict[str, Any]

EXCEPTIONS = f"{names.PREFIX}/pod-security-exceptions"  # annotation of a namespace: capabilities that its pods may have
NOTEBOOK_PORT = 8888
_METADATA_SERVICE = ipaddress.ip_network("169.254.169.254/32")  # cloud credentials live there


def team_labels(team: TeamSpec) -> dict[str, str]:
    return {names.MANAGED_BY: names.MANAGER, names.INSTALL: team.install, names.TEAM: names.label_value(team.slug)}


def namespace(team: TeamSpec) -> Document:
    """The team's namespace, with restricted Pod Security enforced. A team with an exception is only warned and recorded: there is no level
    between that allows one capability. What its pods may have, `k8s.pods` sees to: all but the named capability stays restricted."""
    security = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    metadata: Document = {"name": team.namespace, "labels": {**team_labels(team), **security}}
    if team.exceptions:
        metadata["labels"]["pod-security.kubernetes.io/enforce"] = "privileged"
        metadata["annotations"] = {EXCEPTIONS: ",".join(team.exceptions)}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def namespace_documents(team: TeamSpec) -> list[Document]:
    """Everything inside the namespace that belongs to the team as a whole."""
    documents = [limit_range(team), *network_policies(team)]
    if team.hard:
        documents.insert(0, resource_quota(team))
    return documents


QUOTA_NAME = "atelier"


def resource_quota(team: TeamSpec) -> Document:
    """A second lock behind the portal's own quota, held by the cluster itself."""
    return _document(team, "v1", "ResourceQuota", QUOTA_NAME, {"hard": dict(team.hard)})


_DEFAULTS = {"cpu": "500m", "memory": "512Mi"}


def limit_range(team: TeamSpec) -> Document:
    """Defaults for pods that name no resources: without them a ResourceQuota would refuse such pods. And no container or claim may be
    larger than what the whole team may use, so that one refused for its size is told so, not that the quota is full.

    A limit below the defaults is left to the ResourceQuota: a maximum may not be below a default.
    """
    most = {key: team.hard[f"limits.{key}"] for key, default in _DEFAULTS.items() if _reaches(team.hard.get(f"limits.{key}"), default)}
    container: Document = {"type": "Container", "default": dict(_DEFAULTS), "defaultRequest": dict(_DEFAULTS)}
    items = [container | ({"max": most} if most else {})]
    if _reaches(team.hard.get("requests.storage"), "1"):
        items.append({"type": "PersistentVolumeClaim", "max": {"storage": team.hard["requests.storage"]}})
    return _document(team, "v1", "LimitRange", "atelier", {"limits": items})


def _reaches(limit: str | None, amount: str) -> bool:
    return limit is not None and quantity.parse(limit) >= quantity.parse(amount)


def network_policies(team: TeamSpec) -> list[Document]:
    """Default deny both ways; then DNS, the Hub and its proxy, and the outside networks that a setting names."""
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    policies = [
        _policy(team, "default-deny", {}, {"policyTypes": ["Ingress", "Egress"]}),
        _policy(team, "dns", {}, {"policyTypes": ["Egress"], "egress": [{"to": [{"namespaceSelector": {}}], "ports": dns}]}),
    ]
    if team.hub_cidrs:
        hub = [{"ipBlock": {"cidr": cidr}} for cidr in team.hub_cidrs]
        rules = {
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": hub, "ports": [{"protocol": "TCP", "port": NOTEBOOK_PORT}]}],
            "egress": [{"to": hub, "ports": [{"protocol": "TCP", "port": team.hub_api_port}]}],
        }
        policies.append(_policy(team, "hub", {"matchLabels": {names.KIND: "notebook"}}, rules))
    if team.egress_cidrs:
        blocks = [{"ipBlock": _without_metadata_service(cidr)} for cidr in team.egress_cidrs]
        policies.append(_policy(team, "egress", {}, {"policyTypes": ["Egress"], "egress": [{"to": blocks}]}))
    return policies


def owner_policy_name(owner: str) -> str:
    return f"owner-{names.label_value(owner)}"


def owner_policy(*, namespace: str, install: str, owner: str) -> Document:
    """Pods of one owner may talk to each other, in every namespace of this installation."""
    label = names.label_value(owner)
    peers = [
        {
            "namespaceSelector": {"matchLabels": {names.INSTALL: install}},
            "podSelector": {"matchLabels": {names.INSTALL: install, names.OWNER: label}},
        }
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": owner_policy_name(owner),
            "namespace": namespace,
            "labels": {names.MANAGED_BY: names.MANAGER, names.INSTALL: install, names.OWNER: label},
            "annotations": {names.OWNER_NAME: owner},
        },
        "spec": {
            "podSelector": {"matchLabels": {names.OWNER: label}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers}],
            "egress": [{"to": peers}],
        },
    }


def _without_metadata_service(cidr: str) -> Document:
    network = ipaddress.ip_network(cidr, strict=False)
    block: Document = {"cidr": cidr}
    if network.version == 4 and _METADATA_SERVICE.subnet_of(network):  # type: ignore[arg-type]
        block["except"] = [str(_METADATA_SERVICE)]
    return block


def _policy(team: TeamSpec, name: str, selector: Document, rules: Document) -> Document:
    return _document(team, "networking.k8s.io/v1", "NetworkPolicy", f"atelier-{name}", {"podSelector": selector, **rules})


def _document(team: TeamSpec, version: str, kind: str, name: str, spec: Document) -> Document:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": team.namespace, "labels": team_labels(team)}, "spec": spec}
