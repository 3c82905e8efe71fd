"""What the spawner makes of an order, as whole documents."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from k8s import manifests, names
from k8s.hub import order
from k8s.spec import EnvironmentSpec, Home, Port, Resources, Role

SPEC = EnvironmentSpec(
    id="6f1c2a3b-0000-4000-8000-000000000001",
    install="test",
    name="nb",
    kind="notebook",
    team="vision",
    owner="alice",
    roles=(
        Role(
            name="notebook",
            replicas=1,
            image="jupyterhub/singleuser:6.1",
            resources=Resources(cpu_millis=500, memory_bytes=2**29),
            command=("jupyterhub-singleuser",),
            env={"PRICE": "5$"},
            ports=(Port(name="notebook", number=8888),),
        ),
    ),
    namespace="atelier-vision",
    base_name="nb-6f1c2a3b",
    home=Home(claim="home-nb", size_bytes=2**30),
)
POD = manifests.notebook_pod(SPEC, {"apiVersion": "v1", "kind": "ConfigMap", "name": "nb-6f1c2a3b", "uid": "u"})
OPTIONS: dict[str, Any] = {"environment": SPEC.id, "namespace": SPEC.namespace, "pod": POD}
HUB_ENV = {
    "JUPYTERHUB_API_TOKEN": "secret",
    "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/nb-6f1c2a3b/",
    "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:8888/user/alice/nb-6f1c2a3b/",
    "JUPYTERHUB_USER": "al$(POD_IP)ice",
    "JPY_API_TOKEN": "old name",
    "JUPYTER_IMAGE": "not the portal's",
    "MEM_LIMIT": "1",
}


def read(options: Any) -> order.Order:
    return order.read(options, server="nb-6f1c2a3b", install="test")


def test_the_pod_is_the_ordered_one_plus_the_hubs_variables() -> None:
    made = order.manifest(read(OPTIONS), HUB_ENV)
    expected = copy.deepcopy(POD)
    container = expected["spec"]["containers"][0]
    given = [each for each in container["env"] if each["name"] != "POD_IP"]
    container["env"] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        *given,
        {"name": "JUPYTERHUB_API_TOKEN", "value": "secret"},
        {"name": "JUPYTERHUB_SERVICE_PREFIX", "value": "/user/alice/nb-6f1c2a3b/"},
        {"name": "JUPYTERHUB_SERVICE_URL", "value": "http://$(POD_IP):8888/user/alice/nb-6f1c2a3b/"},
        {"name": "JUPYTERHUB_USER", "value": "al$$(POD_IP)ice"},
    ]
    container["args"] = ["--HubOAuth.cache_max_age=15", "--allow-root"]
    assert made == expected


def test_the_order_itself_is_left_as_it_was() -> None:
    before = copy.deepcopy(OPTIONS)
    order.manifest(read(OPTIONS), HUB_ENV)
    assert before == OPTIONS


def test_other_commands_get_no_argument() -> None:
    options = copy.deepcopy(OPTIONS)
    options["pod"]["spec"]["containers"][0]["command"] = ["/bin/sh", "-c", "exec jupyterhub-singleuser"]
    assert "args" not in order.manifest(read(options), HUB_ENV)["spec"]["containers"][0]


def changed(path: str, value: Any) -> dict[str, Any]:
    options = copy.deepcopy(OPTIONS)
    *parents, last = path.split("/")
    inner = options
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return options


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (None, "`environment`, `namespace` and `pod`"),
        ({}, "`environment`, `namespace` and `pod`"),
        ({**OPTIONS, "image": "x"}, "`environment`, `namespace` and `pod`"),
        (changed("environment", 7), "`environment`"),
        (changed("namespace", "kube-system"), "`namespace`"),
        (changed("namespace", ["atelier-x"]), "`namespace`"),
        (changed("namespace", "atelier-speech"), "`pod.metadata.namespace`"),
        (changed("pod", "pod"), "`pod`"),
        (changed("pod/kind", "Job"), "`pod`"),
        (changed("pod/spec", None), "`pod`"),
        (changed("pod/metadata/name", "other"), "`pod.metadata.name`"),
        (changed("pod/metadata/labels", {}), names.INSTALL),
        (changed("pod/metadata/labels", {names.INSTALL: "other", names.ENVIRONMENT: SPEC.id}), names.INSTALL),
        (changed("pod/metadata/labels", {names.INSTALL: "test", names.ENVIRONMENT: "other"}), names.ENVIRONMENT),
        (changed("pod/spec/containers", []), "container"),
        (changed("pod/spec/containers", ["x"]), "container"),
        (changed("pod/spec/containers", {"notebook": {}}), "container"),
    ],
)
def test_a_malformed_order_is_refused_and_the_field_named(options: Any, named: str) -> None:
    with pytest.raises(order.BadOrder) as refusal:
        read(options)
    assert named in str(refusal.value)
