"""Operators' objects, made from data and the roles' own pods; whole, against their schemas, and what is made of their status."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from k8s import manifests, operators
from k8s.operators import OperatorError, Standing
from k8s.spec import Operator, StatusRule

from .factories import OWNER, SCHEDULER, WORKER, cluster_spec, labels

BODY = {
    "spec": {
        "flag": {"$int": "7"},
        "image": {"$container": "worker", "field": "image"},
        "args": {"$container": "scheduler", "field": "args"},
        "volumes": {"$podField": "worker", "field": "volumes"},
        "selector": {"$podField": "worker", "field": "nodeSelector"},
        "head": {
            "metadata": {"$podMetadata": "scheduler"},
            "spec": {"$podSpec": "scheduler", "container": "main", "without": ["command", "args", "pod.enableServiceLinks"]},
        },
        "groups": [{"count": {"$replicas": "worker"}, "template": {"$pod": "worker"}}],
    }
}
RULES = (
    StatusRule(phase="failed", path="status.state", values=("failed", "error"), message="status.reason"),
    StatusRule(phase="completed", condition="Complete"),
    StatusRule(phase="ready", path="status.ready", values=("True",)),
)


def operator(body: dict[str, Any] = BODY, **changes: Any) -> Operator:
    return replace(Operator(api_version="x.test/v1", kind="Thing", plural="things", body=body, roles=operators.roles_in(body), status=RULES), **changes)


def test_the_operators_object_holds_the_same_pods() -> None:
    plain = cluster_spec()
    spec = replace(plain, operator=operator())
    documents = manifests.cluster_documents(spec, OWNER)
    assert [(item["kind"], item["metadata"]["name"]) for item in documents] == [
        ("Service", "grid-0193aabb-scheduler"),
        ("Service", "grid-0193aabb-worker"),
        ("Thing", "grid-0193aabb"),
    ]
    sets = {role.name: manifests.role_set(plain, role, OWNER)["spec"]["template"] for role in plain.roles}
    head = sets["scheduler"]["spec"]
    head["containers"][0]["name"] = "main"
    del head["containers"][0]["command"], head["containers"][0]["args"], head["enableServiceLinks"]
    assert documents[-1] == {
        "apiVersion": "x.test/v1",
        "kind": "Thing",
        "metadata": {"name": "grid-0193aabb", "namespace": "atelier-vision", "labels": labels(spec), "ownerReferences": [OWNER]},
        "spec": {
            "flag": 7,
            "image": "daskdev/dask:1",
            "args": ["--host", "$(POD_IP)"],
            "volumes": sets["worker"]["spec"]["volumes"],
            "selector": {},
            "head": {"metadata": sets["scheduler"]["metadata"], "spec": head},
            "groups": [{"count": 2, "template": sets["worker"]}],
        },
    }


def test_roles_that_the_operator_does_not_make_stay_our_own() -> None:
    spec = cluster_spec(operator=operator({"spec": {"template": {"$pod": "worker"}}}))
    kinds = [(item["kind"], item["metadata"]["name"]) for item in manifests.cluster_documents(spec, OWNER)]
    assert [kind for kind in kinds if kind[0] != "Service"] == [("StatefulSet", "grid-0193aabb-scheduler"), ("Thing", "grid-0193aabb")]


def test_filling_leaves_the_form_as_it_was() -> None:
    before = repr(BODY)
    spec = cluster_spec(operator=operator())
    assert manifests.operator_object(spec, OWNER) == manifests.operator_object(spec, OWNER)
    assert repr(BODY) == before


def test_another_number_of_workers_makes_another_object() -> None:
    spec = cluster_spec(operator=operator())
    more = replace(spec, roles=(SCHEDULER, replace(WORKER, replicas=5)))
    assert manifests.operator_object(more, OWNER)["spec"]["groups"][0]["count"] == 5


def test_what_is_no_number_is_said() -> None:
    with pytest.raises(OperatorError, match="'many' is not a whole number"):
        manifests.operator_object(cluster_spec(operator=operator({"spec": {"n": {"$int": "many"}, "t": {"$pod": "worker"}}})), OWNER)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ("", "")),
        ({"state": "error", "reason": " no head pod "}, ("failed", "no head pod")),
        ({"state": "failed"}, ("failed", "")),
        ({"conditions": [{"type": "Complete", "status": "True", "message": "all done"}]}, ("completed", "all done")),
        ({"conditions": [{"type": "Complete", "status": "False", "message": "not yet"}]}, ("", "")),
        ({"ready": True}, ("ready", "")),
        ({"ready": True, "state": "failed", "reason": "late"}, ("failed", "late")),
        ({"state": {"odd": 1}}, ("", "")),
    ],
)
def test_what_the_operator_says(status: dict[str, Any], expected: tuple[str, str]) -> None:
    assert operators.standing(RULES, {"status": status}) == Standing(*expected)
