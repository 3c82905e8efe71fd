"""The four kinds of patch."""

from __future__ import annotations

from typing import Any

from .conftest import Answer, Http, configmap, statefulset
from .test_objects import space

MERGE, STRATEGIC, JSON, APPLY = (
    "application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml",
)  # fmt: skip


def test_a_merge_patch_replaces_lists_and_removes_nulls(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "configmaps"), configmap("m", a="1", b="2"))
    answer = http("PATCH", space(namespace, "configmaps", "m"), {"data": {"a": None, "c": "3"}}, kind=MERGE)
    assert answer.json["data"] == {"b": "2", "c": "3"}


def test_a_json_patch_tests_adds_and_removes(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "configmaps"), configmap("j", a="1"))
    operations = [
        {"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/metadata/annotations", "value": {}},
        {"op": "add", "path": "/metadata/annotations/example.com~1note", "value": "2"}, {"op": "remove", "path": "/data/a"},
    ]  # fmt: skip
    found = http("PATCH", space(namespace, "configmaps", "j"), operations, kind=JSON).json
    assert found["metadata"]["annotations"] == {"example.com/note": "2"}
    assert "a" not in found.get("data", {})


def test_a_json_patch_that_does_not_fit_is_refused(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "configmaps"), configmap("j", a="1"))
    path = space(namespace, "configmaps", "j")
    assert http("PATCH", path, [{"op": "replace", "path": "/data/a", "value": "2"}, {"op": "test", "path": "/data/a", "value": "9"}], kind=JSON).code == 422
    assert http("GET", path).json["data"] == {"a": "1"}
    assert http("PATCH", path, [{"op": "add", "path": "/data/b", "value": "2"}], kind=JSON).json["data"] == {"a": "1", "b": "2"}


def test_a_strategic_patch_merges_containers_and_variables_by_name(http: Http, namespace: str) -> None:
    body = statefulset("web")
    body["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    http("POST", space(namespace, "statefulsets", group="apps"), body)
    change = {
        "spec": {
            "template": {
                "spec": {"containers": [{"name": "main", "env": [{"name": "B", "value": "3"}, {"name": "A", "$patch": "delete"}, {"name": "C", "value": "4"}]}]}
            }
        }
    }
    answer = http("PATCH", space(namespace, "statefulsets", "web", "apps"), change, kind=STRATEGIC)
    (container,) = answer.json["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.k8s.io/pause:3.10"
    assert {each["name"]: each["value"] for each in container["env"]} == {"B": "3", "C": "4"}


def test_a_strategic_patch_can_replace_and_retain(http: Http, namespace: str) -> None:
    body = statefulset("web")
    body["spec"]["template"]["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    http("POST", space(namespace, "statefulsets", group="apps"), body)
    path = space(namespace, "statefulsets", "web", "apps")
    change: Any = {"spec": {"template": {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}}}}
    volumes = http("PATCH", path, change, kind=STRATEGIC).json["spec"]["template"]["spec"]["volumes"]
    assert volumes == [{"name": "v", "configMap": {"name": "c", "defaultMode": 420}}]
    change = {"spec": {"template": {"spec": {"volumes": [{"$patch": "replace"}, {"name": "w", "emptyDir": {}}]}}}}
    assert http("PATCH", path, change, kind=STRATEGIC).json["spec"]["template"]["spec"]["volumes"] == [{"name": "w", "emptyDir": {}}]


def test_a_patch_of_an_unknown_kind_is_refused(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "configmaps"), configmap("m"))
    assert http("PATCH", space(namespace, "configmaps", "m"), {}, kind="application/json").code == 415


def _apply(http: Http, path: str, body: Any, manager: str = "one", *, force: bool = False) -> Answer:
    return http("PATCH", f"{path}?fieldManager={manager}&force={str(force).lower()}", body, kind=APPLY)


def test_apply_creates_then_changes_then_is_quiet(http: Http, namespace: str) -> None:
    path = space(namespace, "configmaps", "a")
    first = _apply(http, path, configmap("a", x="1"))
    assert first.code == 201
    (owner,) = first.json["metadata"]["managedFields"]
    assert (owner["manager"], owner["operation"], owner["fieldsV1"]) == ("one", "Apply", {"f:data": {"f:x": {}}})
    second = _apply(http, path, configmap("a", x="2"))
    assert (second.code, second.json["data"]) == (200, {"x": "2"})
    again = _apply(http, path, configmap("a", x="2"))
    assert again.json["metadata"]["resourceVersion"] == second.json["metadata"]["resourceVersion"]


def test_apply_removes_what_it_no_longer_names(http: Http, namespace: str) -> None:
    path = space(namespace, "configmaps", "a")
    _apply(http, path, configmap("a", {"mine": "yes"}, x="1", y="2"))
    _apply(http, path, configmap("a", z="3"), "two")
    found = _apply(http, path, configmap("a", x="1")).json
    assert found["data"] == {"x": "1", "z": "3"}
    assert "labels" not in found["metadata"]


def test_apply_is_refused_where_another_owns_the_field_unless_forced(http: Http, namespace: str) -> None:
    path = space(namespace, "statefulsets", "web", "apps")
    assert _apply(http, path, statefulset("web", 0)).code == 201
    answer = _apply(http, path, statefulset("web", 1), "two")
    assert (answer.code, answer.json["reason"]) == (409, "Conflict")
    assert answer.message == 'Apply failed with 1 conflict: conflict with "one" using apps/v1: .spec.replicas'
    assert answer.json["details"]["causes"] == [{"reason": "FieldManagerConflict", "message": 'conflict with "one" using apps/v1', "field": ".spec.replicas"}]
    forced = _apply(http, path, statefulset("web", 1), "two", force=True)
    assert forced.json["spec"]["replicas"] == 1
    owners = {each["manager"]: each["fieldsV1"]["f:spec"] for each in forced.json["metadata"]["managedFields"] if each["operation"] == "Apply"}
    assert "f:replicas" in owners["two"]
    assert "f:replicas" not in owners["one"]


def test_apply_shares_a_field_that_has_the_same_value(http: Http, namespace: str) -> None:
    path = space(namespace, "configmaps", "a")
    _apply(http, path, configmap("a", x="1"))
    assert _apply(http, path, configmap("a", x="1"), "two").code == 200
    # One lets go; the other still holds it.
    assert _apply(http, path, configmap("a", y="1")).json["data"] == {"x": "1", "y": "1"}


def test_a_plain_update_takes_ownership(http: Http, namespace: str) -> None:
    path = space(namespace, "configmaps", "a")
    _apply(http, path, configmap("a", x="1"))
    http("PATCH", path + "?fieldManager=editor", {"data": {"x": "2"}}, kind=MERGE)
    answer = _apply(http, path, configmap("a", x="3"))
    assert answer.code == 409
    assert 'conflict with "editor" using v1: .data.x' in answer.message


def test_apply_merges_lists_by_their_keys(http: Http, namespace: str) -> None:
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "a", "port": 80}], "selector": {"x": "y"}},
    }
    path = space(namespace, "services", "s")
    assert _apply(http, path, body).code == 201
    other = {**body, "spec": {"ports": [{"name": "b", "port": 81}]}}
    assert [each["port"] for each in _apply(http, path, other, "two").json["spec"]["ports"]] == [80, 81]
    assert [each["port"] for each in _apply(http, path, {**body, "spec": {"selector": {"x": "y"}}}).json["spec"]["ports"]] == [81]


def test_apply_wants_a_field_manager_and_no_managed_fields(http: Http, namespace: str) -> None:
    path = space(namespace, "configmaps", "a")
    assert http("PATCH", path, configmap("a"), kind=APPLY).code == 400
    live = _apply(http, path, configmap("a", x="1")).json
    answer = _apply(http, path, live)
    assert (answer.code, answer.message) == (400, "metadata.managedFields must be nil")
    assert _apply(http, path, {**configmap("a"), "kind": "Secret"}).code == 400


def test_apply_reads_yaml(http: Http, namespace: str) -> None:
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata:\n  k: v\n"
    answer = http("PATCH", space(namespace, "configmaps", "y") + "?fieldManager=one", text, kind=APPLY)
    assert (answer.code, answer.json["data"]) == (201, {"k": "v"})
