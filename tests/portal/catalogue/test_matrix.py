"""Every template with every flavor that it takes: each document is valid by Kubernetes' schemas, each pod within restricted Pod Security but for
the capabilities that its devices name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest

from k8s import manifests
from k8s.local.admission.pod_security import violations
from k8s.spec import EnvironmentSpec
from portal.catalogue.loader import load
from portal.domain import allowed
from portal.domain.models import Environment, Flavor, Team, Template, User, Volume
from portal.domain.services.checks import check_params
from portal.domain.shape import role_shapes
from tests.schemas import faults
from workers.specs import environment_spec

pytestmark = pytest.mark.django_db

OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": "11111111-2222-3333-4444-555555555555"}
KEY = UUID("0193aabb-ccdd-7eef-8899-aabbccddeeff")


def examples(template_spec: Mapping[str, Any]) -> dict[str, Any]:
    """A value of each parameter that has to be given."""
    params = template_spec.get("params", {})
    return {name: _example(params["properties"][name]) for name in params.get("required", ()) if "default" not in params["properties"][name]}


def _example(rule: Mapping[str, Any]) -> Any:
    if rule.get("examples"):
        return rule["examples"][0]
    if "enum" in rule:
        return rule["enum"][0]
    plain = {"integer": rule.get("minimum", 1), "number": 1.0, "boolean": True, "array": ["true"]}
    return plain.get(rule["type"], "example/image:1" if rule.get("format") == "image" else "true")


def spec_of(template: Template, flavor: Flavor, operator: str = "") -> EnvironmentSpec:
    """As of an environment that was asked for with the template's defaults; `operator`: the one whose object runs it."""
    owner, team = User(username="alice"), Team(slug="vision")
    params = check_params(template.spec, examples(template.spec))
    row = Environment(
        pk=KEY, name="one", kind=template.kind, team=team, owner=owner, template=template, template_spec=template.spec, flavor=flavor, params=params
    )
    row.placement = {"operator": operator}
    row.workers = next((shape.replicas for shape in role_shapes(template.spec, params, flavor.shape()) if shape.scalable), 0)
    if template.spec.get("home"):
        row.volume = Volume(claim="home-one", size_bytes=2**30, team=team, owner=owner, name="one")
    return environment_spec(row)


def documents_of(spec: EnvironmentSpec) -> Iterator[dict[str, Any]]:
    yield manifests.parent(spec)
    if spec.kind == "notebook":
        yield from (*manifests.support_documents(spec, OWNER), manifests.notebook_pod(spec, OWNER))
        if spec.home:
            yield manifests.home_claim(spec)
    else:
        yield from manifests.cluster_documents(spec, OWNER)


def _pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    if document["kind"] == "Pod":
        return [document["spec"]]
    return [document["spec"]["template"]["spec"]] if document["kind"] in ("StatefulSet", "Job") else []


def _named(spec: EnvironmentSpec) -> set[str]:
    """Capabilities that the devices or the network of some role name."""
    return {name for role in spec.roles for device in (role.resources.devices, role.resources.network) if device for name in device.capabilities}


def test_every_template_with_every_flavor_it_takes() -> None:
    load()
    flavors = list(Flavor.objects.select_related("accelerator", "network"))
    wrong, seen = [], 0
    for template in Template.objects.all():
        takes = [flavor for flavor in flavors if not allowed.why_not(template.spec, flavor)]
        assert takes, f"{template.slug} takes no flavor at all"
        for flavor in takes:
            spec = spec_of(template, flavor)
            for document in documents_of(spec):
                seen += 1
                where = f"{template.slug} with {flavor.slug}: {document['kind']} {document['metadata']['name']}"
                wrong += [f"{where}: {fault}" for fault in faults(document)]
                for pod in _pods(document):
                    found = [str(each) for each in violations("restricted", pod)]
                    expected = {f'"{name}"' for name in _named(spec)}
                    wrong += [f"{where}: {words}" for words in found if not expected or not any(name in words for name in expected)]
    assert not wrong, "\n".join(wrong[:40])
    assert seen >= 6 * Template.objects.count()


@pytest.mark.parametrize(
    ("change", "words"), [({"replicas": "two"}, "'two' is not of type"), ({"replicaz": 2}, "replicaz"), ({"serviceName": 3}, "3 is not of type")]
)
def test_what_is_wrong_would_be_seen(change: dict[str, Any], words: str) -> None:
    load()
    template, flavor = Template.objects.get(slug="dask"), Flavor.objects.get(slug="cpu-small")
    document = next(item for item in documents_of(spec_of(template, flavor)) if item["kind"] == "StatefulSet")
    assert not faults(document)
    assert any(words in fault for fault in faults({**document, "spec": {**document["spec"], **change}}))
