"""What a team's namespace holds."""

from __future__ import annotations

import kubernetes_validate

from k8s import tenancy
from k8s.spec import TeamSpec

TEAM = TeamSpec(
    slug="vision",
    install="abc123",
    namespace="atelier-vision",
    hard={"requests.cpu": "8000m"},
    hub_cidrs=("10.1.0.5/32",),
    egress_cidrs=("0.0.0.0/0", "192.0.2.0/24"),
)
LABELS = {"app.kubernetes.io/managed-by": "atelier", "atelier.dev/install": "abc123", "atelier.dev/team": "vision"}


def valid(document: dict) -> dict:
    kubernetes_validate.validate(document, "1.36", strict=True)
    return document


def _policies(team: TeamSpec) -> dict:
    return {document["metadata"]["name"]: valid(document)["spec"] for document in tenancy.network_policies(team)}


def test_a_namespace_enforces_restricted_pod_security() -> None:
    assert valid(tenancy.namespace(TEAM)) == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "atelier-vision",
            "labels": {
                **LABELS,
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
                "pod-security.kubernetes.io/audit": "restricted",
            },
        },
    }


def test_the_teams_limits_are_a_resource_quota() -> None:
    assert valid(tenancy.resource_quota(TEAM)) == {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "atelier", "namespace": "atelier-vision", "labels": LABELS},
        "spec": {"hard": {"requests.cpu": "8000m"}},
    }


def test_without_limits_there_is_no_resource_quota() -> None:
    kinds = [valid(document)["kind"] for document in tenancy.namespace_documents(TeamSpec(slug="vision", install="abc123", namespace="atelier-vision"))]
    assert kinds == ["LimitRange", "NetworkPolicy", "NetworkPolicy"]


def test_nothing_passes_but_dns_the_hub_and_the_named_networks() -> None:
    assert _policies(TEAM) == {
        "atelier-default-deny": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        "atelier-dns": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}],
        },
        "atelier-hub": {
            "podSelector": {"matchLabels": {"atelier.dev/kind": "notebook"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.1.0.5/32"}}], "ports": [{"protocol": "TCP", "port": 8888}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.1.0.5/32"}}], "ports": [{"protocol": "TCP", "port": 8011}]}],
        },
        "atelier-egress": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.169.254/32"]}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]}],
        },
    }


def test_pods_of_one_owner_reach_each_other_in_every_team_of_this_installation_only() -> None:
    peers = [
        {
            "namespaceSelector": {"matchLabels": {"atelier.dev/install": "abc123"}},
            "podSelector": {"matchLabels": {"atelier.dev/install": "abc123", "atelier.dev/owner": "alice"}},
        }
    ]
    assert valid(tenancy.owner_policy(namespace="atelier-vision", install="abc123", owner="alice")) == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": "owner-alice",
            "namespace": "atelier-vision",
            "labels": {"app.kubernetes.io/managed-by": "atelier", "atelier.dev/install": "abc123", "atelier.dev/owner": "alice"},
            "annotations": {"atelier.dev/owner-name": "alice"},
        },
        "spec": {
            "podSelector": {"matchLabels": {"atelier.dev/owner": "alice"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers}],
            "egress": [{"to": peers}],
        },
    }
