"""Rows to specs: variables, images, devices, limits."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from k8s import manifests
from k8s.spec import Endpoint, Port, Probe
from portal.domain import services
from portal.domain.allowed import why_not
from portal.domain.models import Accelerator, Flavor, Template
from tests.portal.catalogue.test_matrix import examples
from workers.specs import TemplateError, environment_spec, team_spec

from .conftest import World, row

OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}


def test_a_dask_cluster_knows_its_scheduler_by_name(world: World, settings: Any) -> None:
    settings.INSTALL_ID = "abc123"
    environment = world.request(params={"workers": 3})
    spec = environment_spec(environment)
    scheduler, worker = spec.roles
    base = f"grid-{environment.pk.hex[:8]}"
    host = f"{base}-scheduler.atelier-vision.svc.cluster.local"
    assert (spec.install, spec.base_name, spec.namespace, spec.kind) == ("abc123", base, "atelier-vision", "cluster")
    assert (scheduler.replicas, worker.replicas, worker.scalable) == (1, 3, True)
    assert worker.args[0] == f"tcp://{host}:8786"
    assert worker.args[worker.args.index("--memory-limit") + 1] == str(worker.resources.memory_bytes)
    assert scheduler.ports[0] == Port(name="comm", number=8786, endpoint=Endpoint(title="Scheduler", scheme="tcp", path=""))
    assert scheduler.readiness == Probe(port="dashboard", path="/health")
    assert spec.connect_env == {"DASK_SCHEDULER_ADDRESS": f"tcp://{host}:8786"}
    assert f'Client("tcp://{host}:8786")' in spec.connect_snippet


def test_scaling_changes_the_spec(world: World) -> None:
    environment = world.request()
    services.environment_scale(actor=world.alice, environment_id=environment.pk, workers=5)
    assert environment_spec(row(environment.pk)).roles[1].replicas == 5


def test_a_notebook_has_its_home_and_is_told_of_running_clusters(world: World, settings: Any) -> None:
    settings.STORAGE_CLASS = "fast"
    spec = environment_spec(world.request("lab", "notebook"), connect_env={"DASK_SCHEDULER_ADDRESS": "tcp://there:8786"})
    (role,) = spec.roles
    assert spec.home is not None
    assert (spec.home.mount_path, spec.home.storage_class, spec.home.size_bytes) == ("/home/jovyan", "fast", 10 * 2**30)
    assert (role.replicas, role.env["DASK_SCHEDULER_ADDRESS"]) == (1, "tcp://there:8786")


def test_images_and_selectors_come_from_settings(world: World, settings: Any) -> None:
    settings.IMAGES = {"jupyterhub/singleuser:6.1": "registry.example/lab:2"}
    settings.NODE_SELECTOR = {"pool": "dev"}
    spec = environment_spec(world.request("lab", "notebook"))
    assert (spec.roles[0].image, spec.node_selector) == ("registry.example/lab:2", {"pool": "dev"})


def test_accelerators_are_catalogue_data(world: World) -> None:
    services.quota_set(actor=None, team=world.vision, user=None, resource="accelerator:nvidia-a100-80g", limit=8)
    devices = environment_spec(world.request("lab", "notebook", flavor="a100-2")).roles[0].resources.devices
    assert devices is not None
    assert (devices.resource_key, devices.count) == ("nvidia.com/gpu", 2)
    assert devices.node_selector == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    assert devices.tolerations == ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},)


@pytest.mark.parametrize("flavor", ["cpu-small", "a100-2"])
def test_every_builtin_template_makes_valid_documents(world: World, flavor: str) -> None:
    services.quota_set(actor=None, team=world.vision, user=None, resource="accelerator:nvidia-a100-80g", limit=64)
    for template in Template.objects.filter(enabled=True):
        if why_not(template.spec, Flavor.objects.get(slug=flavor)):
            continue
        spec = environment_spec(world.request(template.slug[:20], template.slug, flavor=flavor, params=examples(template.spec)))
        documents = [manifests.notebook_pod(spec, OWNER)] if spec.kind == "notebook" else manifests.cluster_documents(spec, OWNER)
        for document in documents:
            kubernetes_validate.validate(document, "1.36", strict=True)


def test_an_unknown_variable_is_an_error_that_names_it(world: World) -> None:
    environment = world.request()
    environment.template_spec["roles"][0]["args"] = ["${roles.head.host}"]
    with pytest.raises(TemplateError, match=r"\$\{roles\.head\.host\}"):
        environment_spec(environment)


def test_a_parameter_cannot_smuggle_in_a_kubernetes_variable(world: World) -> None:
    environment = world.request()
    environment.params["label"] = "$(POD_IP) ${resources.cpus}"
    environment.template_spec["roles"][0]["args"] = ["${params.label}"]
    assert environment_spec(environment).roles[0].args == ("$$(POD_IP) ${resources.cpus}",)


def test_a_teams_limits_become_a_resource_quota(world: World) -> None:
    for resource, limit in (("cpu", 8500), ("memory", 2**34), ("storage", 2**36), ("accelerator:nvidia-a100-80g", 4), ("accelerator:nvidia-gpu", 2)):
        services.quota_set(actor=None, team=world.vision, user=None, resource=resource, limit=limit)
    hard = team_spec(world.vision).hard
    granted = {key: value for key, value in hard.items() if value != "0"}
    assert hard["requests.huawei.com/Ascend910"] == "0"
    assert granted == {
        "requests.cpu": "8500m",
        "limits.cpu": "8500m",
        "requests.memory": str(2**34),
        "limits.memory": str(2**34),
        "requests.storage": str(2**36),
        "requests.nvidia.com/gpu": "6",
    }


def test_a_limit_of_all_accelerators_together_bounds_each_key_by_its_lightest(world: World) -> None:
    Accelerator.objects.filter(slug="nvidia-a100-80g").update(quota_weight=2.5)
    limits = {"accelerators": 5500, "accelerator:nvidia-a100-80g": None, "accelerator:nvidia-gpu": None, "accelerator:ascend-910": 3}
    for resource, limit in limits.items():
        services.quota_set(actor=None, team=world.vision, user=None, resource=resource, limit=limit)
    hard = team_spec(world.vision).hard
    assert (hard["requests.nvidia.com/gpu"], hard["requests.huawei.com/Ascend910"]) == ("5", "3")


def test_a_limit_below_present_use_lets_what_runs_come_back(world: World) -> None:
    environment = world.request()
    services.quota_set(actor=None, team=world.vision, user=None, resource="cpu", limit=500)
    assert team_spec(world.vision).hard["limits.cpu"] == f"{environment.reserved['cpu']}m"
    services.environment_move(environment.pk, "failed")
    assert team_spec(world.vision).hard["limits.cpu"] == "500m"


def test_an_unlimited_accelerator_leaves_its_key_open(world: World) -> None:
    services.quota_set(actor=None, team=world.vision, user=None, resource="accelerator:nvidia-a100-80g", limit=None)
    assert "requests.nvidia.com/gpu" not in team_spec(world.vision).hard
