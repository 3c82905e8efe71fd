"""Every operator's object that a built-in template asks for, with and without accelerators, against the operator's own schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from k8s import manifests
from k8s.spec import EnvironmentSpec
from portal.catalogue.loader import BUILTIN, load, read_all
from portal.domain.allowed import why_not
from portal.domain.models import Flavor, Template
from tests.k8s.test_queues import fits_its_schema
from workers.operators import key_of

from .test_matrix import OWNER, spec_of

pytestmark = pytest.mark.django_db


def objects_of(template: Template, flavor: Flavor) -> list[tuple[str, dict[str, Any], EnvironmentSpec]]:
    """The schema's file, the object and the spec, for each operator of the template."""
    found = []
    for document in template.spec.get("operators", ()):
        spec = spec_of(template, flavor, operator=key_of(document))
        found.append((f"{document['plural']}.{document['api'].split('/')[0]}.json", manifests.operator_object(spec, OWNER), spec))
    return found


def test_every_operators_object_fits_its_schema() -> None:
    load()
    seen = set()
    flavors = list(Flavor.objects.select_related("accelerator", "network").filter(slug__in=["cpu-small", "a100-2", "ascend910-1", "a100-8-rdma"]))
    for template in Template.objects.all():
        for flavor in flavors:
            if why_not(template.spec, flavor):
                continue
            for file, document, spec in objects_of(template, flavor):
                try:
                    fits_its_schema(document, file)
                except jsonschema.ValidationError as error:
                    pytest.fail(f"{template.slug} with {flavor.slug}, {document['kind']} {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}")
                assert document["metadata"]["labels"]["atelier.dev/environment"] == spec.id
                seen.add(document["kind"])
    assert seen == {"RayCluster", "DaskCluster", "MPIJob", "FlinkDeployment", "TrainJob", "JobSet", "SparkApplication"}


def test_each_operators_pods_bear_the_labels_by_which_they_are_known() -> None:
    """Whichever way the operator takes: somewhere in its object stands each role's label."""
    load()
    flavor = Flavor.objects.get(slug="cpu-small")
    for template in Template.objects.all():
        for _, document, spec in objects_of(template, flavor):
            text = json.dumps(document)
            assert spec.operator is not None
            for role in spec.operator.roles:
                assert f'"atelier.dev/role": "{role}"' in text, f"{document['kind']} of {template.slug}: {role}"


def test_the_operators_of_the_catalogue_are_sound() -> None:
    with_operators = [document.data["slug"] for document in read_all([BUILTIN]) if document.kind == "template" and document.data.get("operators")]
    assert sorted(with_operators) == ["dask", "flink", "mpi", "pytorch", "ray", "spark-application"]
