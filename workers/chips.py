"""Accelerators and networks of the catalogue as the cluster side sees them. Pure."""

from __future__ import annotations

from k8s.spec import DeviceClaim, Devices, NetworkSpec, Resources
from portal.domain.models import Accelerator, Network
from portal.domain.shape import RoleShape


def resources_of(shape: RoleShape, accelerator: Accelerator | None, network: Network | None) -> Resources:
    """What one replica may use. A role without accelerators or network devices in its shape gets none."""
    return Resources(
        cpu_millis=shape.cpu_millis,
        memory_bytes=shape.memory_bytes,
        shm_bytes=shape.shm_bytes,
        ephemeral_bytes=shape.ephemeral_bytes,
        devices=_devices_of(accelerator, shape.accelerator_count) if accelerator is not None and shape.accelerator_count else None,
        network=_network_of(network, shape.network_count) if network is not None and shape.network else None,
    )


def _devices_of(accelerator: Accelerator, count: int) -> Devices:
    dra = accelerator.dra
    return Devices(
        slug=accelerator.slug,
        resource_key=accelerator.resource_key,
        count=count,
        # HAMi's schedulers read the amount as what each device gives; others as what the pod takes of all of them.
        extra={key: int(amount) * (1 if accelerator.sharing == Accelerator.Sharing.HAMI else count) for key, amount in accelerator.resources.items()},
        claims=(DeviceClaim(device_class=dra["device_class"], count=count, selectors=tuple(dra.get("selectors", ()))),) if dra else (),
        capabilities=tuple(accelerator.capabilities),
        node_selector=accelerator.node_selector,
        tolerations=tuple(accelerator.tolerations),
        runtime_class=accelerator.runtime_class,
        scheduler_name=accelerator.scheduler_name,
        labels=accelerator.labels,
        annotations=accelerator.annotations,
        env=accelerator.env,
    )


def _network_of(network: Network, count: int) -> NetworkSpec:
    return NetworkSpec(
        slug=network.slug,
        resource_key=network.resource_key,
        count=count,
        annotations=network.annotations,
        capabilities=tuple(network.capabilities),
        env=network.env,
    )
