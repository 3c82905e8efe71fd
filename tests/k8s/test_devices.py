"""What chips and networks put into documents: one entry per mechanism, compared whole, held to Kubernetes' schemas and to Pod Security."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from k8s import manifests
from k8s.local.admission.pod_security import violations
from k8s.spec import DeviceClaim, Devices, NetworkSpec, Resources

from .factories import OWNER, WORKER, cluster_spec, labels, notebook_spec

BASE = Resources(cpu_millis=2000, memory_bytes=4 * 2**30)
RDMA = NetworkSpec(
    slug="rdma",
    resource_key="rdma/hca_shared_devices_a",
    count=1,
    annotations={"k8s.v1.cni.cncf.io/networks": "rdma-net"},
    capabilities=("IPC_LOCK",),
    env={"NCCL_IB_DISABLE": "0", "UCX_TLS": "rc,sm,self"},
)


def pod(resources: Resources) -> dict[str, Any]:
    """The pod template of a worker with these resources, valid for Kubernetes."""
    spec = cluster_spec(roles=(replace(WORKER, resources=resources),))
    found = manifests.cluster_documents(spec, OWNER)
    for document in found:
        kubernetes_validate.validate(document, "1.36", strict=True)
    return next(each for each in found if each["kind"] == "StatefulSet")["spec"]["template"]


def asked(template: dict[str, Any]) -> dict[str, Any]:
    return template["spec"]["containers"][0]["resources"]


def restricted(template: dict[str, Any]) -> list[str]:
    return [str(each) for each in violations("restricted", template["spec"])]


def both(**amounts: str) -> dict[str, Any]:
    return {"requests": amounts, "limits": amounts}


COMMON = {"cpu": "2000m", "memory": str(4 * 2**30)}


@pytest.mark.parametrize(
    ("devices", "keys"),
    [
        (Devices(slug="whole", resource_key="nvidia.com/gpu", count=2), {"nvidia.com/gpu": "2"}),
        (Devices(slug="mig", resource_key="nvidia.com/mig-1g.10gb", count=1), {"nvidia.com/mig-1g.10gb": "1"}),
        (
            Devices(slug="hami", resource_key="nvidia.com/gpu", count=2, extra={"nvidia.com/gpumem": 20000, "nvidia.com/gpucores": 50}),
            {"nvidia.com/gpu": "2", "nvidia.com/gpumem": "20000", "nvidia.com/gpucores": "50"},
        ),
        (Devices(slug="vnpu", resource_key="huawei.com/Ascend910-4c", count=1), {"huawei.com/Ascend910-4c": "1"}),
    ],
)
def test_counted_devices_and_their_shares_are_asked_for_by_their_keys(devices: Devices, keys: dict[str, str]) -> None:
    template = pod(replace(BASE, devices=devices))
    assert asked(template) == both(**COMMON, **keys)
    assert not restricted(template)


def test_labels_and_annotations_of_a_chip_do_not_replace_ours() -> None:
    devices = Devices(
        slug="npu",
        resource_key="huawei.com/Ascend910",
        count=1,
        labels={"ring-controller.atlas": "ascend-910b", "atelier.dev/role": "stolen"},
        annotations={"vendor.example/use": "x", "atelier.dev/owner-name": "stolen"},
        env={"ASCEND_RUNTIME_OPTIONS": ""},
    )
    template = pod(replace(BASE, devices=devices))
    assert template["metadata"] == {
        "labels": {**labels(cluster_spec(), "worker"), "ring-controller.atlas": "ascend-910b"},
        "annotations": {"atelier.dev/owner-name": "alice", "vendor.example/use": "x"},
    }
    assert {"name": "ASCEND_RUNTIME_OPTIONS", "value": ""} in template["spec"]["containers"][0]["env"]


def test_claimed_devices_have_a_template_that_the_parent_owns_and_no_key() -> None:
    claim = DeviceClaim(device_class="gpu.nvidia.com", count=2, selectors=("device.attributes['gpu.nvidia.com'].architecture == 'Hopper'",))
    devices = Devices(slug="dra", resource_key="", count=2, claims=(claim,))
    spec = cluster_spec(roles=(replace(WORKER, resources=replace(BASE, devices=devices)),))
    template, _, stateful_set = manifests.cluster_documents(spec, OWNER)
    kubernetes_validate.validate(template, "1.36", strict=True)
    kubernetes_validate.validate(stateful_set, "1.36", strict=True)
    name = template["metadata"]["name"]
    mine = labels(spec, "worker")
    assert name.startswith("grid-0193aabb-worker-devices-")
    assert template == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": "atelier-vision", "labels": mine, "ownerReferences": [OWNER]},
        "spec": {
            "metadata": {"labels": mine},
            "spec": {
                "devices": {
                    "requests": [
                        {
                            "name": "devices",
                            "exactly": {
                                "deviceClassName": "gpu.nvidia.com",
                                "allocationMode": "ExactCount",
                                "count": 2,
                                "selectors": [{"cel": {"expression": "device.attributes['gpu.nvidia.com'].architecture == 'Hopper'"}}],
                            },
                        }
                    ]
                }
            },
        },
    }
    body = stateful_set["spec"]["template"]
    assert body["spec"]["resourceClaims"] == [{"name": "devices", "resourceClaimTemplateName": name}]
    assert asked(body) == {**both(**COMMON), "claims": [{"name": "devices"}]}
    assert not restricted(body)


def test_another_count_of_claimed_devices_is_another_template() -> None:
    def name(count: int) -> str:
        devices = Devices(slug="dra", resource_key="", count=count, claims=(DeviceClaim(device_class="gpu.nvidia.com", count=count),))
        spec = cluster_spec(roles=(replace(WORKER, resources=replace(BASE, devices=devices)),))
        return manifests.claim_documents(spec, OWNER)[0]["metadata"]["name"]

    assert name(1) == name(1) != name(2)


def test_a_notebook_claims_its_devices_too() -> None:
    spec = notebook_spec()
    (role,) = spec.roles
    devices = Devices(slug="dra", resource_key="", count=1, claims=(DeviceClaim(device_class="mig.nvidia.com", count=1),))
    spec = replace(spec, roles=(replace(role, resources=replace(BASE, devices=devices)),))
    (template,) = manifests.claim_documents(spec, OWNER)
    document = manifests.notebook_pod(spec, OWNER)
    kubernetes_validate.validate(document, "1.36", strict=True)
    assert document["spec"]["resourceClaims"] == [{"name": "devices", "resourceClaimTemplateName": template["metadata"]["name"]}]


def test_rdma_is_a_key_an_annotation_variables_and_one_named_capability() -> None:
    template = pod(replace(BASE, network=RDMA))
    container = template["spec"]["containers"][0]
    assert asked(template) == both(**COMMON, **{"rdma/hca_shared_devices_a": "1"})
    assert template["metadata"]["annotations"] == {"atelier.dev/owner-name": "alice", "k8s.v1.cni.cncf.io/networks": "rdma-net"}
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}}
    assert {"name": "NCCL_IB_DISABLE", "value": "0"} in container["env"]
    assert restricted(template) == ['unrestricted capabilities (container "worker" must not include "IPC_LOCK" in securityContext.capabilities.add)']


def test_what_a_role_says_itself_wins_over_its_network() -> None:
    spec = cluster_spec(roles=(replace(WORKER, resources=replace(BASE, network=RDMA), env={"UCX_TLS": "tcp"}),))
    (stateful_set,) = [each for each in manifests.cluster_documents(spec, OWNER) if each["kind"] == "StatefulSet"]
    assert {"name": "UCX_TLS", "value": "tcp"} in stateful_set["spec"]["template"]["spec"]["containers"][0]["env"]


def test_ephemeral_storage_is_asked_for_and_bounded() -> None:
    template = pod(replace(BASE, ephemeral_bytes=50 * 2**30))
    assert asked(template) == both(**COMMON, **{"ephemeral-storage": str(50 * 2**30)})
    assert not restricted(template)
