"""What accelerators and networks put into documents: amounts, claims, labels, annotations, variables, capabilities. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from . import names
from .spec import DeviceClaim, EnvironmentSpec, Resources, Role

Document = dict[str, Any]

CLAIM = "devices"  # name of a claim within its pod; several are numbered
CLASS_QUOTA = ".deviceclass.resource.k8s.io/devices"


def quota_key(device_class: str) -> str:
    """Key under which a ResourceQuota, and this project, counts devices that are claimed of a class."""
    return device_class + CLASS_QUOTA


def amounts(resources: Resources) -> dict[str, int]:
    """What one replica asks for: CPU in millicores, memory and storage in bytes, everything else in pieces. Claimed devices are not in it."""
    found = {"cpu": resources.cpu_millis, "memory": resources.memory_bytes}
    if resources.ephemeral_bytes:
        found["ephemeral-storage"] = resources.ephemeral_bytes
    devices, network = resources.devices, resources.network
    if devices and not devices.claims:
        found[devices.resource_key] = devices.count
    if devices:
        found.update(devices.extra)
    if network and network.resource_key:
        found[network.resource_key] = network.count
    return found


def requirements(resources: Resources) -> Document:
    """`resources` of a container. Requests equal limits: what the quota counted is what a pod gets, and no more."""
    quantities = {key: f"{amount}m" if key == "cpu" else str(amount) for key, amount in amounts(resources).items()}
    found: Document = {"requests": dict(quantities), "limits": dict(quantities)}
    if claims := _claims(resources):
        found["claims"] = [{"name": name} for name in claims]
    return found


def pod_labels(resources: Resources) -> dict[str, str]:
    """Labels of a pod by which the vendor's scheduler or device plugin knows what it runs."""
    return dict(resources.devices.labels) if resources.devices else {}


def pod_annotations(resources: Resources) -> dict[str, str]:
    return {
        **(resources.devices.annotations if resources.devices else {}),
        **(resources.network.annotations if resources.network else {}),
    }


def environment(resources: Resources) -> dict[str, str]:
    return {**(resources.devices.env if resources.devices else {}), **(resources.network.env if resources.network else {})}


def capabilities(resources: Resources) -> tuple[str, ...]:
    """Linux capabilities beyond restricted Pod Security, each once."""
    asked = [*(resources.devices.capabilities if resources.devices else ()), *(resources.network.capabilities if resources.network else ())]
    return tuple(dict.fromkeys(asked))


# --- claims ----------------------------------------------------------------------


def _claims(resources: Resources) -> dict[str, DeviceClaim]:
    claims = resources.devices.claims if resources.devices else ()
    return {CLAIM if len(claims) == 1 else f"{CLAIM}-{index}": claim for index, claim in enumerate(claims)}


def pod_claims(spec: EnvironmentSpec, role: Role) -> list[Document]:
    """`resourceClaims` of a pod: each gets a claim of its own from the role's template."""
    return [
        {"name": name, "resourceClaimTemplateName": _template_name(spec, role, name, _claim_spec(claim))} for name, claim in _claims(role.resources).items()
    ]


def claim_templates(spec: EnvironmentSpec, role: Role, owner: Document, labels: Mapping[str, str]) -> list[Document]:
    """ResourceClaimTemplates of a role. `labels` are those of its pods: a claim bears them too, and so is known as ours."""
    found = []
    for name, claim in _claims(role.resources).items():
        body = _claim_spec(claim)
        found.append(
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaimTemplate",
                "metadata": {
                    "name": _template_name(spec, role, name, body),
                    "namespace": spec.namespace,
                    "labels": dict(labels),
                    "ownerReferences": [owner],
                },
                "spec": {"metadata": {"labels": dict(labels)}, "spec": body},
            }
        )
    return found


def _claim_spec(claim: DeviceClaim) -> Document:
    exactly: Document = {"deviceClassName": claim.device_class, "allocationMode": "ExactCount", "count": claim.count}
    if claim.selectors:
        exactly["selectors"] = [{"cel": {"expression": expression}} for expression in claim.selectors]
    return {"devices": {"requests": [{"name": CLAIM, "exactly": exactly}]}}


def _template_name(spec: EnvironmentSpec, role: Role, claim: str, body: Document) -> str:
    """With a digest of its content, since a ResourceClaimTemplate cannot be changed."""
    digest = sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:8]
    return f"{names.role_name(spec.base_name, role.name)}-{claim}-{digest}"
