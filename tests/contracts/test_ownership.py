"""What goes when something else goes: owners, namespaces, custom kinds."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Http, configmap, wait_for
from .test_objects import space


def owned_by(owner: dict[str, Any], name: str, **more: Any) -> dict[str, Any]:
    body = configmap(name)
    body["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], **more}
    ]
    return body


def gone(http: Http, namespace: str, name: str) -> bool:
    return http("GET", space(namespace, "configmaps", name)).code == 404


def family(http: Http, namespace: str, **more: Any) -> None:
    parent = http("POST", space(namespace, "configmaps"), configmap("parent")).json
    child = http("POST", space(namespace, "configmaps"), owned_by(parent, "child", **more)).json
    assert http("POST", space(namespace, "configmaps"), owned_by(child, "grandchild", **more)).code == 201


def test_dependents_follow_their_owner(http: Http, namespace: str) -> None:
    family(http, namespace)
    http("DELETE", space(namespace, "configmaps", "parent") + "?propagationPolicy=Background")
    assert gone(http, namespace, "parent")
    wait_for(lambda: gone(http, namespace, "child") and gone(http, namespace, "grandchild"), "the dependents to go")


def test_an_owner_deleted_in_the_foreground_goes_last(http: Http, namespace: str) -> None:
    family(http, namespace, blockOwnerDeletion=True)
    child = space(namespace, "configmaps", "child")
    http("PATCH", child, {"metadata": {"finalizers": ["example.com/wait"]}}, kind="application/merge-patch+json")
    http("DELETE", space(namespace, "configmaps", "parent") + "?propagationPolicy=Foreground")
    wait_for(lambda: "deletionTimestamp" in http("GET", child).json["metadata"], "the child to be deleted")
    parent = http("GET", space(namespace, "configmaps", "parent")).json["metadata"]
    assert "foregroundDeletion" in parent["finalizers"]
    held = http("GET", child).json["metadata"].get("finalizers") or []
    http("PATCH", child, {"metadata": {"finalizers": [each for each in held if each != "example.com/wait"]}}, kind="application/merge-patch+json")
    wait_for(lambda: gone(http, namespace, "parent") and gone(http, namespace, "child"), "parent and child to go")


def test_orphans_stay(http: Http, namespace: str) -> None:
    family(http, namespace)
    http("DELETE", space(namespace, "configmaps", "parent") + "?propagationPolicy=Orphan")
    wait_for(lambda: gone(http, namespace, "parent"), "the parent to go")
    assert not http("GET", space(namespace, "configmaps", "child")).json["metadata"].get("ownerReferences")


def test_an_object_of_an_owner_that_never_was_is_collected(http: Http, namespace: str) -> None:
    nobody = {"metadata": {"name": "nobody", "uid": "11111111-2222-3333-4444-555555555555"}}
    assert http("POST", space(namespace, "configmaps"), owned_by(nobody, "stray")).code == 201
    wait_for(lambda: gone(http, namespace, "stray"), "the stray to be collected", 120)


def test_a_namespace_takes_its_content_along_and_admits_nothing_meanwhile(http: Http, namespace: str) -> None:
    body = configmap("held")
    body["metadata"]["finalizers"] = ["example.com/wait"]
    http("POST", space(namespace, "configmaps"), body)
    http("POST", space(namespace, "secrets"), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}})
    assert http("DELETE", f"/api/v1/namespaces/{namespace}").code == 200
    assert http("GET", f"/api/v1/namespaces/{namespace}").json["status"]["phase"] == "Terminating"
    answer = http("POST", space(namespace, "configmaps"), configmap("late"))
    assert answer.code == 403
    assert answer.message == f'configmaps "late" is forbidden: unable to create new content in namespace {namespace} because it is being terminated'
    wait_for(lambda: http("GET", space(namespace, "secrets", "s")).code == 404, "the secret to go")
    http("PATCH", space(namespace, "configmaps", "held"), {"metadata": {"finalizers": None}}, kind="application/merge-patch+json")
    wait_for(lambda: http("GET", f"/api/v1/namespaces/{namespace}").code == 404, "the namespace to go")


def test_every_namespace_has_an_account_and_the_authoritys_certificate(http: Http, namespace: str) -> None:
    wait_for(lambda: http("GET", space(namespace, "configmaps", "kube-root-ca.crt")).code == 200, "the certificate")
    assert "BEGIN CERTIFICATE" in http("GET", space(namespace, "configmaps", "kube-root-ca.crt")).json["data"]["ca.crt"]


def test_the_default_namespace_cannot_be_deleted(http: Http) -> None:
    assert http("DELETE", "/api/v1/namespaces/default").code == 403


CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def group(http: Http) -> Iterator[str]:
    """A group with the kind Widget, which has a schema, a status and a scale."""
    group = f"t{secrets.token_hex(4)}.example.com"
    properties = {
        "spec": {
            "type": "object", "required": ["size"],
            "properties": {"size": {"type": "integer", "minimum": 1}, "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"}},
        },
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    }  # fmt: skip
    version = {
        "name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
    }  # fmt: skip
    body = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"widgets.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]}, "versions": [version]},
    }  # fmt: skip
    assert http("POST", CRDS, body).code == 201

    def established() -> bool:
        conditions = http("GET", f"{CRDS}/widgets.{group}").json.get("status", {}).get("conditions") or []
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions) and http("GET", f"/apis/{group}/v1/widgets").code == 200

    wait_for(established, "the kind to be served")
    yield group
    http("DELETE", f"{CRDS}/widgets.{group}")


def widget(group: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


def test_a_custom_kind_is_stored_pruned_defaulted_and_checked(http: Http, namespace: str, group: str) -> None:
    path = space(namespace, "widgets", group=group)
    made = http("POST", path, widget(group, "w", size=3, weight=7)).json
    assert made["spec"] == {"size": 3, "colour": "red"}
    assert made["metadata"]["generation"] == 1
    answer = http("POST", path, widget(group, "x", size=0, colour="green"))
    assert answer.code == 422
    causes = {each["field"]: each["message"] for each in answer.json["details"]["causes"]}
    assert "should be greater than or equal to 1" in causes["spec.size"]
    assert 'Unsupported value: "green": supported values: "blue", "red"' in causes["spec.colour"] or 'supported values: "red", "blue"' in causes["spec.colour"]
    assert http("POST", path, widget(group, "y")).code == 422


def test_a_custom_kinds_status_is_apart(http: Http, namespace: str, group: str) -> None:
    path = space(namespace, "widgets", group=group)
    http("POST", path, widget(group, "w", size=1))
    http("PATCH", f"{path}/w", {"status": {"ready": True}}, kind="application/merge-patch+json")
    assert "status" not in http("GET", f"{path}/w").json
    done = http("PATCH", f"{path}/w/status", {"status": {"ready": True}, "spec": {"size": 9}}, kind="application/merge-patch+json").json
    assert (done["status"], done["spec"]["size"], done["metadata"]["generation"]) == ({"ready": True}, 1, 1)


def test_a_custom_kind_is_applied_and_goes_with_its_definition(http: Http, namespace: str, group: str) -> None:
    path = space(namespace, "widgets", "w", group)
    assert http("PATCH", path + "?fieldManager=one", widget(group, "w", size=1), kind="application/apply-patch+yaml").code == 201
    assert http("PATCH", path + "?fieldManager=two", widget(group, "w", size=2), kind="application/apply-patch+yaml").code == 409
    assert http("PATCH", path, {"spec": {"size": 3}}, kind="application/strategic-merge-patch+json").code == 415
    http("DELETE", f"{CRDS}/widgets.{group}")
    wait_for(lambda: http("GET", f"{CRDS}/widgets.{group}").code == 404, "the definition to go")
    wait_for(lambda: http("GET", path).code == 404, "the kind to be served no more")
