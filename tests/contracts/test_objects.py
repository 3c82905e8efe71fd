"""Creating, reading, changing and deleting objects, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client

from .conftest import Http, configmap, pod, statefulset


def space(namespace: str, plural: str, name: str = "", group: str = "") -> str:
    root = f"/apis/{group}/v1" if group else "/api/v1"
    return f"{root}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def test_a_request_without_the_token_is_refused(http: Http) -> None:
    answer = http("GET", "/api/v1/secrets", authorized=False)
    assert answer.code in {401, 403}
    assert answer.json["kind"] == "Status"


def test_an_object_made_by_the_official_client_is_read_back_with_identity(core: client.CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(namespace, configmap("one", x="1"))
    assert made.metadata.uid
    assert made.metadata.resource_version
    assert made.metadata.creation_timestamp is not None
    assert core.read_namespaced_config_map("one", namespace).data == {"x": "1"}
    assert [each.metadata.name for each in core.list_namespaced_config_map(namespace).items if each.metadata.name == "one"] == ["one"]


def test_what_is_not_there_is_not_found_by_name(http: Http, namespace: str) -> None:
    answer = http("GET", space(namespace, "pods", "nobody"))
    assert (answer.code, answer.json["reason"], answer.message) == (404, "NotFound", 'pods "nobody" not found')
    assert answer.json["details"] == {"name": "nobody", "kind": "pods"}
    answer = http("DELETE", space(namespace, "statefulsets", "nobody", "apps"))
    assert (answer.code, answer.message) == (404, 'statefulsets.apps "nobody" not found')


def test_a_kind_that_is_not_served_is_not_found(http: Http, namespace: str) -> None:
    answer = http("GET", space(namespace, "unicorns"))
    assert answer.code == 404
    assert "could not find the requested resource" in answer.text or "page not found" in answer.text


def test_a_second_object_of_the_same_name_is_a_conflict(http: Http, namespace: str) -> None:
    assert http("POST", space(namespace, "configmaps"), configmap("twice")).code == 201
    answer = http("POST", space(namespace, "configmaps"), configmap("twice"))
    assert (answer.code, answer.json["reason"], answer.message) == (409, "AlreadyExists", 'configmaps "twice" already exists')


def test_an_object_in_a_namespace_that_is_not_there_is_not_found(http: Http) -> None:
    answer = http("POST", space("contract-nowhere", "configmaps"), configmap("a"))
    assert (answer.code, answer.message) == (404, 'namespaces "contract-nowhere" not found')


def test_generated_names_differ(http: Http, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "some-"}}
    names = {http("POST", space(namespace, "configmaps"), body).json["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("some-") and len(name) == 10 for name in names)


def test_a_dry_run_says_what_would_be_and_leaves_nothing(http: Http, namespace: str) -> None:
    answer = http("POST", space(namespace, "configmaps") + "?dryRun=All", configmap("ghost"))
    assert answer.code == 201
    assert answer.json["metadata"]["uid"]
    assert http("GET", space(namespace, "configmaps", "ghost")).code == 404


def test_a_stale_resource_version_is_refused(http: Http, namespace: str) -> None:
    first = http("POST", space(namespace, "configmaps"), configmap("locked", x="1")).json
    assert http("PUT", space(namespace, "configmaps", "locked"), {**first, "data": {"x": "2"}}).code == 200
    answer = http("PUT", space(namespace, "configmaps", "locked"), {**first, "data": {"x": "3"}})
    assert (answer.code, answer.json["reason"]) == (409, "Conflict")
    assert answer.message == (
        'Operation cannot be fulfilled on configmaps "locked": the object has been modified; please apply your changes to the latest version and try again'
    )


def test_an_update_that_changes_nothing_keeps_the_resource_version(http: Http, namespace: str) -> None:
    first = http("POST", space(namespace, "configmaps"), configmap("same", x="1")).json
    again = http("PUT", space(namespace, "configmaps", "same"), first).json
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_generation_counts_changes_of_spec_only(http: Http, namespace: str) -> None:
    path = space(namespace, "statefulsets", "gen", "apps")
    made = http("POST", space(namespace, "statefulsets", group="apps"), statefulset("gen")).json
    assert made["metadata"]["generation"] == 1
    labelled = http("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, kind="application/merge-patch+json").json
    assert labelled["metadata"]["generation"] == 1
    changed = http("PATCH", path, {"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}, kind="application/merge-patch+json").json
    assert changed["metadata"]["generation"] == 2


def test_status_is_written_through_its_subresource_only(http: Http, namespace: str) -> None:
    path = space(namespace, "pods", "stated")
    assert http("POST", space(namespace, "pods"), {**pod("stated"), "status": {"phase": "Running"}}).json["status"]["phase"] == "Pending"
    http("PATCH", path, {"status": {"phase": "Running"}}, kind="application/merge-patch+json")
    assert http("GET", path).json["status"]["phase"] == "Pending"
    answer = http("PATCH", path + "/status", {"status": {"message": "seen"}, "metadata": {"annotations": {}}}, kind="application/merge-patch+json")
    assert answer.code == 200
    assert http("GET", path).json["status"]["message"] == "seen"


def test_scale_reads_and_sets_replicas(http: Http, namespace: str) -> None:
    path = space(namespace, "statefulsets", "scaled", "apps")
    http("POST", space(namespace, "statefulsets", group="apps"), statefulset("scaled"))
    shown = http("GET", path + "/scale").json
    assert (shown["kind"], shown["spec"].get("replicas", 0)) == ("Scale", 0)
    assert http("PATCH", path + "/scale", {"spec": {"replicas": 1}}, kind="application/merge-patch+json").code == 200
    assert http("GET", path).json["spec"]["replicas"] == 1
    assert http("PATCH", path + "/scale", {"spec": {"replicas": -1}}, kind="application/merge-patch+json").code == 422


def test_a_pod_gets_the_defaults_of_kubernetes(http: Http, namespace: str) -> None:
    body = pod("plain")
    body["spec"]["containers"][0].update(
        resources={"limits": {"cpu": "0.5", "memory": "1024Mi"}}, ports=[{"containerPort": 80}], readinessProbe={"httpGet": {"port": 80}}
    )
    spec = http("POST", space(namespace, "pods"), body).json["spec"]
    wanted = {
        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "serviceAccountName": "default", "enableServiceLinks": True, "priority": 0,
    }  # fmt: skip
    assert {key: spec[key] for key in wanted} == wanted
    container = spec["containers"][0]
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["resources"] == {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["readinessProbe"] == {
        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
    }  # fmt: skip
    assert {each["key"] for each in spec["tolerations"]} == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}


def _broken(change: str) -> dict[str, Any]:
    body = pod("broken")
    container = body["spec"]["containers"][0]
    match change:
        case "no image":
            del container["image"]
        case "no containers":
            body["spec"]["containers"] = []
        case "name":
            body["metadata"]["name"] = "Not_A_Name"
        case "twice":
            body["spec"]["containers"].append(dict(container))
        case "port":
            container["ports"] = [{"containerPort": 70000}]
        case "mount":
            container["volumeMounts"] = [{"name": "none", "mountPath": "/x"}]
        case "request":
            container["resources"] = {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}
        case "label":
            body["metadata"]["labels"] = {"a": "not a value"}
        case "policy":
            body["spec"]["restartPolicy"] = "Sometimes"
        case "device":
            container["resources"] = {"limits": {"example.com/gpu": "500m"}}
        case "mode":
            body["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]
    return body


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ("no image", "spec.containers[0].image", "Required value"),
        ("no containers", "spec.containers", "Required value"),
        ("name", "metadata.name", 'Invalid value: "Not_A_Name": a lowercase RFC 1123 subdomain must consist of'),
        ("twice", "spec.containers[1].name", 'Duplicate value: "main"'),
        ("port", "spec.containers[0].ports[0].containerPort", "Invalid value: 70000: must be between 1 and 65535, inclusive"),
        ("mount", "spec.containers[0].volumeMounts[0].name", 'Not found: "none"'),
        ("request", "spec.containers[0].resources.requests", 'Invalid value: "2": must be less than or equal to cpu limit of 1'),
        ("label", "metadata.labels", 'Invalid value: "not a value": a valid label must be an empty string or consist of'),
        ("policy", "spec.restartPolicy", 'Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"'),
        ("device", "spec.containers[0].resources.limits[example.com/gpu]", "must be an integer"),
        ("mode", "spec.volumes[1].name", 'Duplicate value: "v"'),
    ],
)
def test_an_invalid_pod_is_refused_with_the_path_of_the_field(http: Http, namespace: str, change: str, field: str, message: str) -> None:
    answer = http("POST", space(namespace, "pods"), _broken(change))
    assert (answer.code, answer.json["reason"]) == (422, "Invalid"), answer.text
    causes = {each["field"]: each["message"] for each in answer.json["details"]["causes"]}
    assert field in causes
    assert message in causes[field]
    assert answer.message.startswith('Pod "')
    assert " is invalid: " in answer.message


def test_a_value_of_the_wrong_type_is_a_bad_request(http: Http, namespace: str) -> None:
    body = pod("typed")
    body["spec"]["containers"][0]["ports"] = [{"containerPort": "eighty"}]
    answer = http("POST", space(namespace, "pods"), body)
    assert (answer.code, answer.json["reason"]) == (400, "BadRequest")
    assert answer.message.startswith('Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field')


def test_a_quantity_that_is_none_is_a_bad_request(http: Http, namespace: str) -> None:
    body = pod("amount")
    body["spec"]["containers"][0]["resources"] = {"limits": {"memory": "lots"}}
    answer = http("POST", space(namespace, "pods"), body)
    assert answer.code == 400
    assert "quantities must match the regular expression" in answer.message


def test_unknown_fields_are_dropped_warned_about_or_refused_as_asked(http: Http, namespace: str) -> None:
    body = {**configmap("extra"), "colour": "red"}
    path = space(namespace, "configmaps") + "?dryRun=All"
    answer = http("POST", path + "&fieldValidation=Strict", body)
    assert answer.code == 400
    assert 'strict decoding error: unknown field "colour"' in answer.message
    answer = http("POST", path, body)
    assert answer.code == 201
    assert 'unknown field "colour"' in answer.warnings.replace("\\", "")
    assert "colour" not in answer.json
    assert not http("POST", path + "&fieldValidation=Ignore", body).warnings


def test_a_running_pods_spec_cannot_be_changed(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "pods"), pod("fixed"))
    answer = http("PATCH", space(namespace, "pods", "fixed"), {"spec": {"restartPolicy": "Never"}}, kind="application/merge-patch+json")
    assert answer.code == 422
    assert "pod updates may not change fields other than `spec.containers[*].image`" in answer.message


def test_a_statefulsets_service_name_cannot_be_changed(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "statefulsets", group="apps"), statefulset("fixed"))
    answer = http("PATCH", space(namespace, "statefulsets", "fixed", "apps"), {"spec": {"serviceName": "other"}}, kind="application/merge-patch+json")
    assert answer.code == 422
    assert "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy'" in answer.message


def test_a_selector_must_match_the_templates_labels(http: Http, namespace: str) -> None:
    body = statefulset("apart")
    body["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    answer = http("POST", space(namespace, "statefulsets", group="apps"), body)
    assert answer.code == 422
    assert any(
        each["field"] == "spec.template.metadata.labels" and "`selector` does not match template `labels`" in each["message"]
        for each in answer.json["details"]["causes"]
    )


def test_a_service_gets_an_address_that_cannot_be_changed(http: Http, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}
    spec = http("POST", space(namespace, "services"), body).json["spec"]
    assert spec["clusterIP"].count(".") == 3
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert (spec["type"], spec["sessionAffinity"]) == ("ClusterIP", "None")
    answer = http(
        "PATCH", space(namespace, "services", "front"), {"spec": {"clusterIP": "1.2.3.4", "clusterIPs": ["1.2.3.4"]}}, kind="application/merge-patch+json"
    )
    assert answer.code == 422


def test_a_headless_service_keeps_none(http: Http, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bare"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}}}
    assert http("POST", space(namespace, "services"), body).json["spec"]["clusterIPs"] == ["None"]


def test_secrets_take_plain_text_and_refuse_what_is_not_base64(http: Http, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "v"}}
    made = http("POST", space(namespace, "secrets"), body).json
    assert (made["type"], made["data"]) == ("Opaque", {"k": "dg=="})
    assert "stringData" not in made
    assert http("POST", space(namespace, "secrets"), {**body, "stringData": {}, "data": {"k": "%%%"}}).code == 400


def test_label_and_field_selectors_choose(http: Http, namespace: str) -> None:
    for name, labels in (("a", {"tier": "x"}), ("b", {"tier": "y"}), ("c", {})):
        assert http("POST", space(namespace, "pods"), {**pod(name), "metadata": {"name": name, "labels": labels}}).code == 201

    def names(query: str) -> list[str]:
        answer = http("GET", space(namespace, "pods") + query)
        assert answer.code == 200, answer.text
        return [each["metadata"]["name"] for each in answer.json["items"]]

    assert names("?labelSelector=tier%3Dx") == ["a"]
    assert names("?labelSelector=tier!%3Dx") == ["b", "c"]
    assert names("?labelSelector=tier%20in%20(x,y)") == ["a", "b"]
    assert names("?labelSelector=!tier") == ["c"]
    assert names("?labelSelector=tier") == ["a", "b"]
    assert names("?fieldSelector=metadata.name%3Db") == ["b"]
    assert names("?fieldSelector=status.phase%3DRunning") == []
    assert names("?fieldSelector=status.phase%3DPending,spec.nodeName%3D") == ["a", "b", "c"]
    assert http("GET", space(namespace, "pods") + "?fieldSelector=spec.colour%3Dred").code == 400
    assert http("GET", space(namespace, "pods") + "?labelSelector=a%3D%3D%3Db").code == 400


def test_long_lists_come_in_pages(http: Http, namespace: str) -> None:
    for number in range(5):
        http("POST", space(namespace, "secrets"), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"page-{number}"}})
    first = http("GET", space(namespace, "secrets") + "?limit=2").json
    assert [each["metadata"]["name"] for each in first["items"]] == ["page-0", "page-1"]
    token = first["metadata"]["continue"]
    rest = http("GET", space(namespace, "secrets") + f"?limit=500&continue={token}").json
    assert [each["metadata"]["name"] for each in rest["items"]] == ["page-2", "page-3", "page-4"]
    assert not rest["metadata"].get("continue")
    assert http("GET", space(namespace, "secrets") + "?limit=2&continue=rubbish").code == 400


def test_items_of_a_list_say_nothing_of_their_kind(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "configmaps"), configmap("listed"))
    answer = http("GET", space(namespace, "configmaps")).json
    assert answer["kind"] == "ConfigMapList"
    assert all("kind" not in each and "apiVersion" not in each for each in answer["items"])


def test_a_collection_is_deleted_by_selector(http: Http, namespace: str) -> None:
    for name, labels in (("x", {"go": "yes"}), ("y", {"go": "yes"}), ("z", {"go": "no"})):
        http("POST", space(namespace, "configmaps"), configmap(name, labels))
    assert http("DELETE", space(namespace, "configmaps") + "?labelSelector=go%3Dyes").code == 200
    assert http("GET", space(namespace, "configmaps", "x")).code == 404
    assert http("GET", space(namespace, "configmaps", "z")).code == 200


def test_an_object_with_a_finalizer_waits_for_it(http: Http, namespace: str) -> None:
    body = configmap("held")
    body["metadata"]["finalizers"] = ["example.com/wait"]
    path = space(namespace, "configmaps", "held")
    assert http("POST", space(namespace, "configmaps"), body).code == 201
    assert http("DELETE", path).code == 200
    assert http("GET", path).json["metadata"]["deletionTimestamp"]
    http("PATCH", path, {"metadata": {"finalizers": None}}, kind="application/merge-patch+json")
    assert http("GET", path).code == 404


def test_deletion_of_another_object_of_the_same_name_is_refused(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "configmaps"), configmap("mine"))
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
    answer = http("DELETE", space(namespace, "configmaps", "mine"), options)
    assert (answer.code, answer.json["reason"]) == (409, "Conflict")
    assert "Precondition failed: UID in precondition" in answer.message


def test_an_unscheduled_pod_is_deleted_at_once(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "pods"), pod("brief"))
    assert http("DELETE", space(namespace, "pods", "brief")).json["kind"] == "Pod"
    assert http("GET", space(namespace, "pods", "brief")).code == 404


def test_the_verb_must_fit_the_path(http: Http, namespace: str) -> None:
    assert http("POST", "/api/v1/configmaps", configmap("a")).code == 405
    assert http("PUT", space(namespace, "configmaps"), configmap("a")).code == 405


def test_a_body_of_another_kind_is_refused(http: Http, namespace: str) -> None:
    assert http("POST", space(namespace, "configmaps"), {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}).code == 400
    assert http("POST", space(namespace, "configmaps"), b"{not json").code == 400
    assert http("POST", space(namespace, "configmaps"), b"<a/>", kind="text/xml").code == 415


def test_a_table_has_the_columns_of_kubectl(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "pods"), pod("row"))
    answer = http("GET", space(namespace, "pods"), accept="application/json;as=Table;v=v1;g=meta.k8s.io,application/json").json
    assert answer["kind"] == "Table"
    assert [each["name"] for each in answer["columnDefinitions"] if not each["priority"]] == ["Name", "Ready", "Status", "Restarts", "Age"]
    assert answer["rows"][0]["cells"][:3] == ["row", "0/1", "Pending"]


def test_events_are_the_same_in_both_groups(http: Http, namespace: str) -> None:
    about = {"kind": "Pod", "namespace": namespace, "name": "x"}
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e1"},
        "involvedObject": about,
        "reason": "Tested",
        "message": "m",
        "type": "Normal",
        "count": 1,
    }
    assert http("POST", space(namespace, "events"), body).code == 201
    found = http("GET", space(namespace, "events", "e1", "events.k8s.io")).json
    assert (found["regarding"]["name"], found["note"], found["reason"]) == ("x", "m", "Tested")
    listed = http("GET", space(namespace, "events") + "?fieldSelector=involvedObject.name%3Dx,type%3DNormal").json["items"]
    assert [each["metadata"]["name"] for each in listed] == ["e1"]
