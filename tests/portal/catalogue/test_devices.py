"""Accelerators, networks and flavors: what their files may say, the admin that is held to the same, and the pods that become of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from django.conf import settings
from django.test import Client

from k8s import manifests
from k8s.local.admission.pod_security import violations
from portal.catalogue import rows
from portal.catalogue.loader import BUILTIN, CatalogueError, load
from portal.catalogue.validator import faults_of
from portal.domain import services
from portal.domain.models import Accelerator, Environment, Flavor, Network, Team, Template, User
from workers.specs import environment_spec, team_spec

CHIP = {"slug": "chip", "title": {"en": "Chip"}, "family": "npu", "resource_key": "example.com/chip"}
SHAPE = {"slug": "shape", "title": {"en": "Shape"}, "cpu": 1, "memory": "1Gi"}
NET = {"slug": "net", "title": {"en": "Net"}, "kind": "rdma", "resource_key": "rdma/hca"}
KNOWN = {"accelerator": {"chip"}, "network": {"net"}}


def files(folder: str) -> list[Path]:
    return sorted((BUILTIN / folder).glob("*.yaml"))


@pytest.mark.parametrize("file", [*files("accelerators"), *files("networks")], ids=lambda file: file.stem)
def test_every_builtin_entry_says_where_its_names_were_read(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    assert document["slug"] == file.stem
    assert document.get("source"), "an entry whose names nobody can look up"
    assert document["title"].get("zh-hans")


def test_rows_are_documents_without_faults_again(db: None) -> None:
    load()
    known = {"accelerator": set(Accelerator.objects.values_list("slug", flat=True)), "network": set(Network.objects.values_list("slug", flat=True))}
    for kind, model in (("accelerator", Accelerator), ("network", Network), ("flavor", Flavor)):
        for row in model.objects.all():
            document = rows.document_of(row)
            assert faults_of(kind, document, known) == [], row.slug
            again = getattr(rows, kind)(document)
            assert again == {field: getattr(row, field) for field in again}, row.slug


@pytest.mark.parametrize(
    ("kind", "changes", "field", "words"),
    [
        ("accelerator", {"resource_key": None}, "(document)", "either a resource_key"),
        ("accelerator", {"dra": {"device_class": "gpu.nvidia.com"}}, "resource_key", "not both"),
        ("accelerator", {"resource_key": "no-domain"}, "resource_key", "has not the form"),
        ("accelerator", {"family": "toaster"}, "family", "is not one of"),
        ("accelerator", {"sharing": "dra"}, "sharing", "names the device class"),
        ("accelerator", {"resource_key": None, "dra": {"device_class": "x.y"}, "sharing": "hami"}, "sharing", "a device plugin's"),
        ("accelerator", {"resources": {"example.com/chip": 1}}, "resources.example.com/chip", "counted by resource_key already"),
        ("accelerator", {"resources": {"example.com/mem": 0}}, "resources.example.com/mem", "less than the minimum"),
        ("accelerator", {"slice_of": "nothing"}, "slice_of", "there are chip"),
        ("accelerator", {"slice_of": "chip"}, "slice_of", "is itself"),
        ("accelerator", {"labels": {"a b": "x"}}, "labels.a b", "no key"),
        ("accelerator", {"node_selector": {"a": "no spaces"}}, "node_selector.a", "no value of a label"),
        ("accelerator", {"env": {"1A": "x"}}, "env.1A", "no name of a variable"),
        ("accelerator", {"capabilities": ["ipc lock"]}, "capabilities[0]", "has not the form"),
        ("accelerator", {"cost_per_hour": -1}, "cost_per_hour", "less than the minimum"),
        ("network", {"resource_key": None}, "(document)", "needs a resource_key"),
        ("network", {"kind": "tcp", "capabilities": ["IPC_LOCK"]}, "capabilities", "tcp needs none"),
        ("network", {"topology": {"level": "rack"}}, "topology", "'mode' is a required property"),
        ("flavor", {"network": "nothing"}, "network", "there is no network 'nothing'; there are net"),
        ("flavor", {"network_count": 1}, "network_count", "says nothing without a network"),
        ("flavor", {"ephemeral_storage": "lots"}, "ephemeral_storage", "not a quantity"),
        ("flavor", {"accelerator": "nothing", "accelerator_count": 1}, "accelerator", "there are chip"),
    ],
)
def test_a_fault_names_the_field_and_what_is_allowed(kind: str, changes: dict[str, Any], field: str, words: str) -> None:
    base = {"accelerator": CHIP, "network": NET, "flavor": SHAPE}[kind]
    document = {key: value for key, value in (base | changes).items() if value is not None}
    found = faults_of(kind, document, KNOWN)
    assert [fault.field for fault in found] == [field]
    assert words in found[0].message


def test_a_fault_of_a_network_is_told_with_file_and_line_and_nothing_is_loaded(db: None, tmp_path: Path) -> None:
    file = tmp_path / "networks" / "bad.yaml"
    file.parent.mkdir()
    file.write_text("slug: bad\ntitle: {en: Bad}\nkind: rdma\nresource_key: rdma/hca\nenv:\n  9X: y\n")
    with pytest.raises(CatalogueError) as caught:
        load([BUILTIN, tmp_path])
    assert caught.value.faults == [f"{file}:6: env.9X: '9X' is no name of a variable: letters, digits and `_`, not beginning with a digit"]
    assert not Accelerator.objects.exists()


def test_the_admin_is_held_to_the_same_rules(db: None, settings: Any) -> None:
    load()
    boss = User.objects.create_superuser("boss", password="boss-pass-123")
    client = Client()
    client.force_login(boss)
    row = Accelerator.objects.get(slug="nvidia-hami-10g")
    url = f"/admin/domain/accelerator/{row.pk}/change/"
    form = client.get(url).context["adminform"].form
    data = {name: form[name].value() if form[name].value() is not None else "" for name in form.fields}
    bad = client.post(url, data | {"resources": '{"nvidia.com/gpumem": 0}', "enabled": "on"})
    assert bad.status_code == 200
    assert "less than the minimum" in bad.content.decode()
    good = client.post(url, data | {"resources": '{"nvidia.com/gpumem": 2048}', "enabled": "on"})
    assert good.status_code == 302
    row.refresh_from_db()
    assert row.resources == {"nvidia.com/gpumem": 2048}


@pytest.fixture
def world(db: None) -> tuple[User, Team]:
    load()
    team = services.team_create(actor=None, slug="vision", name="Vision")
    alice = User.objects.create_user("alice")
    services.membership_set(actor=None, team=team, user=alice)
    return alice, team


def test_every_builtin_flavor_gives_pods_that_kubernetes_takes(world: tuple[User, Team]) -> None:
    alice, team = world
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}
    template = Template.objects.get(slug="dask")
    checked = 0
    for flavor in Flavor.objects.select_related("accelerator", "network"):
        row = Environment(
            name="grid", kind="cluster", team=team, owner=alice, template=template, template_spec=template.spec, flavor=flavor, params={"workers": 1}, workers=1
        )
        found = manifests.cluster_documents(environment_spec(row), owner)
        for document in found:
            kubernetes_validate.validate(document, "1.36", strict=True)
        (worker,) = [each for each in found if each["kind"] == "StatefulSet" and each["metadata"]["labels"]["atelier.dev/role"] == "worker"]
        pod = worker["spec"]["template"]["spec"]
        against = [str(each) for each in violations("restricted", pod)]
        needs = flavor.capabilities()
        assert bool(against) == bool(needs), (flavor.slug, against)
        assert pod["containers"][0]["securityContext"]["capabilities"].get("add", []) == list(needs)
        checked += 1
    assert checked > 20


def test_a_share_of_several_devices_is_said_once_as_its_scheduler_reads_it(world: tuple[User, Team]) -> None:
    alice, team = world
    Flavor.objects.filter(slug="hami-10g").update(accelerator_count=2)
    flavor = Flavor.objects.get(slug="hami-10g")
    template = Template.objects.get(slug="dask")
    row = Environment(name="grid", kind="cluster", team=team, owner=alice, template=template, template_spec=template.spec, flavor=flavor, workers=1)
    worker = next(role for role in environment_spec(row).roles if role.name == "worker")
    assert worker.resources.devices is not None
    assert (worker.resources.devices.count, worker.resources.devices.extra) == (2, {"nvidia.com/gpumem": 10240, "nvidia.com/gpucores": 25})
    assert flavor.accelerator is not None
    assert flavor.accelerator.amounts(2)["nvidia.com/gpumem"] == 20480, "of a node it takes both"


def test_the_clusters_quota_holds_slices_shares_and_claimed_devices(world: tuple[User, Team]) -> None:
    _, team = world
    for slug, limit in (("nvidia-mig-1g-10gb", 7), ("nvidia-hami-10g", 4), ("nvidia-gpu", 2), ("nvidia-gpu-dra", 3)):
        services.quota_set(actor=None, team=team, user=None, resource=f"accelerator:{slug}", limit=limit)
    hard = team_spec(team).hard
    assert hard["requests.nvidia.com/mig-1g.10gb"] == "7"
    assert hard["requests.nvidia.com/gpu"] == "6", "whole ones and shares have the same key"
    assert hard["requests.nvidia.com/gpumem"] == "40960"
    assert hard["gpu.nvidia.com.deviceclass.resource.k8s.io/devices"] == "3"
    assert hard["mig.nvidia.com.deviceclass.resource.k8s.io/devices"] == "0"
    assert settings.INSTALL_ID
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "x"}, "spec": {"hard": dict(hard)}}, "1.36", strict=True)


def test_slices_count_by_their_weight_among_all_accelerators(world: tuple[User, Team]) -> None:
    _, team = world
    services.quota_set(actor=None, team=team, user=None, resource="accelerators", limit=1000)
    for slug in ("nvidia-mig-1g-10gb", "nvidia-a100-80g"):
        services.quota_set(actor=None, team=team, user=None, resource=f"accelerator:{slug}", limit=None)
    hard = team_spec(team).hard
    assert hard["requests.nvidia.com/mig-1g.10gb"] == "6", "1000 thousandths hold six of 143"
    assert hard["requests.nvidia.com/gpu"] == "1", "a HAMi share weighs less and has the same key, but nobody granted it"
